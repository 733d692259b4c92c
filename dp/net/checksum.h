// The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//
// A sum is the one's-complement sum of 16-bit words in the order of memory, not yet folded: sums of parts can be added,
// in any order, as long as each part but the last has an even number of bytes. The checksum stored in a header is the
// complement of the folded sum; it needs no byte swap, since the sum is the same in either byte order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dp/abi/types.h"
#include "dp/base/compiler.h"
#include "dp/base/endian.h"
#include "dp/net/headers.h"

namespace lb::net {

// 16 bits with the carries added in.
LB_INLINE std::uint16_t checksum_fold(std::uint64_t sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);  // ≤ 33 bits
  sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(sum + (sum >> 16));
}

// What to store in a header whose words, its checksum field as 0, have this sum.
LB_INLINE std::uint16_t checksum_finish(std::uint64_t sum) {
  return static_cast<std::uint16_t>(~checksum_fold(sum));
}

// Sum of `length` bytes (≤ 64 KiB; an odd last byte counts as padded with 0), added to `sum`.
std::uint64_t checksum_sum(const std::uint8_t* data, std::size_t length, std::uint64_t sum = 0);

// Sum of an IPv4 header without options, checksum field included: folds to 0xffff if the header is intact.
LB_INLINE std::uint64_t ipv4_header_sum(const std::uint8_t* ip) {
  return std::uint64_t{load<std::uint32_t>(ip)} + load<std::uint32_t>(ip + 4) + load<std::uint32_t>(ip + 8) +
         load<std::uint32_t>(ip + 12) + load<std::uint32_t>(ip + 16);
}

// The checksum after one 16-bit word it covers changed, RFC 1624 equation 3. All three as they stand in memory.
LB_INLINE std::uint16_t checksum_update(std::uint16_t checksum, std::uint16_t old_word, std::uint16_t new_word) {
  return checksum_finish(std::uint64_t{static_cast<std::uint16_t>(~checksum)} + static_cast<std::uint16_t>(~old_word) +
                         new_word);
}

// Sum of the pseudo header of TCP, UDP and ICMPv6 (RFC 9293 §3.1, RFC 8200 §8.1); l4_bytes: header and payload.
std::uint64_t pseudo_header_sum(const abi::IpAddress& source, const abi::IpAddress& destination, bool is_v6,
                                std::uint8_t protocol, std::uint32_t l4_bytes);

}  // namespace lb::net
