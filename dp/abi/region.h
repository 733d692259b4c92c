// The flow region: every worker's flow table in memory that outlives lb-dp (a file on hugetlbfs or tmpfs, mode 0600).
//
//   FlowRegionHeader | u64 directory[target_capacity] | FlowLine[worker_count][lines_per_worker]
//                    | Translation[worker_count][translations_per_worker] | NatWays[worker_count]
//
// Writer of a line: its worker alone, between two increments of `sequence` (odd while it is being written). Readers: other
// workers and lb-cp, by atomics, believing that a flow is absent only if its lines' numbers stood still. Writer of header
// and directory: lb-dp's main thread. How entries are placed and aged stands in dp/lb/flow_table.h.
#pragma once

#include <array>
#include <cstdint>

#include "dp/abi/types.h"

namespace lb::abi {

inline constexpr std::uint64_t kFlowRegionMagic = 0x3130776f6c66626c;  // "lbflow01"
inline constexpr std::uint32_t kRegionVersion = 2;
inline constexpr std::uint32_t kFlowsPerLine = 5;

// Five flows in one cache line, 12 bytes each and 4 for the line.
//   key[i]   high 48 bits: keyed fingerprint, 0 = empty; low 16 bits: last seen, in ticks of 250 ms (wraps at 4.5 h)
//   meta[i]  low 20 bits: target id; 4 bits FlowState; 1 bit: this is the flow's second line; 7 bits: nat, the way back to
//            the client (dp/lb/ways_back.h), else 0
struct alignas(kCacheLineBytes) FlowLine {
  std::array<std::uint64_t, kFlowsPerLine> key{};
  std::array<std::uint32_t, kFlowsPerLine> meta{};
  std::uint16_t sequence = 0;
  std::uint16_t overflow = 0;  // how many flows whose first line this is stand in their second line
};
static_assert(sizeof(FlowLine) == 64);

enum class TranslationState : std::uint8_t {
  free = 0,
  opening = 1,      // the client has spoken, the target not yet: may be evicted
  answered = 2,     // TCP: so has the target
  established = 3,  // TCP: the client's packet after that; UDP: both have spoken
  closed = 4,       // FIN both ways, a reset, or idle for too long: its port waits before it is given again
};
inline constexpr std::uint8_t kTranslationStateCount = 5;

enum TranslationFlags : std::uint8_t {
  kClientFin = 1 << 0,
  kTargetFin = 1 << 1,
  kTargetClosedFirst = 1 << 2,  // so that the target waits in TIME_WAIT
  kHeaderArrived = 1 << 3,      // the target has acknowledged the PROXY header
};

// A flow of mode fullnat: the tuple its client uses and the one its target sees. Two cache lines; writer: the worker that
// owns the SNAT port. Readers: other workers (replies, and packets of a client that changes queues) and lb-cp (`why`), who
// copy it between two looks at `sequence`. What stands here outlives lb-dp; indices over it do not (dp/lb/translations.h).
struct alignas(kCacheLineBytes) Translation {
  std::uint32_t sequence = 0;  // odd while addresses or ports are being written
  std::uint32_t tick = 0;      // last seen, 250 ms
  TranslationState state = TranslationState::free;
  std::uint8_t flags = 0;            // TranslationFlags
  std::uint8_t protocol = 0;         // abi::Protocol: tcp or udp
  std::uint8_t header_bytes = 0;     // PROXY header that the target gets before the client's bytes; 0: none
  std::uint32_t first_sequence = 0;  // TCP: the client's, of its SYN
  IpAddress client;
  IpAddress vip;
  IpAddress snat;
  IpAddress target;
  std::uint16_t client_port = 0;  // host order, all four
  std::uint16_t vip_port = 0;
  std::uint16_t snat_port = 0;
  std::uint16_t target_port = 0;
  std::uint32_t target_id = 0;
  ClientAddress client_address = ClientAddress::hidden;  // as its group says, if its SYN was seen
  std::uint8_t reserved[3] = {};
  std::array<std::uint64_t, 2> hash{};  // of (client, VIP, ports, protocol) under the node secret: low, high
  std::array<std::uint64_t, 2> way{};   // back to the client: a WayBack (dp/lb/ways_back.h)
};
static_assert(sizeof(Translation) == 128);
// The ways back to clients that entries of nat flows name by number (dp/lb/ways_back.h). Beside the entries, for a reply may
// be all that a flow shows after a restart: a client that only receives sends nothing until it has received.
struct NatWay {
  std::uint64_t low = 0;
  std::uint64_t high = 0;  // 0: free; stored last
  bool operator==(const NatWay&) const = default;
};
inline constexpr std::uint32_t kNatWays = 64 * 128;  // sets × ways
struct alignas(kCacheLineBytes) NatWays {
  std::array<NatWay, kNatWays> ways{};
  std::array<std::uint32_t, kNatWays> last_used_s{};  // CLOCK_MONOTONIC; the owner's alone
};
static_assert(sizeof(NatWays) == 160 * 1024);

struct alignas(kCacheLineBytes) FlowRegionHeader {
  std::uint64_t magic = 0;
  std::uint32_t version = 0;
  std::uint32_t worker_count = 0;
  std::uint64_t layout_fingerprint = 0;  // region_fingerprint()
  std::uint64_t size_bytes = 0;
  std::array<std::uint8_t, 16> node_secret{};  // key of the flow hash; made once, never leaves the node
  std::uint64_t lines_per_worker = 0;
  std::uint64_t directory_offset = 0;  // u64 identity by target id that entries were written under; 0 = none
  std::uint64_t target_capacity = 0;
  std::uint64_t lines_offset = 0;
  std::uint64_t written_at_unix_ns = 0;  // CLOCK_REALTIME, kept fresh: ticks wrap, so an old region is not believed
  std::uint64_t translations_offset = 0;
  std::uint64_t translations_per_worker = 0;
  std::uint64_t ways_offset = 0;
  std::uint64_t reserved[3] = {};
};
static_assert(sizeof(FlowRegionHeader) == 192);

}  // namespace lb::abi
