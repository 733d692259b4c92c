// The 5-tuple that names a flow, as read from the packet in the client's direction.
#pragma once

#include <compare>
#include <cstdint>

#include "dp/abi/types.h"

namespace lb::net {

struct FlowKey {
  abi::IpAddress source;  // network order; IPv4 as ::ffff:a.b.c.d
  abi::IpAddress destination;
  std::uint16_t source_port = 0;  // host order
  std::uint16_t destination_port = 0;
  std::uint8_t protocol = 0;   // abi::Protocol
  std::uint8_t is_v6 = 0;      // 0 or 1
  std::uint16_t reserved = 0;  // 0, so that the 40 bytes can be hashed as they are
  friend constexpr auto operator<=>(const FlowKey&, const FlowKey&) = default;
};
static_assert(sizeof(FlowKey) == 40);

}  // namespace lb::net
