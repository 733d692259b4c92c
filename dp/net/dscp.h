// Differentiated services code point of a packet (RFC 2474).
#pragma once

#include <cstdint>

#include "dp/base/endian.h"
#include "dp/net/checksum_change.h"
#include "dp/net/headers.h"

namespace lb::net {

// Sets it in the IP header at `ip`, and mends the IPv4 checksum; the two ECN bits stay. Returns the whole traffic class.
inline std::uint8_t set_dscp(std::uint8_t* ip, bool is_v6, std::uint8_t dscp) {
  const std::uint16_t word = load_be16(ip);  // version, header length or the class' high half; the class
  const auto old_class = static_cast<std::uint8_t>(is_v6 ? word >> 4 : word);
  const auto new_class = static_cast<std::uint8_t>(dscp << 2 | (old_class & 3));
  const std::uint32_t kept = is_v6 ? word & 0xf00fU : word & 0xff00U;
  const auto changed = static_cast<std::uint16_t>(kept | (is_v6 ? std::uint32_t{new_class} << 4 : new_class));
  const std::uint8_t bytes[2] = {static_cast<std::uint8_t>(changed >> 8), static_cast<std::uint8_t>(changed)};
  const ChecksumChange change = replace_bytes(ip, bytes, sizeof bytes);
  if (!is_v6) change.apply(ip + kIpv4ChecksumAt);
  return new_class;
}

}  // namespace lb::net
