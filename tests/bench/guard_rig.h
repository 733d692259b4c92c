// A listener behind guards (docs/guard.md), as lb-cp compiles them and lb-dp opens them: what they cost a packet.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "tests/bench/rig.h"

namespace lb::bench {

enum class Guard : std::uint8_t {
  off,
  security,       // 100,000 prefixes, all of which allow
  few_sources,    // every limit, none reached; sources are /20s: a few hundred, as behind carriers' translators
  every_source,   // … sources are addresses, far more than there are meters: every packet begins one anew
  listener_only,  // … limits of the listener as a whole alone
};
inline constexpr std::array<const char*, 5> kGuardNames = {"off", "security-100k", "rates-few-sources", "rates-every-source",
                                                           "rates-listener"};

// Forwards in ipip. `flows` tracked ones from the start, room for as many again.
class GuardRig {
 public:
  GuardRig(const Kernel& kernel, Guard guard, std::uint64_t flows);
  GuardRig(const GuardRig&) = delete;
  GuardRig& operator=(const GuardRig&) = delete;

  void process(Burst& burst) { pipeline_->process(*snapshot_, burst, now_ns_); }
  // A burst of new flows: time goes on so that as many as come have outlived their SYN, and ageing takes those out.
  void process_new(Burst& burst);
  void prepare_hits(PacketPool& pool, std::mt19937_64& random) const;
  void prepare_new(PacketPool& pool);

 private:
  std::uint64_t flows_;
  std::uint64_t next_flow_;
  std::uint64_t now_ns_ = 1'000'000'000'000;
  HugeMemory memory_;
  std::span<abi::FlowLine> lines_;
  std::vector<std::uint32_t> target_flows_;
  std::unique_ptr<FlowTable> table_;
  abi::WorkerStats stats_;
  std::vector<abi::ListenerStats> listener_stats_;
  std::shared_ptr<const Snapshot> snapshot_;
  std::unique_ptr<Pipeline> pipeline_;
};

}  // namespace lb::bench
