#include "dp/net/checksum.h"

namespace lb::net {

std::uint64_t checksum_sum(const std::uint8_t* data, std::size_t length, std::uint64_t sum) {
  for (; length >= 4; data += 4, length -= 4) sum += load<std::uint32_t>(data);
  if (length >= 2) {
    sum += load<std::uint16_t>(data);
    data += 2;
    length -= 2;
  }
  if (length != 0) sum += *data;  // low byte of a little-endian word: the pad of 0 follows it
  return sum;
}

std::uint64_t pseudo_header_sum(const abi::IpAddress& source, const abi::IpAddress& destination, bool is_v6,
                                std::uint8_t protocol, std::uint32_t l4_bytes) {
  const std::size_t skip = is_v6 ? 0 : 12;
  std::uint64_t sum = checksum_sum(source.bytes.data() + skip, 16 - skip);
  sum = checksum_sum(destination.bytes.data() + skip, 16 - skip, sum);
  return sum + swap32(l4_bytes) + swap16(protocol);
}

}  // namespace lb::net
