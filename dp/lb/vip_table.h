// (address, protocol, port) → listener, in the snapshot's open-addressed table (dp/abi/snapshot.h, VipCell).
//
//   exact (address, protocol, port) ─no─▶ ranges of (address, protocol) ─no─▶ address is a VIP? ─no─▶ in a VIP's prefix?
//   ─no─▶ not ours
//
// One cell in the common case; at most half of the cells are used, so a probe ends soon.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dp/abi/snapshot.h"
#include "dp/base/compiler.h"
#include "dp/base/endian.h"
#include "dp/lb/snapshot.h"
#include "dp/net/flow_key.h"

namespace lb {

inline constexpr std::uint32_t kNotVip = 0xffffffff;      // the address is not lb's: the packet is the kernel's
inline constexpr std::uint32_t kNoListener = 0xfffffffe;  // a VIP, but nothing listens on this protocol and port

// The table's cells, where a hot loop wants them.
struct VipTable {
  const abi::VipCell* cells = nullptr;
  std::uint32_t mask = 0;
  const std::uint64_t* prefix_lengths = nullptr;  // Root::vip_prefix_lengths
};

LB_INLINE VipTable vip_table_of(const Snapshot& snapshot) {
  const auto table = snapshot.vip_table();
  return {table.data(), static_cast<std::uint32_t>(table.size() - 1), snapshot.root().vip_prefix_lengths};
}

// abi::vip_table_hash on the address as two words; equal by test.
LB_INLINE std::uint32_t vip_hash(std::uint64_t high, std::uint64_t low, std::uint8_t protocol, std::uint16_t port) {
  std::uint64_t h = (low ^ (std::uint64_t{port} << 16 | protocol)) * 0x9e3779b97f4a7c15ULL;
  h ^= high * 0xc2b2ae3d27d4eb4fULL;
  h ^= h >> 32;
  h *= 0xd6e8feb86659fd93ULL;
  return static_cast<std::uint32_t>(h >> 32);
}

LB_INLINE std::uint32_t vip_hash(const net::FlowKey& key) {
  const std::uint8_t* address = key.destination.bytes.data();
  return vip_hash(load<std::uint64_t>(address), load<std::uint64_t>(address + 8), key.protocol, key.destination_port);
}

// The cell of this kind and key, or nullptr. `hash` is where the probe starts.
LB_INLINE const abi::VipCell* find_cell(const VipTable& table, std::uint32_t hash, const abi::IpAddress& address,
                                        std::uint8_t protocol, std::uint16_t port, abi::VipCellKind kind) {
  static_assert(offsetof(abi::VipCell, port) == 16 && offsetof(abi::VipCell, protocol) == 18 &&
                offsetof(abi::VipCell, kind) == 19);
  const auto high = load<std::uint64_t>(address.bytes.data());
  const auto low = load<std::uint64_t>(address.bytes.data() + 8);
  const std::uint32_t rest = std::uint32_t{port} | std::uint32_t{protocol} << 16 | static_cast<std::uint32_t>(kind) << 24;
  for (std::uint32_t i = hash & table.mask;; i = (i + 1) & table.mask) {
    const abi::VipCell& cell = table.cells[i];
    if (load<std::uint64_t>(cell.address.bytes.data() + 8) == low && load<std::uint32_t>(&cell.port) == rest &&
        load<std::uint64_t>(cell.address.bytes.data()) == high) [[likely]] {
      return &cell;
    }
    if (cell.kind == abi::VipCellKind::empty) return nullptr;
  }
}

// Where the probe for a key starts.
LB_INLINE std::uint32_t vip_hash(const abi::IpAddress& address, std::uint8_t protocol, std::uint16_t port) {
  const std::uint8_t* bytes = address.bytes.data();
  return vip_hash(load<std::uint64_t>(bytes), load<std::uint64_t>(bytes + 8), protocol, port);
}

// The VIP whose prefix holds the address, the longest of them; kNotVip: none. Out of line, like the next.
std::uint32_t find_prefix_vip(const VipTable& table, const abi::IpAddress& address);

// The listener of the VIP whose prefix holds the destination; kNoListener, kNotVip.
std::uint32_t find_listener_by_prefix(const Snapshot& snapshot, const VipTable& table, const net::FlowKey& key);

LB_INLINE bool is_host_vip(const VipTable& table, const abi::IpAddress& address) {
  return find_cell(table, vip_hash(address, 0, 0), address, 0, 0, abi::VipCellKind::vip) != nullptr;
}

// Index into vips(); kNotVip: the address is no VIP.
LB_INLINE std::uint32_t find_vip(const VipTable& table, const abi::IpAddress& address) {
  const abi::VipCell* cell = find_cell(table, vip_hash(address, 0, 0), address, 0, 0, abi::VipCellKind::vip);
  return cell != nullptr ? cell->index : find_prefix_vip(table, address);
}

LB_INLINE bool is_vip(const VipTable& table, const abi::IpAddress& address) {
  return find_vip(table, address) != kNotVip;
}

// The first listener of a cell of ranges that takes the port, or kNoListener.
LB_INLINE std::uint32_t listener_in_ranges(const Snapshot& snapshot, const abi::VipCell& ranges, std::uint16_t port) {
  const std::uint32_t* listeners = snapshot.range_listeners().data() + ranges.index;
  for (std::uint32_t i = 0; i < ranges.count; ++i) {
    const abi::Listener& listener = snapshot.listeners()[listeners[i]];
    if (listener.first_port <= port && port <= listener.last_port) return listeners[i];
  }
  return kNoListener;
}

// What an exact cell did not answer: port ranges, narrowest first, then whether the address is a VIP at all.
LB_INLINE std::uint32_t find_listener_by_range(const Snapshot& snapshot, const VipTable& table, const net::FlowKey& key) {
  const std::uint32_t hash = vip_hash(key.destination, key.protocol, 0);
  const abi::VipCell* ranges = find_cell(table, hash, key.destination, key.protocol, 0, abi::VipCellKind::ranges);
  if (ranges != nullptr) return listener_in_ranges(snapshot, *ranges, key.destination_port);
  return is_host_vip(table, key.destination) ? kNoListener : find_listener_by_prefix(snapshot, table, key);
}

// Whether this cell has this key, its last word being port, protocol and kind as they stand there.
LB_INLINE bool is_exact(const abi::VipCell& cell, std::uint64_t high, std::uint64_t low, std::uint32_t rest) {
  return load<std::uint64_t>(cell.address.bytes.data() + 8) == low && load<std::uint32_t>(&cell.port) == rest &&
         load<std::uint64_t>(cell.address.bytes.data()) == high;
}

// Index into listeners(), kNoListener or kNotVip. `hash` = vip_hash(key), computed ahead to prefetch the cell.
LB_INLINE std::uint32_t find_listener(const Snapshot& snapshot, const VipTable& table, const net::FlowKey& key,
                                      std::uint32_t hash) {
  const abi::VipCell* exact =
      find_cell(table, hash, key.destination, key.protocol, key.destination_port, abi::VipCellKind::exact);
  return exact != nullptr ? exact->index : find_listener_by_range(snapshot, table, key);
}

}  // namespace lb
