#include "cp/net/route_mirror.h"

#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <set>
#include <system_error>

#include "cp/net/netlink.h"

namespace lb::cp {
namespace {

constexpr std::size_t kStep = 1024;
constexpr std::uint16_t kUsable = NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT | NUD_NOARP;

// Every route of the kernel.
struct RouteTable {
  bool stale = true;               // to be dumped anew
  bool neighbours_changed = true;  // to be computed anew
  std::vector<RouteInfo> dumped;
  std::set<NeighbourKey> gateways;
};

}  // namespace

struct RouteMirror::Impl {
  struct Wanted {
    RouteInfo route;
    bool looked_up = false;
    std::optional<NeighbourKey> neighbour;  // the one its packets go to, if the kernel is to resolve it
    Path path;
    bool told = false;
  };

  using Addresses = std::set<abi::IpAddress, AddressOrder>;

  NetlinkEvents events;  // before the dumps: nothing is missed between
  NetlinkRequests requests;
  std::map<std::uint32_t, LinkInfo> links;
  std::map<NeighbourKey, NeighbourInfo> neighbours;
  std::map<NeighbourKey, Addresses> users;  // wanted addresses by the neighbour they need
  std::map<abi::IpAddress, Wanted, AddressOrder> wanted;
  std::deque<abi::IpAddress> to_look_up;
  Addresses changed;
  std::vector<StaticNeighbour> statics;
  std::optional<std::vector<MirrorPort>> ports;
  bool managed = true;
  bool events_lost = false;             // by the kernel, for want of room: everything is read anew at the next tick
  std::vector<NeighbourKey> to_ask;     // for tell_kernel()
  std::vector<NeighbourKey> to_forget;  // for tell_kernel()
  std::set<NeighbourKey> ask_again;     // lost from the kernel's table while in use
  std::chrono::steady_clock::time_point refreshed;
  std::unique_ptr<RouteTable> table;  // while routes are wanted
  std::vector<Route> routes_told;     // by take_routes()

  void read_all() {
    links.clear();
    requests.dump(RTM_GETLINK, [this](const nlmsghdr* message) { take_link(message); });
    requests.dump(RTM_GETNEIGH, [this](const nlmsghdr* message) { take_neighbour(message); });
    look_up_all();
  }

  void look_up_all() {
    if (table) table->stale = true;
    to_look_up.clear();
    for (const auto& [address, entry] : wanted) to_look_up.push_back(address);
  }

  void take_link(const nlmsghdr* message) {
    const auto link = parse_link(message);
    if (!link) return;
    if (message->nlmsg_type == RTM_DELLINK) {
      links.erase(link->ifindex);
      std::erase_if(neighbours, [&](const auto& item) { return item.first.first == link->ifindex; });
    } else {
      links[link->ifindex] = *link;
    }
  }

  void take_neighbour(const nlmsghdr* message) {
    const auto seen = parse_neighbour(message);
    if (!seen) return;
    const NeighbourKey key{seen->ifindex, seen->address};
    const auto used = users.find(key);
    if (table) table->neighbours_changed = true;
    if (message->nlmsg_type == RTM_DELNEIGH) {
      // Its MAC is held; the kernel is asked to find it again.
      if (used != users.end()) {
        ask_again.insert(key);
      } else {
        neighbours.erase(key);
      }
      return;
    }
    NeighbourInfo& known = neighbours[key];
    known.ifindex = seen->ifindex;
    known.address = seen->address;
    known.state = seen->state;
    if ((seen->state & kUsable) != 0 && seen->has_mac) {
      known.mac = seen->mac;
      known.has_mac = true;
    } else if ((seen->state & NUD_FAILED) != 0) {
      known.has_mac = false;
    }
    if (used == users.end()) return;
    for (const abi::IpAddress& address : used->second) update(address, wanted.at(address));
  }

  void take_event(const nlmsghdr* message) {
    switch (message->nlmsg_type) {
      case RTM_NEWNEIGH:
      case RTM_DELNEIGH: take_neighbour(message); break;
      case RTM_NEWLINK:
      case RTM_DELLINK:
        take_link(message);
        look_up_all();
        break;
      default: look_up_all(); break;  // routes and addresses
    }
  }

