#include <bit>

#include "dp/lb/vip_table.h"

namespace lb {

std::uint32_t find_prefix_vip(const VipTable& table, const abi::IpAddress& address) {
  for (std::uint32_t word = 3; word-- > 0;) {
    for (std::uint64_t lengths = table.prefix_lengths[word]; lengths != 0;) {
      const std::uint32_t bit = 63 - static_cast<std::uint32_t>(std::countl_zero(lengths));
      lengths ^= std::uint64_t{1} << bit;
      const auto length = static_cast<std::uint16_t>(64 * word + bit);
      const abi::IpAddress prefix = abi::masked(address, length);
      const abi::VipCell* cell = find_cell(table, vip_hash(prefix, 0, length), prefix, 0, length, abi::VipCellKind::prefix);
      if (cell != nullptr) return cell->index;
    }
  }
  return kNotVip;
}

std::uint32_t find_listener_by_prefix(const Snapshot& snapshot, const VipTable& table, const net::FlowKey& key) {
  const std::uint32_t vip = find_prefix_vip(table, key.destination);
  if (vip == kNotVip) return kNotVip;
  const abi::IpAddress name = abi::prefix_vip_key(vip);
  const std::uint16_t port = key.destination_port;
  const abi::VipCell* exact =
      find_cell(table, vip_hash(name, key.protocol, port), name, key.protocol, port, abi::VipCellKind::prefix_exact);
  if (exact != nullptr) return exact->index;
  const abi::VipCell* ranges =
      find_cell(table, vip_hash(name, key.protocol, 0), name, key.protocol, 0, abi::VipCellKind::prefix_ranges);
  return ranges != nullptr ? listener_in_ranges(snapshot, *ranges, port) : kNoListener;
}

}  // namespace lb
