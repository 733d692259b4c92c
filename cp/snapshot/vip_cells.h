// The VIP table of a snapshot: (address, protocol, port) → listener. Lookup and layout: dp/abi/snapshot.h at VipCell.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "cp/model/model.h"
#include "dp/abi/snapshot.h"

namespace lb::cp {

struct VipCells {
  std::vector<abi::VipCell> table;
  std::vector<std::uint32_t> range_listeners;     // per (VIP, protocol) narrowest first
  std::array<std::uint64_t, 3> prefix_lengths{};  // Root::vip_prefix_lengths
};

// The sources of nat targets' replies (abi::Root::return_table): of each live target of a nat group, the listeners that use
// the group. Empty if there is none.
VipCells make_return_cells(std::span<const abi::Listener> listeners, std::span<const abi::TargetGroup> groups,
                           std::span<const abi::Target> targets);

// Whether packets can go this way: else they are dropped by name, or the kernel's.
bool usable(const NextHop& hop);

// The ways of packets back from appliances (abi::Root::route_table). `ports`: the snapshot's, by name.
struct RouteCells {
  std::vector<abi::VipCell> table;
  std::vector<abi::RouteNextHop> next_hops;
  std::array<std::uint64_t, 3> prefix_lengths{};
};
RouteCells make_route_cells(std::span<const Route> routes, const std::map<std::string, std::uint8_t>& ports);

// Of two listeners with equal VIP, protocol and ports the one that is not draining takes the packets, else the first.
VipCells make_vip_cells(std::span<const abi::Vip> vips, std::span<const abi::Listener> listeners);

}  // namespace lb::cp