  [[nodiscard]] const StaticNeighbour* find_static(const abi::IpAddress& address, const std::string& interface) const {
    const auto at = std::ranges::find_if(statics, [&](const StaticNeighbour& neighbour) {
      return neighbour.address == address &&
             (interface.empty() || neighbour.interface.empty() || neighbour.interface == interface);
    });
    return at == statics.end() ? nullptr : &*at;
  }

  [[nodiscard]] const LinkInfo* find_link(const std::string& name) const {
    const auto at = std::ranges::find_if(links, [&](const auto& item) { return item.second.name == name; });
    return at == links.end() ? nullptr : &at->second;
  }

  [[nodiscard]] const MirrorPort* find_port(const std::string& name) const {
    if (!ports) return nullptr;
    const auto at = std::ranges::find(*ports, name, &MirrorPort::name);
    return at == ports->end() ? nullptr : &*at;
  }

  // An on-link address by a static neighbour that names its interface: no route is needed.
  std::optional<Path> static_path(const abi::IpAddress& address, const RouteInfo& route) const {
    const StaticNeighbour* fixed = find_static(address, "");
    if (fixed == nullptr || fixed->interface.empty()) return std::nullopt;
    Path path;
    NextHop& hop = path.next_hop;
    hop.interface = fixed->interface;
    hop.mac = fixed->mac;
    hop.source = route.source;
    if (const LinkInfo* link = find_link(fixed->interface)) {
      fill_link(hop, *link, 0);
    } else if (const MirrorPort* port = find_port(fixed->interface)) {
      hop.source_mac = port->mac;
      hop.mtu_bytes = port->mtu_bytes;
    } else {
      path.note = "static neighbour names interface " + fixed->interface + ", which is not there";
      return path;
    }
    finish(path);
    return path;
  }

  void fill_link(NextHop& hop, const LinkInfo& link, std::uint32_t route_mtu) const {
    hop.interface = link.name;
    hop.source_mac = link.mac;
    hop.mtu_bytes = route_mtu != 0 ? std::min(route_mtu, link.mtu_bytes) : link.mtu_bytes;
    const auto below = links.find(link.parent);
    if (link.vlan != 0 && below != links.end()) {
      hop.vlan = link.vlan;
      hop.interface = below->second.name;
    }
  }

  // The MAC is known; is the interface lb-dp's?
  void finish(Path& path) const {
    path.next_hop.resolved = !ports || find_port(path.next_hop.interface) != nullptr;
    if (!path.next_hop.resolved) path.note = "goes by " + path.next_hop.interface + ", which is not a port of lb-dp";
  }

  Path compute(const abi::IpAddress& address, const Wanted& entry, std::optional<NeighbourKey>& neighbour) const {
    const RouteInfo& route = entry.route;
    Path path;
    path.local = route.type == RTN_LOCAL;
    if (path.local) {
      path.note = "the address is this host's own";
      return path;
    }
    if (auto fixed = static_path(address, route)) return *fixed;
    if (route.type != RTN_UNICAST) {
      path.note = "no route";
      if (route.error != 0) path.note += std::string(": ") + std::strerror(route.error);
      return path;
    }
    const auto link = links.find(route.ifindex);
    if (link == links.end()) {
      path.note = "no interface " + std::to_string(route.ifindex);
      return path;
    }
    NextHop& hop = path.next_hop;
    hop.source = route.source;
    fill_link(hop, link->second, route.mtu_bytes);
    const abi::IpAddress next = route.gateway.value_or(address);
    if (const StaticNeighbour* fixed = find_static(next, link->second.name)) {
      hop.mac = fixed->mac;
      finish(path);
      return path;
    }
    if (!link->second.has_mac) {
      path.note = "interface " + link->second.name + " has no Ethernet address";
      return path;
    }
    neighbour = NeighbourKey{route.ifindex, next};
    const auto known = neighbours.find(*neighbour);
    if (known == neighbours.end() || !known->second.has_mac) {
      path.note = "neighbour " + format_address(next) + " on " + link->second.name + " is not resolved";
      return path;
    }
    hop.mac = known->second.mac;
    finish(path);
    return path;
  }

