#include "dp/worker/worker.h"

#include <rte_cycles.h>
#include <rte_pause.h>
#include <sys/prctl.h>
#include <time.h>

#include <algorithm>

namespace lb::worker {
namespace {

constexpr std::uint64_t kSweepMs = 8192;       // how long ageing takes to go over the whole table
constexpr std::uint32_t kMaxSweepCatchUp = 4;  // milliseconds' worth of ageing done at once after a pause
constexpr std::uint64_t kTwinPollsPerSecond = 50'000;

void store(std::uint64_t& shared, std::uint64_t value) {
  std::atomic_ref(shared).store(value, std::memory_order_relaxed);
}

std::uint64_t monotonic_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace

Worker::Worker(std::uint32_t index, const io::DpConfig& config, const io::Ports& ports, const StatsRegion& stats,
               const TraceRegion& trace, GenerationSwitch<ActiveGeneration>& generations)
    : index_(index),
      port_count_(static_cast<std::uint32_t>(ports.list().size())),
      empty_polls_before_rest_(config.idle.after_empty_polls),
      rest_us_(config.idle.sleep_us),
      generations_(generations),
      shared_(stats.worker(index)),
      listener_stats_(stats.listeners(index)),
      target_flows_(stats.target_flows(index)),
      target_troubles_(stats.target_troubles(index)),
      rx_tx_(ports, index, std::span(counted_.counters).first<abi::kCounterCount>(), config.punt.packets_per_second),
      tracer_(trace.orders(), trace.ring(index)),
      millisecond_tsc_(rte_get_tsc_hz() / 1000) {
  store(shared_.lcore, config.workers[index].cpu);
  for (std::uint32_t other = 0; other < config.workers.size(); ++other)
    all_target_flows_.push_back(stats.target_flows(other).data());
  for (std::uint32_t other = 0; other < config.workers.size(); ++other) rates_.push_back(stats.rates(other));
}

void Worker::attach_flows(const FlowRegion& region, std::span<FragmentNotes> notes, SnatBook& snat) {
  const std::span<abi::FlowLine> lines = region.lines(index_);
  for (std::uint32_t worker = 0; worker < region.workers(); ++worker) tables_.emplace_back(region.lines(worker));
  flows_.emplace(lines, target_flows_, region.secret(), &region.ways(index_));
  pipeline_.emplace(PipelineOptions{.flows = &*flows_,
                                    .stats = &counted_,
                                    .listener_stats = listener_stats_.data(),
                                    .target_flows = all_target_flows_,
                                    .target_troubles = target_troubles_,
                                    .extra = &rx_tx_,
                                    .tables = tables_,
                                    .worker = index_,
                                    .notes = notes,
                                    .rates = rates_,
                                    .snat = &snat,
                                    .punt_enabled = true});
  sweep_lines_ = static_cast<std::uint32_t>(lines.size() / kSweepMs + 1);
}

void Worker::run() {
  ::prctl(PR_SET_TIMERSLACK, 1000);  // ns: the default of 50 µs would double a short rest
  const ActiveGeneration* generation = nullptr;
  std::uint32_t empty_polls = 0;
  std::uint64_t heartbeat = 0;
  const std::uint64_t started = rte_rdtsc();
  while (!stop_.load(std::memory_order_relaxed)) {
    pick_up(generation);
    const std::uint64_t now = rte_rdtsc();
    std::uint32_t received = 0;
    for (std::uint32_t port = 0; port < port_count_; ++port) received += poll_port(port, generation, now);
    store(shared_.heartbeat, ++heartbeat);
    if (now >= next_housekeeping_) housekeeping(generation, now);
    if (index_ == 0 && now >= next_twin_poll_) {
      rx_tx_.poll_twins();
      next_twin_poll_ = now + millisecond_tsc_ * 1000 / kTwinPollsPerSecond;
    }
    const std::uint64_t end = rte_rdtsc();
    store(shared_.total_tsc, end - started);
    if (received != 0) {
      counted_.busy_tsc += end - now;
      store(shared_.busy_tsc, counted_.busy_tsc);
      empty_polls = 0;
    } else if (empty_polls_before_rest_ != 0 && ++empty_polls >= empty_polls_before_rest_) {
      rest();
    } else {
      rte_pause();
    }
  }
  publish_counters();
}

std::uint32_t Worker::poll_port(std::uint32_t port, const ActiveGeneration* generation, std::uint64_t now_tsc) {
  const std::uint32_t received = rx_tx_.receive(port, burst_);
  if (received == 0) return 0;
  if (generation != nullptr) [[likely]] {
    rx_tx_.use(generation->ports, burst_, port);
    const std::uint64_t now_ns = monotonic_ns();
    const bool traced = tracer_.is_on();
    if (traced) [[unlikely]]
      tracer_.before(burst_, now_ns);
    pipeline_->process(*generation->snapshot, burst_, now_ns);
    if (traced) [[unlikely]]
      tracer_.after(burst_, generation->snapshot->generation());
    rx_tx_.finish(burst_, port, now_tsc);
  } else {
    rx_tx_.refuse(burst_, port, now_tsc);
  }
  publish_counters();
  return received;
}

void Worker::pick_up(const ActiveGeneration*& generation) {
  const ActiveGeneration* const now = generations_.pick_up(index_);
  if (now == generation) return;
  generation = now;
  store(shared_.generation_epoch, now->snapshot->generation().epoch);
  store(shared_.generation_n, now->snapshot->generation().n);
}

void Worker::housekeeping(const ActiveGeneration* generation, std::uint64_t now_tsc) {
  const std::uint64_t late_ms = next_housekeeping_ == 0 ? 0 : (now_tsc - next_housekeeping_) / millisecond_tsc_;
  next_housekeeping_ = now_tsc + millisecond_tsc_;
  if (generation == nullptr) return;
  const auto rounds = static_cast<std::uint32_t>(std::min<std::uint64_t>(late_ms + 1, kMaxSweepCatchUp));
  pipeline_->age(*generation->snapshot, sweep_lines_ * rounds, monotonic_ns());
  pipeline_->tend(*generation->snapshot, monotonic_ns());
  store(shared_.flows, flows_->flows());
  store(shared_.in_flight, counted_.in_flight);
  store(shared_.snat_ports, counted_.snat_ports);
  store(shared_.snat_capacity, counted_.snat_capacity);
  store(shared_.flow_capacity, flows_->capacity());
  publish_counters();
}

void Worker::publish_counters() {
  for (std::size_t i = 0; i < abi::kCounterCount; ++i) store(shared_.counters[i], counted_.counters[i]);
}

// The timer and the scheduler are late, by 20 µs and more on virtual machines: so much less is asked for, so that a packet
// waits sleep_us and not sleep_us plus that.
void Worker::rest() {
  constexpr std::int64_t kLeastNs = 1000;
  const std::int64_t wanted = std::int64_t{rest_us_} * 1000;
  const std::int64_t asked = std::max(kLeastNs, wanted - rest_late_ns_);
  const std::uint64_t before = monotonic_ns();
  const timespec time{.tv_sec = 0, .tv_nsec = static_cast<long>(asked)};
  ::nanosleep(&time, nullptr);
  const auto late = static_cast<std::int64_t>(monotonic_ns() - before) - asked;
  // One long interruption must not make the next hundred rests short.
  rest_late_ns_ += (std::clamp<std::int64_t>(late, 0, wanted) - rest_late_ns_) / 16;
}

}  // namespace lb::worker
