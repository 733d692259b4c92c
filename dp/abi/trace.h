// What workers write down of single packets when somebody asks: `lbctl trace` and `lbctl capture`.
//
//   lb-cp ── Trace message (as in dp/abi/control.h, no answer) ─▶ lb-dp's main thread ─▶ workers: which packets, how many a
//   second, how many bytes lb-cp ◀── trace region: TraceRegionHeader | TraceRing[worker_count] ── workers: records, the
//   oldest overwritten
//
// The region's fd is the third of Hello. Writer of a ring: its worker alone. Reader: lb-cp, which maps the region read-only:
// it copies a record and believes the copy if the record's sequence stood still. An order ends by itself at until_ns: a
// tracer that dies leaves nothing armed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "dp/abi/control.h"
#include "dp/abi/types.h"

namespace lb::abi {

inline constexpr std::uint64_t kTraceMagic = 0x3130636172746c62;  // "bltrac01"
inline constexpr std::uint32_t kTraceVersion = 1;
inline constexpr std::uint32_t kTraceRecords = 512;     // of a ring
inline constexpr std::uint32_t kTraceSnapBytes = 1984;  // of each side of a packet
inline constexpr std::uint32_t kTracePacketsPerSecond = 10'000;

// Which packets: all that is not "any" must hold. Every bit pattern is safe: values out of range match nothing.
struct TraceOrder {
  std::uint64_t session = 0;             // records carry it
  std::uint64_t until_ns = 0;            // CLOCK_MONOTONIC
  IpAddress client{};                    // source or destination
  IpAddress vip{};                       // source or destination
  std::uint32_t client_length = 0;       // of the prefix in the 16-byte form; 0: any
  std::uint32_t vip_length = 0;          // the same
  std::uint32_t packets_per_second = 0;  // of each worker; 0: nothing is traced
  std::uint32_t snap_bytes = 0;
  std::uint16_t port = 0;     // source or destination; 0: any
  std::uint16_t reason = 0;   // DropReason; 0: any
  std::uint8_t protocol = 0;  // 0: any
  std::uint8_t verdict = 0;   // 0: any; 1 tx, 2 punt, 3 drop
  std::uint16_t reserved = 0;
};
static_assert(sizeof(TraceOrder) == 72);

struct alignas(kCacheLineBytes) TraceRecord {
  std::uint64_t sequence = 0;  // of record n: 2n + 1 while it is written, 2n + 2 when it is whole
  std::uint64_t session = 0;
  std::uint64_t at_ns = 0;  // CLOCK_MONOTONIC, of its burst
  Generation generation;
  std::uint32_t in_length = 0;   // of the frame as it came
  std::uint32_t out_length = 0;  // of the frame sent, 0: none
  std::uint32_t listener = 0;    // as in dp/lb's Burst, with ~0 where a stage was not reached
  std::uint32_t group = 0;
  std::uint32_t target = 0;
  std::uint32_t slot = 0;
  std::uint16_t in_bytes = 0;  // of `bytes`
  std::uint16_t out_bytes = 0;
  std::uint16_t reason = 0;   // DropReason
  std::uint8_t verdict = 0;   // as in TraceOrder; 4: held
  std::uint8_t flow = 0;      // 0 none, 1 hit, 2 new
  std::uint8_t in_port = 0;   // index into the snapshot's ports
  std::uint8_t out_port = 0;  // the same
  std::uint8_t reserved[46] = {};
  std::array<std::uint8_t, 2 * std::size_t{kTraceSnapBytes}> bytes{};  // the frame as it came, then the frame sent
};
static_assert(sizeof(TraceRecord) == 4096);

struct alignas(kCacheLineBytes) TraceRing {
  std::uint64_t written = 0;  // records
  std::uint64_t limited = 0;  // packets that matched and came above packets_per_second
  std::uint64_t reserved[6] = {};
  std::array<TraceRecord, kTraceRecords> records;
};

struct alignas(kCacheLineBytes) TraceRegionHeader {
  std::uint64_t magic = kTraceMagic;
  std::uint32_t version = kTraceVersion;
  std::uint32_t worker_count = 0;
  std::uint64_t record_bytes = sizeof(TraceRecord);
  std::uint64_t ring_bytes = sizeof(TraceRing);
  std::uint64_t reserved[4] = {};
};
static_assert(sizeof(TraceRegionHeader) == 64);

// Beside those of control.h: their kinds belong to the snapshot's life.
inline constexpr auto kTraceMessage = static_cast<MessageKind>(7);
struct Trace {
  MessageHeader header{.kind = kTraceMessage, .size_bytes = 0};
  TraceOrder order;
};

}  // namespace lb::abi