  void update(const abi::IpAddress& address, Wanted& entry) {
    if (!entry.looked_up) return;
    std::optional<NeighbourKey> neighbour;
    Path path = compute(address, entry, neighbour);
    if (neighbour != entry.neighbour) {
      stop_using(address, entry);
      if (neighbour) use(address, *neighbour);
      entry.neighbour = neighbour;
    }
    if (entry.told && path == entry.path) return;
    entry.path = std::move(path);
    entry.told = true;
    changed.insert(address);
  }

  void use(const abi::IpAddress& address, const NeighbourKey& key) {
    auto& sharing = users[key];
    sharing.insert(address);
    if (sharing.size() == 1) to_ask.push_back(key);
  }

  void stop_using(const abi::IpAddress& address, const Wanted& entry) {
    if (!entry.neighbour) return;
    const auto at = users.find(*entry.neighbour);
    at->second.erase(address);
    if (!at->second.empty() || (table && table->gateways.contains(*entry.neighbour))) return;
    users.erase(at);
    forget(*entry.neighbour);
  }

  void forget(const NeighbourKey& key) {
    const auto known = neighbours.find(key);
    if (managed && (known == neighbours.end() || (known->second.state & NUD_PERMANENT) == 0)) to_forget.push_back(key);
  }

  // ---- all routes

  void read_routes() {
    table->stale = false;
    table->neighbours_changed = true;
    table->dumped.clear();
    requests.dump(RTM_GETROUTE, [this](const nlmsghdr* message) {
      auto route = parse_route(message);
      const auto* header = static_cast<const rtmsg*>(mnl_nlmsg_get_payload(message));
      if (!route || (header->rtm_flags & RTM_F_CLONED) != 0) return;
      if (route->table != RT_TABLE_MAIN && route->table != RT_TABLE_LOCAL) return;
      table->dumped.push_back(std::move(*route));
    });
    std::set<NeighbourKey> gateways;
    for (const RouteInfo& route : table->dumped) {
      if (route.type == RTN_UNICAST && route.gateway) gateways.insert({route.ifindex, *route.gateway});
    }
    use_gateways(std::move(gateways));
  }

  // Their neighbours are kept resolved, also while no target needs them.
  void use_gateways(std::set<NeighbourKey> gateways) {
    const std::set<NeighbourKey> before = std::exchange(table->gateways, std::move(gateways));
    for (const NeighbourKey& key : table->gateways) {
      if (users.try_emplace(key).second) to_ask.push_back(key);
    }
    for (const NeighbourKey& key : before) {
      const auto at = users.find(key);
      if (table->gateways.contains(key) || at == users.end() || !at->second.empty()) continue;
      users.erase(at);
      forget(key);
    }
  }

  // The way by a neighbour on a link; not resolved where its MAC is not known.
  [[nodiscard]] NextHop way_by(const LinkInfo& link, const RouteInfo& route, const abi::IpAddress& next) const {
    Path path;
    fill_link(path.next_hop, link, route.mtu_bytes);
    if (const StaticNeighbour* fixed = find_static(next, link.name)) {
      path.next_hop.mac = fixed->mac;
      finish(path);
      return path.next_hop;
    }
    const auto known = neighbours.find({route.ifindex, next});
    if (known == neighbours.end() || !known->second.has_mac) return path.next_hop;
    path.next_hop.mac = known->second.mac;
    finish(path);
    return path.next_hop;
  }

