// What lb-cp and lb-dp say to each other: fixed structs over a SOCK_SEQPACKET Unix socket on which lb-dp listens (0600).
// One lb-cp at a time: a second connection is told `busy` and closed. All numbers host order; fds by SCM_RIGHTS.
//
//   lb-cp                                  lb-dp
//     │  ◀─────────────── Hello + fds ────── │   stats region, flow region (both read-only), ports, its generation
//     │  ── Segments (≤ 200 fds) ─────────▶  │   any number of these: the segments lb-dp does not hold yet
//     │  ── Publish + root fd ────────────▶  │   verified by the main thread
//     │  ◀──────── Verdict accepted/refused  │   refused: by name and words; the last good generation stays
//     │  ◀──────── Active ───────────────────│   every worker has moved; older generations are released
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "dp/abi/types.h"

namespace lb::abi {

inline constexpr std::uint32_t kControlMagic = 0x6c62636d;
inline constexpr std::uint32_t kControlVersion = 1;
inline constexpr std::uint32_t kMaxFdsPerMessage = 200;

enum class MessageKind : std::uint32_t { hello = 1, segments = 2, publish = 3, verdict = 4, active = 5, busy = 6 };

// Why a snapshot was refused. X(name, help).
#define LB_REFUSALS(X)                                                                    \
  X(not_sealed, "the memfd lacks one of the seals WRITE, SHRINK, GROW, SEAL")             \
  X(size, "the memfd's size and the size in the header differ, or are out of range")      \
  X(magic, "not a snapshot")                                                              \
  X(version, "written for another version of the snapshot format")                        \
  X(fingerprint, "written by a build with another memory layout")                         \
  X(checksum, "the bytes do not match their checksum")                                    \
  X(bounds, "a table, reference or value is out of bounds")                               \
  X(missing_segment, "the root names a segment that was not sent")                        \
  X(stale, "generation is not above the one in force")                                    \
  X(unknown_port, "names a port this lb-dp does not have")                                \
  X(capacity, "needs more targets, listeners or memory than this lb-dp was started with") \
  X(system, "the operating system refused: see the text")

enum class Refusal : std::uint32_t {
  none = 0,
#define X(name, help) name,
  LB_REFUSALS(X)
#undef X
};

[[nodiscard]] constexpr std::string_view to_string(Refusal refusal) {
  switch (refusal) {
    case Refusal::none: return "none";
#define X(name, help) \
  case Refusal::name: return #name;
      LB_REFUSALS(X)
#undef X
  }
  return "?";
}

struct MessageHeader {
  std::uint32_t magic = kControlMagic;
  std::uint32_t version = kControlVersion;
  MessageKind kind = MessageKind::hello;
  std::uint32_t size_bytes = 0;  // of the whole message
};

struct PortInfo {
  char name[16] = {};         // kernel twin's interface name; "" if there is none
  std::uint32_t ifindex = 0;  // 0 if there is no kernel twin
  std::uint32_t mtu_bytes = 0;
  MacAddress mac{};
  std::uint16_t reserved = 0;
};
static_assert(sizeof(PortInfo) == 32);

// fds: [0] stats region, [1] flow region.
struct Hello {
  MessageHeader header{.kind = MessageKind::hello, .size_bytes = 0};
  std::uint64_t snapshot_fingerprint = 0;
  std::uint64_t region_fingerprint = 0;
  Generation generation;       // in force; {0,0} if none
  std::uint64_t instance = 0;  // new at every start of lb-dp
  std::uint32_t pid = 0;
  std::uint32_t worker_count = 0;
  std::uint32_t target_capacity = 0;
  std::uint32_t listener_capacity = 0;
  std::uint32_t port_count = 0;
  std::uint32_t reserved = 0;
  std::array<PortInfo, 32> ports{};
};

// fds: one memfd per id, same order.
struct Segments {
  MessageHeader header{.kind = MessageKind::segments, .size_bytes = 0};
  std::uint32_t count = 0;
  std::uint32_t reserved = 0;
  std::array<std::uint64_t, kMaxFdsPerMessage> ids{};
};

// fds: [0] root memfd.
struct Publish {
  MessageHeader header{.kind = MessageKind::publish, .size_bytes = 0};
  Generation generation;
};

struct Verdict {
  MessageHeader header{.kind = MessageKind::verdict, .size_bytes = 0};
  Generation generation;
  Refusal refusal = Refusal::none;  // none: accepted
  char text[236] = {};              // NUL-terminated, for people
};

struct Active {
  MessageHeader header{.kind = MessageKind::active, .size_bytes = 0};
  Generation generation;
};

}  // namespace lb::abi
