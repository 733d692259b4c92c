#include "dp/lb/ways_back.h"

#include <bit>

#include "dp/base/endian.h"

namespace lb {
namespace {

// Longer than any flow stays in the table without a packet (twice the longest idle timeout).
constexpr std::uint32_t kReuseAfterS = 14'400;

std::uint32_t first_of_set(const abi::IpAddress& client) {
  const std::uint64_t mixed =
      (load<std::uint64_t>(client.bytes.data()) ^ load<std::uint64_t>(client.bytes.data() + 8)) * 0x9e3779b97f4a7c15ULL;
  static_assert(std::has_single_bit(WaysBack::kSets));
  return static_cast<std::uint32_t>(mixed >> (64 - std::countr_zero(WaysBack::kSets))) * WaysBack::kWays;
}

}  // namespace

std::uint32_t WaysBack::learn(const abi::IpAddress& client, const WayBack& way, std::uint32_t present, std::uint32_t tick) {
  const auto wanted = std::bit_cast<Words>(way);
  const std::uint32_t first = first_of_set(client);
  const auto is_wanted = [&](std::uint32_t number) {
    const Words& words = ways_[first + number];
    return words.low == wanted.low && words.high == wanted.high;
  };
  std::uint32_t number = present != 0 && is_wanted(present) ? present : 0;
  std::uint32_t free = 0;
  for (std::uint32_t n = 1; number == 0 && n < kWays; ++n) {
    if (is_wanted(n)) number = n;
    const bool unused = ways_[first + n].high == 0 || tick - last_used_[first + n] > kReuseAfterS;
    if (unused && free == 0) free = n;
  }
  if (number == 0) {
    if (free == 0) return 0;
    number = free;
    Words& words = ways_[first + number];
    __atomic_store_n(&words.low, wanted.low, __ATOMIC_RELAXED);
    __atomic_store_n(&words.high, wanted.high, __ATOMIC_RELEASE);
  }
  last_used_[first + number] = tick;
  return number;
}

WayBack WaysBack::at(const abi::IpAddress& client, std::uint32_t number) const {
  if (number == 0 || number >= kWays) return {};
  const Words& words = ways_[first_of_set(client) + number];
  const std::uint64_t high = __atomic_load_n(&words.high, __ATOMIC_ACQUIRE);
  return std::bit_cast<WayBack>(Words{__atomic_load_n(&words.low, __ATOMIC_RELAXED), high});
}

}  // namespace lb
