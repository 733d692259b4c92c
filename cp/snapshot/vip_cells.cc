#include "cp/snapshot/vip_cells.h"

#include <algorithm>
#include <bit>
#include <map>
#include <tuple>

namespace lb::cp {
namespace {

void insert(std::vector<abi::VipCell>& table, const abi::VipCell& cell) {
  const std::size_t mask = table.size() - 1;
  std::size_t at = abi::vip_table_hash(cell.address, cell.protocol, cell.port) & mask;
  while (table[at].kind != abi::VipCellKind::empty) at = (at + 1) & mask;
  table[at] = cell;
}

}  // namespace

VipCells make_vip_cells(std::span<const abi::Vip> vips, std::span<const abi::Listener> listeners) {
  std::map<std::tuple<std::uint32_t, std::uint8_t, std::uint16_t, std::uint16_t>, std::uint32_t> winners;
  for (std::uint32_t i = 0; i < listeners.size(); ++i) {
    const abi::Listener& listener = listeners[i];
    const auto [winner, is_new] =
        winners.try_emplace({listener.vip, listener.protocol, listener.first_port, listener.last_port}, i);
    if (!is_new && listeners[winner->second].draining != 0 && listener.draining == 0) winner->second = i;
  }

  VipCells result;
  std::vector<abi::VipCell> cells;
  for (std::uint32_t i = 0; i < vips.size(); ++i) cells.push_back({vips[i].address, 0, 0, abi::VipCellKind::vip, i});
  std::map<std::pair<std::uint32_t, std::uint8_t>, std::vector<std::uint32_t>> ranges;
  for (const auto& [key, index] : winners) {
    const abi::Listener& listener = listeners[index];
    if (listener.first_port == listener.last_port) {
      cells.push_back({.address = vips[listener.vip].address,
                       .port = listener.first_port,
                       .protocol = listener.protocol,
                       .kind = abi::VipCellKind::exact,
                       .index = index,
                       .first_group = static_cast<std::uint16_t>(listener.groups[0].group),
                       .counter_index = static_cast<std::uint16_t>(listener.counter_index)});
    } else {
      ranges[{listener.vip, listener.protocol}].push_back(index);
    }
  }
  for (auto& [key, indices] : ranges) {
    std::stable_sort(indices.begin(), indices.end(), [&](std::uint32_t a, std::uint32_t b) {
      return listeners[a].last_port - listeners[a].first_port < listeners[b].last_port - listeners[b].first_port;
    });
    cells.push_back({vips[key.first].address, 0, key.second, abi::VipCellKind::ranges,
                     static_cast<std::uint32_t>(result.range_listeners.size()), static_cast<std::uint32_t>(indices.size())});
    result.range_listeners.insert(result.range_listeners.end(), indices.begin(), indices.end());
  }

  result.table.resize(std::max<std::size_t>(2, std::bit_ceil(2 * cells.size())));
  for (const abi::VipCell& cell : cells) insert(result.table, cell);
  return result;
}

}  // namespace lb::cp
