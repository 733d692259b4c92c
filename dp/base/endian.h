// Loads and stores at any alignment, native or big-endian (network) order. They compile to one move, or a move and a swap.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "dp/base/compiler.h"

namespace lb {

static_assert(std::endian::native == std::endian::little, "byte swaps below assume a little-endian machine");

// T: an unsigned integer or another trivially copyable type. Reads sizeof(T) bytes.
template <typename T>
LB_INLINE T load(const void* from) {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <typename T>
LB_INLINE void store(void* to, T value) {
  static_assert(std::is_trivially_copyable_v<T>);
  std::memcpy(to, &value, sizeof value);
}

LB_INLINE constexpr std::uint16_t swap16(std::uint16_t value) {
  return __builtin_bswap16(value);
}
LB_INLINE constexpr std::uint32_t swap32(std::uint32_t value) {
  return __builtin_bswap32(value);
}
LB_INLINE constexpr std::uint64_t swap64(std::uint64_t value) {
  return __builtin_bswap64(value);
}

LB_INLINE std::uint16_t load_be16(const void* from) {
  return swap16(load<std::uint16_t>(from));
}
LB_INLINE std::uint32_t load_be32(const void* from) {
  return swap32(load<std::uint32_t>(from));
}
LB_INLINE void store_be16(void* to, std::uint16_t value) {
  store(to, swap16(value));
}
LB_INLINE void store_be32(void* to, std::uint32_t value) {
  store(to, swap32(value));
}

}  // namespace lb
