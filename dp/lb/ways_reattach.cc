// What becomes of the ways back when a flow region is made, taken over or given to another number of workers. Off the packet
// path.
#include <algorithm>
#include <bit>

#include "dp/lb/ways_back.h"

namespace lb {
namespace {

// Not free, and nobody's: its `used` byte is 0.
constexpr abi::NatWay kShut{0, 1};

}  // namespace

WaysBack::WaysBack(abi::NatWays* memory)
    : own_(memory == nullptr ? std::make_unique<abi::NatWays>() : nullptr),
      memory_(memory == nullptr ? own_.get() : memory) {}

void shut_strange_ways(abi::NatWays& ways, std::span<const abi::MacAddress> ports) {
  for (abi::NatWay& words : ways.ways) {
    if (words.high == 0) continue;
    const auto way = std::bit_cast<WayBack>(words);
    if (way.used != 1 || way.own_port >= ports.size() || way.own != ports[way.own_port]) words = kShut;
  }
}

void merge_ways(std::span<const abi::NatWays* const> from, std::span<abi::NatWays* const> to) {
  for (std::uint32_t at = 0; at < abi::kNatWays; ++at) {
    abi::NatWay merged;
    std::uint32_t last_used_s = 0;
    for (const abi::NatWays* ways : from) {
      const abi::NatWay& words = ways->ways[at];
      if (words.high == 0) continue;
      last_used_s = std::max(last_used_s, ways->last_used_s[at]);
      merged = merged.high == 0 || merged == words ? words : kShut;
    }
    for (abi::NatWays* ways : to) {
      ways->ways[at] = merged;
      ways->last_used_s[at] = last_used_s;
    }
  }
}

}  // namespace lb
