#include "cp/stats/stats_reader.h"

#include <algorithm>

namespace lb::cp {
namespace {

template <typename T>
T load(const T& word) {
  return __atomic_load_n(&word, __ATOMIC_RELAXED);
}

void add(ListenerCounters& sum, const abi::ListenerStats& stats) {
  sum.packets += load(stats.packets);
  sum.bytes += load(stats.bytes);
  sum.new_flows += load(stats.new_flows);
  sum.dropped_packets += load(stats.dropped_packets);
}

void add(ListenerCounters& sum, const ListenerCounters& more) {
  sum.packets += more.packets;
  sum.bytes += more.bytes;
  sum.new_flows += more.new_flows;
  sum.dropped_packets += more.dropped_packets;
}

ListenerCounters at_or_zero(const std::vector<ListenerCounters>& all, std::uint32_t index) {
  return index < all.size() ? all[index] : ListenerCounters{};
}

}  // namespace

void StatsReader::attach(StatsView view, std::uint64_t instance) {
  if (instance != instance_) {
    if (view_.workers.empty()) listener_start_.clear();  // those restored were another's
    base_.resize(std::max(base_.size(), view_.workers.size()));
    for (std::size_t worker = 0; worker < view_.workers.size(); ++worker) {
      for (std::size_t i = 0; i < abi::kCounterCount; ++i)
        base_[worker][i] += load(view_.workers[worker].stats->counters[i]);
      const auto listeners = view_.workers[worker].listeners;
      listener_base_.resize(std::max(listener_base_.size(), listeners.size()));
      for (std::size_t i = 0; i < listeners.size(); ++i) add(listener_base_[i], listeners[i]);
    }
  }
  view_ = std::move(view);
  instance_ = instance;
  attached_ = true;
}

CounterTotals StatsReader::totals() const {
  CounterTotals sum{};
  for (const CounterTotals& base : base_) {
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += base[i];
  }
  for (const WorkerView& worker : view_.workers) {
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += load(worker.stats->counters[i]);
  }
  return sum;
}

std::vector<LiveWorker> StatsReader::workers() const {
  std::vector<LiveWorker> rows;
  for (std::size_t i = 0; i < view_.workers.size(); ++i) {
    const abi::WorkerStats& stats = *view_.workers[i].stats;
    LiveWorker& row = rows.emplace_back();
    row.worker = static_cast<std::uint32_t>(i);
    row.lcore = static_cast<std::uint32_t>(load(stats.lcore));
    row.generation = {load(stats.generation_epoch), load(stats.generation_n)};
    row.flows = load(stats.flows);
    row.flow_capacity = load(stats.flow_capacity);
    row.in_flight = load(stats.in_flight);
    row.snat_ports = load(stats.snat_ports);
    row.snat_capacity = load(stats.snat_capacity);
    const std::uint64_t total_tsc = load(stats.total_tsc);
    if (total_tsc != 0) row.busy = static_cast<double>(load(stats.busy_tsc)) / static_cast<double>(total_tsc);
    row.counters.resize(abi::kCounterCount);
    for (std::size_t counter = 0; counter < abi::kCounterCount; ++counter) {
      row.counters[counter] = load(stats.counters[counter]) + (i < base_.size() ? base_[i][counter] : 0);
    }
  }
  return rows;
}

ListenerCounters StatsReader::raw_listener(std::uint32_t counter_index) const {
  ListenerCounters sum;
  for (std::uint32_t index = counter_index; index < counter_index + 2; ++index) {
    add(sum, at_or_zero(listener_base_, index));
    for (const WorkerView& worker : view_.workers) {
      if (index < worker.listeners.size()) add(sum, worker.listeners[index]);
    }
  }
  return sum;
}

ListenerCounters StatsReader::listener(std::uint32_t counter_index) const {
  ListenerCounters counters = raw_listener(counter_index);
  const ListenerCounters start = at_or_zero(listener_start_, counter_index);
  counters.packets -= start.packets;
  counters.bytes -= start.bytes;
  counters.new_flows -= start.new_flows;
  counters.dropped_packets -= start.dropped_packets;
  return counters;
}

void StatsReader::restore_listener_starts(std::uint64_t instance, std::vector<ListenerCounters> starts) {
  instance_ = instance;
  listener_start_ = std::move(starts);
}

void StatsReader::start_listener(std::uint32_t counter_index) {
  listener_start_.resize(std::max<std::size_t>(listener_start_.size(), counter_index + 1));
  listener_start_[counter_index] = raw_listener(counter_index);
}

std::vector<ListenerCounters> StatsReader::listener_starts() const {
  const auto above = [](std::uint64_t start, std::uint64_t base) { return start - std::min(start, base); };
  std::vector<ListenerCounters> starts = listener_start_;
  for (std::uint32_t index = 0; index < starts.size(); ++index) {
    ListenerCounters base = at_or_zero(listener_base_, index);
    add(base, at_or_zero(listener_base_, index + 1));
    ListenerCounters& start = starts[index];
    start = {above(start.packets, base.packets), above(start.bytes, base.bytes), above(start.new_flows, base.new_flows),
             above(start.dropped_packets, base.dropped_packets)};
  }
  return starts;
}

std::optional<std::uint64_t> StatsReader::target_flows(std::uint32_t target_id) const {
  if (!attached_) return std::nullopt;
  std::uint64_t sum = 0;
  for (const WorkerView& worker : view_.workers) {
    if (target_id >= worker.target_flows.size()) return std::nullopt;
    sum += load(worker.target_flows[target_id]);
  }
  return sum;
}

std::uint32_t StatsReader::target_troubles(std::uint32_t target_id) const {
  std::uint32_t sum = 0;
  for (const WorkerView& worker : view_.workers) {
    if (attached_ && target_id < worker.target_troubles.size()) sum += load(worker.target_troubles[target_id]);
  }
  return sum;
}

}  // namespace lb::cp
