// What a burst leaves behind between the stages of the pipeline, in arrays that stay in the first-level cache. Owner: one
// Pipeline, and so one worker.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "dp/abi/counters.h"
#include "dp/base/compiler.h"
#include "dp/lb/algorithm.h"
#include "dp/lb/decide.h"
#include "dp/lb/flow_ops.h"
#include "dp/lb/pipeline.h"
#include "dp/lb/plain_ops.h"
#include "dp/lb/vip_table.h"
#include "dp/net/parse.h"

namespace lb {

class RateBook;
class RateFlows;

// At most `per_second` a second on average, and a tenth of that at once. Time is the burst's.
class RateLimit {
 public:
  explicit RateLimit(std::uint32_t per_second) : cost_ns_(per_second == 0 ? 0 : 1'000'000'000 / per_second) {}

  bool take(std::uint64_t now_ns) {
    if (cost_ns_ == 0) return false;
    const std::uint64_t most = kBurstNs > cost_ns_ ? kBurstNs : cost_ns_;
    saved_ns_ = first_ || now_ns - last_ns_ > most - saved_ns_ ? most : saved_ns_ + (now_ns - last_ns_);
    first_ = false;
    last_ns_ = now_ns;
    if (saved_ns_ < cost_ns_) return false;
    saved_ns_ -= cost_ns_;
    return true;
  }

 private:
  static constexpr std::uint64_t kBurstNs = 100'000'000;
  std::uint64_t cost_ns_;
  std::uint64_t saved_ns_ = 0;
  std::uint64_t last_ns_ = 0;
  bool first_ = true;
};

// Packets of the burst, by index, in their order.
struct Lane {
  std::uint32_t count = 0;
  std::array<std::uint8_t, kBurst> at;
};

LB_INLINE void push(Lane& lane, std::uint32_t packet) {
  lane.at[lane.count++] = static_cast<std::uint8_t>(packet);
}

// Of a packet: parsed: `parsed` is filled; plain: the frame is plain (plain_ops.h), `parsed` is not filled; both.
enum class Form : std::uint8_t { parsed, plain, both };

// Neighbours in a burst that go to one address, protocol and port: the listener is looked up once for all of them.
struct Run {
  std::uint32_t vip_hash = 0;
  std::uint32_t listener = kNoListener;  // or kNotVip
  std::uint32_t group = abi::kNoIndex;   // the listener's first
  std::uint32_t counter_index = 0;
  std::uint32_t packets = 0;  // for the listener's counters
  std::uint32_t new_flows = 0;
  std::uint64_t bytes = 0;
};
inline constexpr std::uint8_t kNoRun = 0xff;  // a packet that needs no listener: it has come to its end

struct alignas(abi::kCacheLineBytes) Work {
  explicit Work(const PipelineOptions& from)
      : options(from),
        resets(from.resets_per_second),
        errors(from.resets_per_second),
        echoes(from.echoes_per_second),
        notes(from.notes.empty() ? std::make_unique<FragmentNotes>() : nullptr) {}

  PipelineOptions options;
  std::unique_ptr<Turn[]> turns = std::make_unique<Turn[]>(abi::kMaxGroups);     // by group, of those by round_robin
  Hash128 (*hash_one)(const HashKeys& keys, const net::FlowKey& key) = nullptr;  // flow_hash(), for code compiled once
  RateLimit resets;
  RateLimit errors;
  RateLimit echoes;
  Hash128 (*hash_of)(const HashKeys& keys, const net::FlowKey& key) = nullptr;  // of the build that runs
  RateBook* rates = nullptr;                                                    // both the Pipeline's
  RateFlows* rate_flows = nullptr;

