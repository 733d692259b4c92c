#include "cp/explain/counters.h"

#include "dp/abi/counters.h"

namespace lb::cp::explain {

namespace {

// A worker that has not been read yet has no counters.
std::uint64_t at(const LiveWorker& worker, std::size_t counter) {
  return counter < worker.counters.size() ? worker.counters[counter] : 0;
}

std::uint64_t at(const LiveWorker& worker, abi::Counter counter) {
  return at(worker, static_cast<std::size_t>(counter));
}

}  // namespace

PacketTotals totals(const LiveWorker& worker) {
  PacketTotals sum{.rx_packets = at(worker, abi::Counter::rx_packets),
                   .tx_packets = at(worker, abi::Counter::tx_packets),
                   .forwarded_packets = at(worker, abi::Counter::forwarded_packets),
                   .punted_packets = at(worker, abi::Counter::punted_packets),
                   .dropped_packets = 0};
  for (std::size_t i = abi::kFirstDropCounter; i < abi::kCounterCount; ++i) sum.dropped_packets += at(worker, i);
  return sum;
}

std::vector<DropTotal> drops(std::span<const LiveWorker> workers) {
  std::vector<DropTotal> lines;
  for (std::size_t i = abi::kFirstDropCounter; i < abi::kCounterCount; ++i) {
    DropTotal line{.reason = abi::kCounters[i].name, .help = abi::kCounters[i].help, .packets = 0};
    for (const LiveWorker& worker : workers) line.packets += at(worker, i);
    lines.push_back(line);
  }
  return lines;
}

}  // namespace lb::cp::explain
