// Security groups in the snapshot: which clients may open flows to a listener. A segment of their own
// (SegmentKind::security), shared by all generations in which no rule has changed.
//
//   Listener::security_group ─▶ groups[] ── root_v4, root_v6 ─▶ nodes[] ─▶ … ─▶ leaves[] ─▶ rules[] ─ next ─▶ … ─▶ none
//                                                 six bits of the source each       longest prefix first
//
// The trie is a compressed multibit trie: of the 64 slots of a node, those in `children` have a node of their own, side by
// side from first_child; the others have a leaf, and slots that follow each other and say the same share one: a bit of
// `leaves` stands where another leaf begins. A /24 among 100,000 is found in five cache lines, the first two of which stay
// cached. (Asai, Ohara: "Poptrie", SIGCOMM 2015.)
//
// Writer: lb-cp. Readers: lb-dp's main thread, which verifies every index, then workers, lb-replay and `why`.
#pragma once

#include <cstdint>

#include "dp/abi/snapshot.h"

namespace lb::abi {

inline constexpr std::uint32_t kMaxSecurityGroups = 4096;
inline constexpr std::uint32_t kMaxSecurityRules = 1U << 21;  // as compiled: one for any source is two
inline constexpr std::uint32_t kPrefixStride = 6;             // bits of the address a node decides on

struct SecurityGroup {
  std::uint32_t root_v4 = 0;  // into nodes
  std::uint32_t root_v6 = 0;
  Name name;  // in the segment's names
  std::uint8_t allow_by_default = 0;
  std::uint8_t reserved[15] = {};
};
static_assert(sizeof(SecurityGroup) == 32);

struct PrefixNode {
  std::uint64_t children = 0;     // slots with a node below
  std::uint64_t leaves = 0;       // slots where another leaf begins; the first slot without a child is one
  std::uint32_t first_child = 0;  // into nodes; the n-th child is first_child + n
  std::uint32_t first_leaf = 0;   // into leaves
  std::uint64_t reserved = 0;
};
static_assert(sizeof(PrefixNode) == 32);

enum SecurityProtocols : std::uint8_t { kSecurityTcp = 1 << 0, kSecurityUdp = 1 << 1 };

struct SecurityRule {
  IpAddress source;
  std::uint16_t first_port = 0;  // destination port, host order, inclusive
  std::uint16_t last_port = 65535;
  std::uint8_t prefix_length = 0;  // of the 16-byte form
  std::uint8_t any_source = 0;     // 1: both families; source and prefix_length are 0
  std::uint8_t protocols = 0;      // SecurityProtocols
  std::uint8_t allow = 0;          // 0: deny
  std::uint32_t number = 0;        // in the group's list, from 0
  std::uint32_t next =
      kNoIndex;  // rule to ask if this one says nothing, always below this one's index; kNoIndex: the default
};
static_assert(sizeof(SecurityRule) == 32);

// First in the segment.
struct SecurityRoot {
  SegmentHeader header;
  Table groups;  // SecurityGroup
  Table nodes;   // PrefixNode
  Table leaves;  // std::uint32_t into rules, or kNoIndex
  Table rules;   // SecurityRule
  Table names;   // char
};

}  // namespace lb::abi
