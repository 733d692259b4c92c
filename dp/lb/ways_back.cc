#include "dp/lb/ways_back.h"

#include <algorithm>
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

bool is_free(const abi::NatWays& ways, std::uint32_t at, std::uint32_t tick) {
  return ways.ways[at].high == 0 || tick - ways.last_used_s[at] > kReuseAfterS;
}

}  // namespace

std::uint32_t WaysBack::learn(const abi::IpAddress& client, const WayBack& way, std::uint32_t present, std::uint32_t tick) {
  const auto wanted = std::bit_cast<abi::NatWay>(way);
  const std::uint32_t first = first_of_set(client);
  const auto is_wanted = [&](std::uint32_t number) { return memory_->ways[first + number] == wanted; };
  std::uint32_t number = present != 0 && is_wanted(present) ? present : 0;
  std::uint32_t free = 0;
  for (std::uint32_t n = 1; number == 0 && n < kWays; ++n) {
    if (is_wanted(n)) number = n;
    if (free == 0 && is_free(*memory_, first + n, tick)) free = n;
  }
  if (number == 0) {
    if (free == 0) return 0;
    number = free;
    abi::NatWay& words = memory_->ways[first + number];
    __atomic_store_n(&words.high, std::uint64_t{0}, __ATOMIC_RELAXED);  // a crash between the two leaves it free
    __atomic_store_n(&words.low, wanted.low, __ATOMIC_RELEASE);
    __atomic_store_n(&words.high, wanted.high, __ATOMIC_RELEASE);
  }
  memory_->last_used_s[first + number] = tick;
  return number;
}

WayBack WaysBack::at(const abi::IpAddress& client, std::uint32_t number) const {
  if (number == 0 || number >= kWays) return {};
  const abi::NatWay& words = memory_->ways[first_of_set(client) + number];
  const std::uint64_t high = __atomic_load_n(&words.high, __ATOMIC_ACQUIRE);
  return std::bit_cast<WayBack>(abi::NatWay{__atomic_load_n(&words.low, __ATOMIC_RELAXED), high});
}

}  // namespace lb
