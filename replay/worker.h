// One worker of the replay: a flow table, counters and the Pipeline on them, fed packet by packet.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "dp/abi/counters.h"
#include "dp/abi/region.h"
#include "dp/lb/flow_table.h"
#include "dp/lb/pipeline.h"
#include "dp/lb/snapshot.h"
#include "replay/capture.h"

namespace lb::replay {

// Where frames leave: the output capture, and which of its frames the present packet caused.
class Output {
 public:
  explicit Output(CaptureWriter& writer) : writer_(writer) {}

  void start_packet(std::uint64_t at_ns) {
    at_ns_ = at_ns;
    frames_.clear();
  }
  void emit(std::span<const std::uint8_t> frame) {
    writer_.write(at_ns_, frame);
    frames_.push_back(next_frame_++);
  }
  // Indices of the frames emitted since start_packet().
  [[nodiscard]] const std::vector<std::uint64_t>& frames() const { return frames_; }

 private:
  CaptureWriter& writer_;
  std::uint64_t at_ns_ = 0;
  std::uint64_t next_frame_ = 0;
  std::vector<std::uint64_t> frames_;
};

struct WorkerOptions {
  std::uint64_t flows = 0;              // that the table is to hold
  std::uint32_t target_capacity = 0;    // ids 0 … capacity-1
  std::uint32_t listener_capacity = 0;  // counter indices 0 … capacity-1
  NodeSecret secret{};
};

// What became of a packet; indices as in Burst.
struct Outcome {
  Verdict verdict = Verdict::drop;
  abi::DropReason reason = abi::DropReason::none;
  FlowResult flow = FlowResult::none;
  std::uint32_t listener = abi::kNoIndex;
  std::uint32_t group = abi::kNoIndex;
  std::uint32_t target = abi::kNoIndex;
  std::uint32_t out_length = 0;  // bytes of the frame sent on or back; 0: none
};

class Worker final : public ExtraPackets {
 public:
  Worker(const WorkerOptions& options, Output& output);
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  Outcome process(const Snapshot& snapshot, std::span<const std::uint8_t> frame, std::uint64_t now_ns);

  // Sweeps the whole flow table once a second of capture time.
  void age(const Snapshot& snapshot, std::uint64_t now_ns);

  bool send(std::uint8_t out_port, const std::uint8_t* frame, std::uint32_t length) override;

  [[nodiscard]] std::uint64_t flows_of(std::uint32_t target_id) const { return target_flows_[target_id]; }
  [[nodiscard]] std::uint64_t counter(std::size_t index) const { return stats_.counters[index]; }

 private:
  void count_sent(std::uint32_t length);

  Output& output_;
  std::vector<abi::FlowLine> lines_;
  std::vector<std::uint32_t> target_flows_;
  std::vector<abi::ListenerStats> listener_stats_;
  abi::WorkerStats stats_;
  FlowTable flows_;
  Pipeline pipeline_;
  Burst burst_;
  std::vector<std::uint8_t> buffer_;
  std::uint64_t swept_ns_ = 0;
};

}  // namespace lb::replay