  std::vector<Route> compute_routes() const {
    std::map<AddressPrefix, std::pair<std::uint32_t, Route>> best;  // metric, route
    const auto offer = [&](std::uint32_t metric, const Route& route) {
      const auto [at, is_new] = best.try_emplace(route.prefix, metric, route);
      if (!is_new &&
          (route.local > at->second.second.local || (route.local == at->second.second.local && metric < at->second.first))) {
        at->second = {metric, route};
      }
    };
    for (const RouteInfo& route : table->dumped) {
      const auto link = links.find(route.ifindex);
      if (route.type == RTN_LOCAL || route.type == RTN_BROADCAST || route.type == RTN_MULTICAST ||
          route.type == RTN_ANYCAST) {
        offer(0, {route.destination, {}, true});
      } else if (route.type != RTN_UNICAST || link == links.end()) {
        offer(route.metric, {route.destination, {}, false});  // the kernel refuses it, as it is told to
      } else if (route.gateway) {
        offer(route.metric, {route.destination, way_by(link->second, route, *route.gateway), false});
      } else {
        offer(route.metric, {route.destination, {}, false});
        offer_hosts(route, link->second, offer);
      }
    }
    std::vector<Route> all;
    all.reserve(best.size());
    for (auto& [prefix, item] : best) all.push_back(std::move(item.second));
    return all;
  }

  // The hosts of a connected network whose MAC addresses are known.
  template <typename Offer>
  void offer_hosts(const RouteInfo& route, const LinkInfo& link, const Offer& offer) const {
    const auto host = [&](const abi::IpAddress& address) {
      if (!contains(route.destination, address)) return;
      const NextHop way = way_by(link, route, address);
      if (way.resolved) offer(route.metric, {{address, 128}, way, false});
    };
    for (auto at = neighbours.lower_bound({route.ifindex, abi::IpAddress{}});
         at != neighbours.end() && at->first.first == route.ifindex; ++at) {
      host(at->first.second);
    }
    for (const StaticNeighbour& neighbour : statics) {
      if (neighbour.interface.empty() || neighbour.interface == link.name) host(neighbour.address);
    }
  }

  // Tells the kernel, many at a time, what use() and stop_using() have found.
  void tell_kernel() {
    std::erase_if(to_forget, [this](const NeighbourKey& key) { return users.contains(key); });
    requests.forget_neighbours(std::exchange(to_forget, {}));
    std::vector<NeighbourKey> keys = std::exchange(to_ask, {});
    std::erase_if(keys, [this](const NeighbourKey& key) {
      const auto known = neighbours.find(key);
      return !users.contains(key) || (known != neighbours.end() && (known->second.state & (NUD_PERMANENT | NUD_NOARP)) != 0);
    });
    std::vector<int> errors = requests.use_neighbours(keys, managed);
    const auto unknown = [](int error) { return error == EINVAL || error == EOPNOTSUPP || error == ENOTSUP; };
    if (managed && std::ranges::any_of(errors, unknown)) {
      managed = false;
      errors = requests.use_neighbours(keys, false);
    }
    for (std::size_t i = 0; i < keys.size(); ++i) {
      if (errors[i] != 0) ask_again.insert(keys[i]);  // interface down or going away
    }
  }

