#include "cp/snapshot/vip_cells.h"

#include <algorithm>
#include <bit>
#include <map>
#include <set>
#include <tuple>

namespace lb::cp {
namespace {

void insert(std::vector<abi::VipCell>& table, const abi::VipCell& cell) {
  const std::size_t mask = table.size() - 1;
  std::size_t at = abi::vip_table_hash(cell.address, cell.protocol, cell.port) & mask;
  while (table[at].kind != abi::VipCellKind::empty) at = (at + 1) & mask;
  table[at] = cell;
}

// The cell of a VIP, and where its listeners' cells stand: under its address, or, of a prefix, under a key of its own.
struct Place {
  abi::IpAddress address;
  abi::VipCellKind exact = abi::VipCellKind::exact;
  abi::VipCellKind ranges = abi::VipCellKind::ranges;
};

Place place_of(const abi::Vip& vip, std::uint32_t index) {
  if (vip.prefix_length == 128) return {vip.address};
  return {abi::prefix_vip_key(index), abi::VipCellKind::prefix_exact, abi::VipCellKind::prefix_ranges};
}

}  // namespace

VipCells make_vip_cells(std::span<const abi::Vip> vips, std::span<const abi::Listener> listeners) {
  std::map<std::tuple<std::uint32_t, std::uint8_t, std::uint16_t, std::uint16_t>, std::uint32_t> winners;
  for (std::uint32_t i = 0; i < listeners.size(); ++i) {
    const abi::Listener& listener = listeners[i];
    if (listener.protocol == abi::kAllProtocols) continue;
    const auto [winner, is_new] =
        winners.try_emplace({listener.vip, listener.protocol, listener.first_port, listener.last_port}, i);
    if (!is_new && listeners[winner->second].draining != 0 && listener.draining == 0) winner->second = i;
  }

  VipCells result;
  std::vector<abi::VipCell> cells;
  for (std::uint32_t i = 0; i < vips.size(); ++i) {
    const std::uint32_t length = vips[i].prefix_length;
    if (length == 128) {
      cells.push_back({vips[i].address, 0, 0, abi::VipCellKind::vip, i});
      continue;
    }
    cells.push_back({vips[i].address, static_cast<std::uint16_t>(length), 0, abi::VipCellKind::prefix, i});
    result.prefix_lengths[length / 64] |= std::uint64_t{1} << length % 64;
  }
  std::map<std::pair<std::uint32_t, std::uint8_t>, std::vector<std::uint32_t>> ranges;
  for (const auto& [key, index] : winners) {
    const abi::Listener& listener = listeners[index];
    if (listener.first_port == listener.last_port) {
      const Place place = place_of(vips[listener.vip], listener.vip);
      cells.push_back({.address = place.address,
                       .port = listener.first_port,
                       .protocol = listener.protocol,
                       .kind = place.exact,
                       .index = index,
                       .first_group = abi::first_group_of(listener),
                       .counter_index = static_cast<std::uint16_t>(listener.counter_index)});
    } else {
      ranges[{listener.vip, listener.protocol}].push_back(index);
    }
  }
  for (auto& [key, indices] : ranges) {
    std::stable_sort(indices.begin(), indices.end(), [&](std::uint32_t a, std::uint32_t b) {
      return listeners[a].last_port - listeners[a].first_port < listeners[b].last_port - listeners[b].first_port;
    });
    const Place place = place_of(vips[key.first], key.first);
    cells.push_back({place.address, 0, key.second, place.ranges, static_cast<std::uint32_t>(result.range_listeners.size()),
                     static_cast<std::uint32_t>(indices.size())});
    result.range_listeners.insert(result.range_listeners.end(), indices.begin(), indices.end());
  }

  result.table.resize(std::max<std::size_t>(2, std::bit_ceil(2 * cells.size())));
  for (const abi::VipCell& cell : cells) insert(result.table, cell);
  return result;
}

bool usable(const NextHop& hop) {
  constexpr std::uint32_t kLeastMtuBytes = 68;  // RFC 791: below it there is no way
  return hop.resolved && hop.mtu_bytes >= kLeastMtuBytes && !hop.interface.empty();
}

RouteCells make_route_cells(std::span<const Route> routes, const std::map<std::string, std::uint8_t>& ports) {
  RouteCells result;
  if (routes.empty()) return result;
  std::map<std::tuple<std::uint8_t, std::uint8_t, abi::MacAddress, abi::MacAddress, std::uint16_t, std::uint16_t>,
           std::uint32_t>
      known;
  result.table.resize(std::bit_ceil(2 * routes.size()));
  for (const Route& route : routes) {
    abi::RouteNextHop hop{.mtu_bytes = 0};
    if (route.local) {
      hop.flags = abi::kRouteLocal;
    } else if (!usable(route.next_hop)) {
      hop.flags = abi::kRouteUnresolved;
    } else {
      const NextHop& from = route.next_hop;
      hop = {from.mac,
             from.source_mac,
             from.vlan,
             static_cast<std::uint16_t>(std::min(from.mtu_bytes, 65535U)),
             ports.at(from.interface),
             0};
    }
    const auto [at, is_new] = known.try_emplace({hop.flags, hop.out_port, hop.mac, hop.source_mac, hop.vlan, hop.mtu_bytes},
                                                static_cast<std::uint32_t>(result.next_hops.size()));
    if (is_new) result.next_hops.push_back(hop);
    const std::uint32_t length = route.prefix.length;
    result.prefix_lengths[length / 64] |= std::uint64_t{1} << length % 64;
    insert(result.table, {.address = route.prefix.address,
                          .port = static_cast<std::uint16_t>(length),
                          .kind = abi::VipCellKind::prefix,
                          .index = at->second});
  }
  return result;
}

VipCells make_return_cells(std::span<const abi::Listener> listeners, std::span<const abi::TargetGroup> groups,
                           std::span<const abi::Target> targets) {
  std::map<std::uint32_t, std::vector<std::uint32_t>> users;  // listeners by nat group
  for (std::uint32_t i = 0; i < listeners.size(); ++i) {
    for (std::uint32_t g = 0; g < listeners[i].group_count; ++g) {
      const std::uint32_t group = listeners[i].groups[g].group;
      if (groups[group].mode == abi::ForwardingMode::nat) users[group].push_back(i);
    }
  }
  std::map<std::tuple<abi::IpAddress, std::uint16_t, std::uint8_t>, std::set<std::uint32_t>> sources;
  for (const abi::Target& target : targets) {
    if ((target.flags & abi::kTargetLive) == 0 || target.mode != abi::ForwardingMode::nat) continue;
    for (const std::uint32_t i : users[target.group]) {
      const abi::Listener& listener = listeners[i];
      sources[{target.address, target.port != 0 ? target.port : listener.first_port, listener.protocol}].insert(i);
    }
  }
  VipCells result;
  if (sources.empty()) return result;
  result.table.resize(std::max<std::size_t>(2, std::bit_ceil(2 * sources.size())));
  for (const auto& [key, indices] : sources) {
    const auto& [address, port, protocol] = key;
    insert(result.table,
           {address, port, protocol, abi::VipCellKind::ranges, static_cast<std::uint32_t>(result.range_listeners.size()),
            static_cast<std::uint32_t>(indices.size()), 0});
    result.range_listeners.insert(result.range_listeners.end(), indices.begin(), indices.end());
  }
  return result;
}

}  // namespace lb::cp
