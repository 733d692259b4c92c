// Two workers of one lb-dp on snapshots that lb-cp's own code has compiled: every forwarding mode, two families, and what
// happens to targets. What holds after any packet in any state is checked here.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "dp/lb/pipeline.h"
#include "dp/lb/translations.h"
#include "tests/fuzz/bytes.h"

namespace lb::fuzz {

// The snapshots that a run may change between, made once: all is well; a target drains; one is unhealthy; a target, a
// listener and a VIP are gone; without any of that again. One roster made them, so ids mean the same targets in all.
std::span<const std::shared_ptr<const Snapshot>> snapshots();

using Frame = std::vector<std::uint8_t>;

class Fleet {
 public:
  static constexpr std::uint32_t kWorkers = 2;

  Fleet();

  // One packet, alone in its burst, to one of the workers. Every frame that leaves is whole and is kept as last_sent().
  void packet(std::uint32_t worker, std::span<const std::uint8_t> frame);
  void pass(std::uint64_t ns) { now_ns_ += ns; }
  void age();
  void use(std::size_t snapshot) { snapshot_ = snapshots()[snapshot % snapshots().size()]; }
  // Each worker's packets add up, and its gauges are the tables'.
  void check() const;
  void check_nothing_held() const;
  [[nodiscard]] const Frame& last_sent() const { return last_sent_; }

 private:
  struct One final : ExtraPackets {
    One(Fleet& fleet, std::uint32_t index);
    bool send(std::uint8_t out_port, const std::uint8_t* frame, std::uint32_t length) override;
    std::vector<abi::FlowLine> lines;
    std::vector<std::uint32_t> target_flows;
    std::vector<std::uint32_t> target_troubles;
    std::vector<abi::ListenerStats> listener_stats;
    abi::WorkerStats stats;
    FlowTable flows;
    std::unique_ptr<Pipeline> pipeline;
    Fleet& fleet;
  };

  std::vector<std::vector<abi::Translation>> translations_;
  SnatBook snat_;
  std::vector<FragmentNotes> notes_;
  std::vector<std::span<const abi::FlowLine>> tables_;
  std::vector<const std::uint32_t*> target_flows_;
  std::vector<std::unique_ptr<One>> workers_;
  std::vector<FlowTable*> peers_;
  std::shared_ptr<const Snapshot> snapshot_;
  std::uint64_t now_ns_ = 1'000'000'000'000;
  Frame last_sent_;
};

}  // namespace lb::fuzz
