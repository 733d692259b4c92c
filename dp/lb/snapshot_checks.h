// What the checks of a snapshot's parts have in common (snapshot.cc, snapshot_security.cc, snapshot_quic.cc): an error that
// names table, index and value, and a table's bounds.
#pragma once

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <tl/expected.hpp>

#include "dp/abi/control.h"
#include "dp/abi/snapshot.h"
#include "dp/lb/snapshot.h"

namespace lb {

using Check = tl::expected<void, SnapshotError>;

[[gnu::format(printf, 2, 3)]] inline tl::unexpected<SnapshotError> refuse(abi::Refusal refusal, const char* format, ...) {
  char text[200];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return tl::unexpected(SnapshotError{refusal, text});
}

inline unsigned long long print(std::uint64_t value) {
  return value;
}

inline bool is_l4(std::uint8_t protocol) {
  return protocol == static_cast<std::uint8_t>(abi::Protocol::tcp) ||
         protocol == static_cast<std::uint8_t>(abi::Protocol::udp);
}

inline constexpr abi::Refusal kBounds = abi::Refusal::bounds;

// The part of `bytes` that `table` names, as elements of T.
template <typename T>
tl::expected<std::span<const T>, SnapshotError> table_of(std::span<const std::byte> bytes, const abi::Table& table,
                                                         std::uint64_t most, const char* what) {
  if (table.count > most) return refuse(kBounds, "%s: %u elements, at most %llu", what, table.count, print(most));
  if (table.offset % abi::kCacheLineBytes != 0)
    return refuse(kBounds, "%s: offset %llu not aligned", what, print(table.offset));
  if (table.offset > bytes.size() || std::uint64_t{table.count} * sizeof(T) > bytes.size() - table.offset) {
    return refuse(kBounds, "%s: offset %llu with %u elements of %zu bytes leaves the root of %llu bytes", what,
                  print(table.offset), table.count, sizeof(T), print(bytes.size()));
  }
  return std::span<const T>(reinterpret_cast<const T*>(bytes.data() + table.offset), table.count);
}

}  // namespace lb
