// The three designs of a flow table that were weighed against each other (dp/lb/flow_table.md), on the same flows and in the
// same run. Only the first is the product's; the other two live here, as far as a look-up, an insert and a removal go.
//
//   lines   five keyed 48-bit fingerprints with tick, target and state in one cache line; no keys at all
//   keys    three whole IPv4 5-tuples in one cache line, each with tick, target and state
//   tags    31 16-bit tags in one cache line, and for each a slot elsewhere with the 5-tuple, tick, target and state
//
// All have two places for a flow, an overflow count that tells when the second need not be read, and the same load.
#pragma once

#include <array>
#include <cstdint>

#include "dp/lb/flow_hash.h"
#include "dp/lb/pipeline.h"
#include "dp/lb/plain_ops.h"

namespace lb::bench {

enum class Design : std::uint8_t { lines, keys, tags };
inline constexpr std::array<const char*, 3> kDesignNames = {"lines", "keys", "tags"};
inline constexpr std::array<std::uint32_t, 3> kDesignEntries = {5, 3, 31};  // of a line, or of a line of tags

// A flow as the bench hands it over.
struct DesignFlow {
  PlainTuple tuple;
  Hash128 hash;
};

struct DesignTable {
  std::uint8_t* memory = nullptr;  // zeroed; design_bytes()
  std::uint64_t lines = 0;
  const HashKeys* keys = nullptr;  // to find the other line of an entry that is to be moved
  std::uint64_t in_second = 0;     // flows in their second line
  std::uint64_t overflowed = 0;    // lines that have such flows: a miss has to look further
  std::uint64_t refused = 0;       // inserts that found no place
};

[[nodiscard]] constexpr std::uint64_t design_lines(Design design, std::uint64_t flows) {
  const std::uint64_t room = flows * 8 / 7 + 1;
  const std::uint32_t entries = kDesignEntries[static_cast<std::size_t>(design)];
  return (room + entries - 1) / entries + 1;
}
inline constexpr std::uint64_t kSlotBytes = 24;
[[nodiscard]] constexpr std::uint64_t design_bytes(Design design, std::uint64_t lines) {
  return lines * (64 + (design == Design::tags ? kDesignEntries[2] * kSlotBytes : 0));
}

struct DesignOps {
  const char* name;  // of the instruction set
  // Enters a flow that is not there. False: no room.
  bool (*enter[3])(DesignTable& table, const DesignFlow& flow, std::uint32_t target);
  // Looks a burst of at most kBurst flows up; returns the sum of the targets found.
  std::uint64_t (*look_up[3])(const DesignTable& table, const DesignFlow* flows, std::uint32_t count);
  // Takes flows out, and enters as many others.
  void (*exchange[3])(DesignTable& table, const DesignFlow* gone, const DesignFlow* come, std::uint32_t count);
};

extern const DesignOps kDesignsV2;
extern const DesignOps kDesignsV3;
extern const DesignOps kDesignsV4;

}  // namespace lb::bench