  bool step() {
    if (table && table->stale) {
      read_routes();
      tell_kernel();
    }
    const std::size_t count = std::min(kStep, to_look_up.size());
    if (count == 0) return false;
    std::vector<abi::IpAddress> batch(to_look_up.begin(), to_look_up.begin() + static_cast<std::ptrdiff_t>(count));
    to_look_up.erase(to_look_up.begin(), to_look_up.begin() + static_cast<std::ptrdiff_t>(count));
    const std::vector<RouteInfo> routes = requests.routes(batch);
    for (std::size_t i = 0; i < count; ++i) {
      const auto at = wanted.find(batch[i]);
      if (at == wanted.end()) continue;
      at->second.route = routes[i];
      at->second.looked_up = true;
      update(at->first, at->second);
    }
    tell_kernel();
    return !to_look_up.empty();
  }
};

RouteMirror::RouteMirror(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RouteMirror::~RouteMirror() = default;

tl::expected<std::unique_ptr<RouteMirror>, std::string> RouteMirror::open() {
  try {
    auto impl = std::make_unique<Impl>();
    impl->read_all();
    return std::unique_ptr<RouteMirror>(new RouteMirror(std::move(impl)));
  } catch (const std::system_error& error) {
    return tl::unexpected(std::string(error.what()));
  }
}

void RouteMirror::want(const std::vector<abi::IpAddress>& addresses) {
  auto at = impl_->wanted.begin();
  const auto drop_until = [&](const auto& wanted) {
    while (at != impl_->wanted.end() && !wanted(at->first)) {
      impl_->stop_using(at->first, at->second);
      impl_->changed.erase(at->first);
      at = impl_->wanted.erase(at);
    }
  };
  for (const abi::IpAddress& address : addresses) {
    drop_until([&](const abi::IpAddress& known) { return known >= address; });
    if (at == impl_->wanted.end() || at->first != address) {
      at = impl_->wanted.try_emplace(at, address);
      impl_->to_look_up.push_back(address);
    }
    ++at;
  }
  drop_until([](const abi::IpAddress&) { return false; });
  impl_->tell_kernel();
}

void RouteMirror::set_static(std::vector<StaticNeighbour> neighbours) {
  if (neighbours == impl_->statics) return;
  impl_->statics = std::move(neighbours);
  if (impl_->table) impl_->table->neighbours_changed = true;
  for (auto& [address, entry] : impl_->wanted) impl_->update(address, entry);
  impl_->tell_kernel();
}

void RouteMirror::set_ports(std::optional<std::vector<MirrorPort>> ports) {
  impl_->ports = std::move(ports);
  if (impl_->table) impl_->table->neighbours_changed = true;
  for (auto& [address, entry] : impl_->wanted) impl_->update(address, entry);
  impl_->tell_kernel();
}

int RouteMirror::fd() const {
  return impl_->events.fd();
}

void RouteMirror::on_readable() {
  if (!impl_->events.read([this](const nlmsghdr* message) { impl_->take_event(message); })) impl_->events_lost = true;
}

bool RouteMirror::step() {
  return impl_->step();
}

void RouteMirror::tick(std::chrono::steady_clock::time_point now) {
  if (std::exchange(impl_->events_lost, false)) impl_->read_all();
  for (const NeighbourKey& key : std::exchange(impl_->ask_again, {})) {
    if (impl_->users.contains(key)) impl_->to_ask.push_back(key);
  }
  if (impl_->managed || now - impl_->refreshed < kRefresh) return impl_->tell_kernel();
  impl_->refreshed = now;
  for (const auto& [key, sharing] : impl_->users) {
    const auto known = impl_->neighbours.find(key);
    if (known == impl_->neighbours.end() || (known->second.state & NUD_REACHABLE) == 0) impl_->to_ask.push_back(key);
  }
  impl_->tell_kernel();
}

std::vector<std::pair<abi::IpAddress, Path>> RouteMirror::take_changes() {
  std::vector<std::pair<abi::IpAddress, Path>> changes;
  changes.reserve(impl_->changed.size());
  // Both are sorted: where most have changed, the next one stands beside the last.
  auto at = impl_->wanted.begin();
  for (const abi::IpAddress& address : impl_->changed) {
    if (at == impl_->wanted.end() || at->first != address) at = impl_->wanted.find(address);
    changes.emplace_back(address, (at++)->second.path);
  }
  impl_->changed.clear();
  return changes;
}

void RouteMirror::want_routes(bool wanted) {
  if (wanted == (impl_->table != nullptr)) return;
  if (wanted) {
    impl_->table = std::make_unique<RouteTable>();
    return;
  }
  impl_->use_gateways({});
  impl_->table.reset();
  impl_->tell_kernel();
}

std::optional<std::vector<Route>> RouteMirror::take_routes() {
  std::vector<Route> now;
  if (impl_->table) {
    if (!impl_->table->neighbours_changed) return std::nullopt;
    impl_->table->neighbours_changed = false;
    now = impl_->compute_routes();
  }
  if (now == impl_->routes_told) return std::nullopt;
  impl_->routes_told = now;
  return now;
}

bool RouteMirror::managed() const {
  return impl_->managed;
}

}  // namespace lb::cp
