#include "replay/worker.h"

#include <algorithm>

#include "replay/world.h"

namespace lb::replay {
namespace {

constexpr std::uint16_t kHeadroomBytes = 128;  // for the outer header, as lb-dp's buffers have at least
constexpr std::uint16_t kTailroomBytes = 256;  // for answers longer than what they answer
constexpr std::uint64_t kSweepNs = 1'000'000'000;
constexpr std::uint64_t kLongestStepNs = 3'600'000'000'000;  // idle times wrap at 4.5 h: look at every entry well before

std::uint64_t& at(abi::WorkerStats& stats, abi::Counter counter) {
  return stats.counters[static_cast<std::size_t>(counter)];
}

}  // namespace

Worker::Worker(const WorkerOptions& options, Output& output, std::span<std::span<const abi::FlowLine>> tables,
               std::span<FragmentNotes> notes)
    : output_(output),
      lines_(FlowTable::lines_for(options.flows)),
      target_flows_(options.target_capacity),
      listener_stats_(options.listener_capacity),
      flows_(lines_, target_flows_, options.secret),
      pipeline_({.flows = &flows_,
                 .stats = &stats_,
                 .listener_stats = listener_stats_.data(),
                 .target_flows = options.target_flows,
                 .extra = this,
                 .tables = tables,
                 .worker = options.index,
                 .notes = notes,
                 .held_observer = this,
                 .snat = options.snat}),
      index_(options.index) {
  tables[options.index] = lines_;
  options.target_flows[options.index] = target_flows_.data();
}

Outcome Worker::process(const Snapshot& snapshot, std::span<const std::uint8_t> frame, std::uint64_t now_ns) {
  buffer_.assign(kHeadroomBytes + frame.size() + kTailroomBytes, 0);
  std::copy(frame.begin(), frame.end(), buffer_.begin() + kHeadroomBytes);
  // Any destination MAC is lb's. A group address would keep lb from answering, so lb's own stands in for it.
  if ((buffer_[kHeadroomBytes] & 1) != 0) std::copy(kOwnMac.begin(), kOwnMac.end(), buffer_.begin() + kHeadroomBytes);
  burst_.count = 1;
  burst_.data[0] = buffer_.data() + kHeadroomBytes;
  burst_.length[0] = static_cast<std::uint32_t>(frame.size());
  burst_.headroom[0] = kHeadroomBytes;
  burst_.tailroom[0] = kTailroomBytes;
  burst_.in_port[0] = 0;
  for (std::uint8_t port = 0; port < snapshot.ports().size(); ++port) {
    if (snapshot.ports()[port].gateway == abi::kNoIndex) continue;
    burst_.in_port[0] = port;
    break;
  }
  pipeline_.process(snapshot, burst_, now_ns);

  Outcome outcome{.verdict = burst_.verdict[0],
                  .reason = burst_.reason[0],
                  .flow = burst_.flow[0],
                  .listener = burst_.listener[0],
                  .group = burst_.group[0],
                  .target = burst_.target[0]};
  if (outcome.verdict == Verdict::tx || outcome.verdict == Verdict::answer) {
    outcome.out_length = burst_.length[0];
    output_.emit({burst_.data[0], burst_.length[0]});
    count_sent(burst_.length[0]);
  }
  return outcome;
}

void Worker::age(const Snapshot& snapshot, std::uint64_t now_ns) {
  pipeline_.tend(snapshot, now_ns);
  const auto lines = static_cast<std::uint32_t>(lines_.size());
  while (now_ns - swept_ns_ > kLongestStepNs && (flows_.flows() > 0 || stats_.snat_ports > 0)) {
    swept_ns_ += kLongestStepNs;
    pipeline_.age(snapshot, lines, swept_ns_);
  }
  if (now_ns - swept_ns_ < kSweepNs) return pipeline_.age(snapshot, 0, now_ns);  // what other workers tell, at once
  swept_ns_ = now_ns;
  if (flows_.flows() > 0 || stats_.snat_ports > 0) pipeline_.age(snapshot, lines, now_ns);
}

bool Worker::send(std::uint8_t /*out_port*/, const std::uint8_t* frame, std::uint32_t length) {
  output_.emit({frame, length});
  sent_length_ = length;
  count_sent(length);
  return true;
}

void Worker::held_ended(std::uint64_t number, abi::DropReason reason, std::uint32_t listener, std::uint32_t target) {
  HeldEnd end{.worker = index_, .number = number, .reason = reason, .listener = listener, .target = target};
  if (reason == abi::DropReason::none) {
    end.frame = output_.take_last();
    end.out_length = sent_length_;
  }
  held_ends_.push_back(end);
}

void Worker::count_sent(std::uint32_t length) {
  ++at(stats_, abi::Counter::tx_packets);
  at(stats_, abi::Counter::tx_bytes) += length;
}

}  // namespace lb::replay