  // This burst.
  const Snapshot* snapshot = nullptr;
  Burst* burst = nullptr;
  std::uint64_t now_ns = 0;
  std::uint64_t tick = 0;
  std::unique_ptr<FragmentNotes> notes;  // where options have none
  std::unique_ptr<HeldPackets> held = std::make_unique<HeldPackets>();
  // Entries idle for at least so long have not been asked by the present security groups (guard_security.h); 2^16: all have.
  std::uint32_t unasked_ticks = 1U << 16;
  // The common hit is idle for less: neither unasked nor near an idle timeout.
  std::uint32_t plain_ticks = kMinIdleLimitTicks;
  std::uint64_t security_epoch = 0;
  std::uint64_t security_since_tick = 0;  // when it began
  std::uint32_t peer_looks = 0;           // looks into other workers' tables that this burst may still take
  std::uint64_t alone = 0;                // datagrams picked by themselves (algorithm per_packet)
  std::uint32_t outer_fragment_id = 0;    // of the packet fragmented last; stays from burst to burst
  bool security_changed = false;          // entries older than that may be left
  bool inserted = false;  // an entry has come, moved or gone since the flow stage: look again before inserting
  std::array<std::uint64_t, (abi::kCounterCount + 7) / 8 * 8>
      counts{};  // by abi::Counter; flushed to the worker's block at the end of the burst

  Lane uncommon;              // a complete TCP or UDP packet that is not plain, or a first fragment: it is hashed by itself
  Lane elsewhere;             // not in its first line
  Lane missed;                // without an entry when the flow stage looked
  Lane sent;                  // that goes to a target, and is to be rewritten
  Lane first_fragments;       // of `uncommon`
  Lane rare;                  // for a VIP, and no packet of a flow by itself: ICMP, fragments that are not the first
  std::uint64_t ready = 0;    // bit i: of `missed`, and picked the plain way: plain_new() may serve it
  std::uint64_t rest = 0;     // bit i: for a listener, and no common hit
  std::uint64_t general = 0;  // bit i: the frame is not plain
  std::uint32_t run_count = 0;
  std::uint64_t bytes = 0;      // of all frames
  std::uint64_t hits = 0;       // bit i: a common hit; set where stages run one by one
  std::uint32_t forwarded = 0;  // packets rewritten for their target

  alignas(abi::kCacheLineBytes) std::array<PlainTuple, kBurst> tuple;  // of plain frames
  alignas(abi::kCacheLineBytes) std::array<Hash128, kBurst> hash;      // of those with a run
  std::array<Form, kBurst> form;
  std::array<std::uint8_t, kBurst> run;  // into runs; kNoRun: the packet has come to its end
  std::array<std::uint8_t, kBurst> tcp_flags;
  std::array<std::uint64_t, kBurst> first;        // line of the flow table
  std::array<FlowSlot, kBurst> slot;              // the flow's entry when the flow stage looked
  std::array<const abi::Target*, kBurst> target;  // of `sent`
  std::array<Run, kBurst> runs;
  alignas(16) std::array<std::uint32_t, kBurst> meta;    // of the entry, as the flow stage read it
  alignas(16) std::array<std::uint16_t, kBurst> seen;    // … its tick
  alignas(16) std::array<std::uint8_t, kBurst> matched;  // entries of the first line that are the flow's, as bits
  std::array<std::uint64_t, kBurst> second;  // of `missed`: its other line, or the first if that need not be looked at
  std::array<Pick, kBurst> picked;           // of `missed`
  std::array<Place, kBurst> place;           // of `ready`: where the flow may be entered
  std::array<net::ParsedPacket, kBurst> parsed;
};

LB_INLINE std::uint64_t& count(Work& work, abi::Counter counter) {
  return work.counts[static_cast<std::size_t>(counter)];
}

// The packet as parsed; of a plain frame, which must not have been rewritten, on demand.
LB_INLINE const net::ParsedPacket& packet_of(Work& work, std::uint32_t i) {
  if (work.form[i] == Form::plain) {
    parse_plain_frame(work.burst->data[i], work.parsed[i]);
    work.form[i] = Form::both;
  }
  return work.parsed[i];
}

LB_INLINE void drop(Work& work, std::uint32_t i, abi::DropReason reason) {
  work.burst->verdict[i] = Verdict::drop;
  work.burst->reason[i] = reason;
  ++count(work, abi::drop_counter(reason));
}

// To the kernel, or nowhere: `otherwise` is the reason then.
LB_INLINE void punt(Work& work, std::uint32_t i, abi::DropReason otherwise) {
  if (!work.options.punt_enabled) return drop(work, i, otherwise);
  work.burst->verdict[i] = Verdict::punt;
  ++count(work, abi::Counter::punted_packets);
}

}  // namespace lb
