// Geneve (RFC 8926) as gateway load balancers speak it: IP in UDP 6081, version 0, VNI 0, and three options of one class
// that the appliance gives back unchanged.
//
//   UDP 8 │ Geneve 8 │ option 1: VPCE id, 4 + 8 │ option 2: attachment id, 4 + 8 │ option 3: flow cookie, 4 + 4 │ IP
//   packet
//
// Bytes out and bytes in. Outer addresses and ports are tunnel.h's.
#pragma once

#include <cstdint>

#include "dp/abi/snapshot.h"

namespace lb::net {

inline constexpr std::uint32_t kGeneveBytes = 8;          // without options
inline constexpr std::uint32_t kGeneveOptionsBytes = 32;  // of those three

struct GeneveOptions {
  std::uint64_t vpce_id = 0;
  std::uint64_t attachment_id = 0;
  std::uint32_t cookie = 0;
  friend constexpr bool operator==(const GeneveOptions&, const GeneveOptions&) = default;
};

// Writes header and options, kGeneveBytes + kGeneveOptionsBytes.
void write_geneve(std::uint8_t* header, std::uint16_t option_class, const GeneveOptions& options, bool inner_is_v6);

struct GeneveHeader {
  std::uint32_t bytes = 0;  // options included: the packet inside begins there; 0: the header is wrong
  bool inner_is_v6 = false;
};

// Of `bytes` of UDP payload. Wrong: too short, another version, control (O), another protocol than IPv4 and IPv6, a VNI, or
// options that run out of the payload. Reserved bits are not looked at (RFC 8926 §3.4).
GeneveHeader read_geneve(const std::uint8_t* header, std::uint32_t bytes);

// The options behind a header that read_geneve() has read. False: one of the three is missing, stands there twice or has
// another length, one runs out of the rest, or an unknown one is critical. Other unknown ones are passed over.
bool read_geneve_options(const std::uint8_t* header, std::uint32_t header_bytes, std::uint16_t option_class,
                         GeneveOptions& out);

// ECN at the tunnel's end (RFC 6040 §4.2): the packet's own and the outer header's, combined in the packet at `ip`, whose
// IPv4 checksum is updated. False: the outer one says congestion, and the packet's sender does not know ECN: drop it.
bool take_outer_ecn(std::uint8_t* ip, bool is_v6, std::uint8_t outer_traffic_class);

}  // namespace lb::net
