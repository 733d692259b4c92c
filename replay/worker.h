// One worker of the replay: a flow table, counters and the Pipeline on them, fed packet by packet.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "dp/abi/counters.h"
#include "dp/abi/region.h"
#include "dp/lb/flow_table.h"
#include "dp/lb/pipeline.h"
#include "dp/lb/snapshot.h"
#include "dp/lb/translations.h"
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
  // The last frame emitted is not the present packet's, but of one that was held. Its index.
  std::uint64_t take_last() {
    const std::uint64_t last = frames_.back();
    frames_.pop_back();
    return last;
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
  std::uint32_t index = 0;
  SnatBook* snat = nullptr;                      // of all workers
  std::span<const std::uint32_t*> target_flows;  // of every worker, by index: this one puts in its own
};

// How a held packet of this worker ended.
struct HeldEnd {
  std::uint32_t worker = 0;
  std::uint64_t number = 0;  // of the worker's held packets, from 0
  abi::DropReason reason = abi::DropReason::none;
  std::uint32_t listener = abi::kNoIndex;
  std::uint32_t target = abi::kNoIndex;
  std::uint32_t out_length = 0;
  std::uint64_t frame = 0;  // of --out, if reason is none
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

class Worker final : public ExtraPackets, public HeldObserver {
 public:
  // `tables` and `notes`: one for each worker; this one enters its own table.
  Worker(const WorkerOptions& options, Output& output, std::span<std::span<const abi::FlowLine>> tables,
         std::span<FragmentNotes> notes);
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // The flow tables of all workers, where replies look for their flow. Outlive this.
  void meet(std::span<FlowTable* const> tables) { pipeline_.set_peers(tables); }
  [[nodiscard]] FlowTable* flows() { return &flows_; }

  Outcome process(const Snapshot& snapshot, std::span<const std::uint8_t> frame, std::uint64_t now_ns);

  // Ends what is held, if it is time; sweeps the whole flow table once a second of capture time.
  void age(const Snapshot& snapshot, std::uint64_t now_ns);

  bool send(std::uint8_t out_port, const std::uint8_t* frame, std::uint32_t length) override;

  void held_ended(std::uint64_t number, abi::DropReason reason, std::uint32_t listener, std::uint32_t target) override;
  // Those that ended since this was asked last.
  [[nodiscard]] std::vector<HeldEnd> take_held_ends() { return std::exchange(held_ends_, {}); }

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
  std::uint32_t index_;
  std::uint32_t sent_length_ = 0;  // of the last extra packet
  std::vector<HeldEnd> held_ends_;
};

}  // namespace lb::replay
