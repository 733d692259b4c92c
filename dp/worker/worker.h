// One worker: polls queue w of every port, for ever. Nothing it calls allocates, locks or logs.
//
//   ┌▶ pick up the generation ─▶ each port: receive ─▶ process ─▶ finish ─▶ publish counters ─┐
//   │                                                                                          │
//   └── sleep (only after many empty polls, never above idle.sleep_us) ◀── every ms: ageing ◀──┘
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "dp/abi/counters.h"
#include "dp/io/config.h"
#include "dp/io/ports.h"
#include "dp/io/rx_tx.h"
#include "dp/lb/pipeline.h"
#include "dp/lb/rate_book.h"
#include "dp/lb/tracer.h"
#include "dp/worker/flow_region.h"
#include "dp/worker/generation_switch.h"
#include "dp/worker/stats_region.h"
#include "dp/worker/trace_region.h"

namespace lb::worker {

// What workers forward by. Immutable once begun; owner: GenerationSwitch.
struct ActiveGeneration {
  std::shared_ptr<const Snapshot> snapshot;
  io::PortMap ports;
};

class Worker {
 public:
  Worker(std::uint32_t index, const io::DpConfig& config, const io::Ports& ports, const StatsRegion& stats,
         const TraceRegion& trace, GenerationSwitch<ActiveGeneration>& generations);
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Main thread, once, before the first generation begins: the flow table on this worker's lines of the region.
  // `notes`, `snat`: of all workers, for as long as this lives.
  void attach_flows(const FlowRegion& region, std::span<FragmentNotes> notes, SnatBook& snat);

  // Main thread, after attach_flows() of all workers: the tables of all of them.
  void meet(std::span<FlowTable* const> tables) { pipeline_->set_peers(tables); }
  [[nodiscard]] FlowTable* flows() { return &*flows_; }

  // The worker's thread: returns soon after stop().
  void run();
  void stop() { stop_.store(true, std::memory_order_relaxed); }

 private:
  std::uint32_t poll_port(std::uint32_t port, const ActiveGeneration* generation, std::uint64_t now_tsc);
  void pick_up(const ActiveGeneration*& generation);
  void housekeeping(const ActiveGeneration* generation, std::uint64_t now_tsc);
  void publish_counters();
  void rest();

  const std::uint32_t index_;
  const std::uint32_t port_count_;
  const std::uint32_t empty_polls_before_rest_;
  const std::uint32_t rest_us_;
  std::int64_t rest_late_ns_ = 0;  // how late this machine wakes a sleeper, learnt
  GenerationSwitch<ActiveGeneration>& generations_;
  abi::WorkerStats& shared_;  // what others see
  std::span<abi::ListenerStats> listener_stats_;
  std::span<std::uint32_t> target_flows_;
  std::span<std::uint32_t> target_troubles_;
  std::vector<const std::uint32_t*> all_target_flows_;  // of every worker
  abi::WorkerStats counted_{};                          // what this worker counts on; copied to shared_ after each burst
  io::RxTx rx_tx_;
  std::vector<std::span<const abi::FlowLine>> tables_;  // of all workers
  std::vector<RateTable> rates_;                        // of all workers
  std::optional<FlowTable> flows_;
  std::optional<Pipeline> pipeline_;
  Tracer tracer_;
  Burst burst_{};
  std::uint32_t sweep_lines_ = 0;  // per millisecond
  std::uint64_t millisecond_tsc_ = 0;
  std::uint64_t next_housekeeping_ = 0;
  std::uint64_t next_twin_poll_ = 0;
  std::atomic<bool> stop_{false};
};

}  // namespace lb::worker
