// Keyed 128-bit hashes of a flow. AES-128 as a pseudo-random permutation: an IPv4 flow is one block (addresses, ports,
// protocol: 13 of 16 bytes), an IPv6 flow three blocks chained (CBC-MAC over a fixed length) under another key. Two uses
// with two secrets, never mixed:
//   flow table   the node secret: which line, which fingerprint
//   slot         the fleet seed: which target group, which Maglev slot; the same on every node
// Low and high 64 bits are independent. CPUs without AES instructions run a portable twin with identical values.
#pragma once

#include <array>
#include <cstdint>

#include "dp/abi/types.h"
#include "dp/base/compiler.h"
#include "dp/net/flow_key.h"

namespace lb {

using NodeSecret = std::array<std::uint8_t, 16>;

struct Hash128 {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  friend constexpr bool operator==(const Hash128&, const Hash128&) = default;
};

// Eleven round keys for each of the two block formats.
struct alignas(16) HashKeys {
  std::array<std::array<std::uint8_t, 16>, 11> v4{};
  std::array<std::array<std::uint8_t, 16>, 11> v6{};
};

[[nodiscard]] HashKeys make_hash_keys(const NodeSecret& secret);
[[nodiscard]] HashKeys make_hash_keys(std::uint64_t fleet_seed);

// One flow, by the portable twin: for places off the packet path. The packet path has dp/lb/flow_hash_ops.h.
[[nodiscard]] Hash128 flow_hash(const HashKeys& keys, const net::FlowKey& key);

// The same key for both directions of a flow: the lower address and port first.
[[nodiscard]] net::FlowKey either_way(const net::FlowKey& key);

// sticky_key() of a symmetric stickiness. Out of line.
[[nodiscard]] net::FlowKey symmetric_key(const net::FlowKey& key, abi::Stickiness stickiness);

// The part of a key that chooses group and slot under a stickiness; the rest is zero.
LB_INLINE net::FlowKey sticky_key(const net::FlowKey& key, abi::Stickiness stickiness) {
  net::FlowKey sticky = key;
  if (stickiness == abi::Stickiness::five_tuple) return sticky;
  if (stickiness >= abi::Stickiness::symmetric_five_tuple) return symmetric_key(key, stickiness);
  sticky.source_port = 0;
  sticky.destination_port = 0;
  if (stickiness == abi::Stickiness::source_ip_dest_ip_proto) return sticky;
  sticky.protocol = 0;
  if (stickiness == abi::Stickiness::source_ip) sticky.destination = {};
  return sticky;
}

}  // namespace lb
