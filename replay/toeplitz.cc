#include "replay/toeplitz.h"

#include <algorithm>
#include <array>
#include <cstddef>

namespace lb::replay {
namespace {

constexpr std::array<std::uint8_t, 40> kKey = {
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
    0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};

}  // namespace

std::uint32_t toeplitz(std::span<const std::uint8_t> input) {
  std::uint32_t window = std::uint32_t{kKey[0]} << 24 | std::uint32_t{kKey[1]} << 16 | std::uint32_t{kKey[2]} << 8 | kKey[3];
  std::uint32_t hash = 0;
  for (std::size_t i = 0; i < input.size(); ++i) {
    for (std::uint32_t bit = 0; bit < 8; ++bit) {
      if ((input[i] << bit & 0x80) != 0) hash ^= window;
      window = window << 1 | (kKey[i + 4] >> (7 - bit) & 1U);
    }
  }
  return hash;
}

std::uint32_t rss_hash(const net::FlowKey& key, bool with_ports) {
  std::array<std::uint8_t, 36> input{};
  const std::size_t skip = key.is_v6 != 0 ? 0 : 12;  // IPv4 stands in the last four bytes
  auto end = std::copy(key.source.bytes.begin() + static_cast<std::ptrdiff_t>(skip), key.source.bytes.end(), input.begin());
  end = std::copy(key.destination.bytes.begin() + static_cast<std::ptrdiff_t>(skip), key.destination.bytes.end(), end);
  if (with_ports) {
    for (const std::uint16_t port : {key.source_port, key.destination_port}) {
      *end++ = static_cast<std::uint8_t>(port >> 8);
      *end++ = static_cast<std::uint8_t>(port & 0xff);
    }
  }
  return toeplitz({input.data(), static_cast<std::size_t>(end - input.begin())});
}

}  // namespace lb::replay
