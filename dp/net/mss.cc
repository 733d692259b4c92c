#include "dp/net/mss.h"

#include <algorithm>

#include "dp/base/endian.h"
#include "dp/net/checksum.h"

namespace lb::net {
namespace {

constexpr std::uint8_t kEnd = 0;
constexpr std::uint8_t kNothing = 1;
constexpr std::uint8_t kMss = 2;
constexpr std::uint32_t kMssBytes = 4;

// The option's value may stand at an odd offset: then its bytes belong to two words of the sum, the other way round.
void set_mss(std::uint8_t* tcp, std::uint32_t at, std::uint16_t value) {
  const auto swap = [&](std::uint16_t word) {
    return at % 2 == 0 ? word : static_cast<std::uint16_t>(word << 8 | word >> 8);
  };
  const auto before = load<std::uint16_t>(tcp + at);
  store_be16(tcp + at, value);
  const auto checksum = load<std::uint16_t>(tcp + kTcpChecksumAt);
  store(tcp + kTcpChecksumAt, checksum_update(checksum, swap(before), swap(load<std::uint16_t>(tcp + at))));
}

}  // namespace

std::uint16_t mss_for(std::uint32_t mtu_bytes, bool is_v6) {
  const std::uint32_t headers = (is_v6 ? kIpv6Bytes : kIpv4Bytes) + kTcpBytes;
  return static_cast<std::uint16_t>(std::clamp(mtu_bytes, headers + 1, headers + 0xffff) - headers);
}

bool clamp_mss(std::uint8_t* frame, const ParsedPacket& packet, std::uint16_t most) {
  std::uint8_t* tcp = frame + packet.l4_offset;
  const std::uint32_t header_bytes = (tcp[kTcpDataOffsetAt] >> 4) * 4U;
  for (std::uint32_t at = kTcpBytes; at < header_bytes && tcp[at] != kEnd;) {
    if (tcp[at] == kNothing) {
      ++at;
      continue;
    }
    if (at + 1 >= header_bytes || tcp[at + 1] < 2 || at + tcp[at + 1] > header_bytes) return false;
    if (tcp[at] == kMss) {
      if (tcp[at + 1] != kMssBytes) return false;
      if (load_be16(tcp + at + 2) <= most) return false;
      set_mss(tcp, at + 2, most);
      return true;
    }
    at += tcp[at + 1];
  }
  return false;
}

}  // namespace lb::net
