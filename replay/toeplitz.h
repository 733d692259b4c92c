// Which worker a packet lands on: receive-side scaling as NICs do it.
//
//   input    source address | destination address | source port | destination port   (network order)
//   hash     Toeplitz with the 40-byte key of the RSS verification suite
//   worker   hash mod 128 picks the entry of an indirection table that names the workers in turn: entry i is i mod workers
//
// TCP and UDP hash over addresses and ports; other IP, and fragments, over the addresses alone; what is not IP, or so
// malformed that no address can be read, goes to worker 0. RSS chooses a worker, never a slot or a flow.
#pragma once

#include <cstdint>
#include <span>

#include "dp/net/flow_key.h"

namespace lb::replay {

inline constexpr std::uint32_t kRssTableEntries = 128;
inline constexpr std::uint32_t kMaxWorkers = kRssTableEntries;

// `input` is at most 36 bytes: what the 40-byte key has bits for.
[[nodiscard]] std::uint32_t toeplitz(std::span<const std::uint8_t> input);

// `with_ports`: the key's ports are known (TCP or UDP, not a fragment).
[[nodiscard]] std::uint32_t rss_hash(const net::FlowKey& key, bool with_ports);

// workers: 1…kMaxWorkers.
[[nodiscard]] constexpr std::uint32_t rss_worker(std::uint32_t hash, std::uint32_t workers) {
  return hash % kRssTableEntries % workers;
}

}  // namespace lb::replay
