// The ways to targets, mirrored from the kernel: route, interface, next hop's MAC. No routing or ARP stack of our own; the
// kernel decides and this class asks and listens (rtnetlink).
//
//   want(addresses) ─▶ RTM_GETROUTE each ─▶ (interface, next hop) ─▶ neighbour entry ─▶ Path ─▶ take_changes()
//                          ▲ again after route, address and link events      ▲ neighbour events
//
//   want_routes() ─▶ dump of routes, anew after events ─▶ with the neighbours of gateways and connected hosts ─▶
//   take_routes()
//
// Neighbours in use are made *managed* (NTF_EXT_MANAGED): the kernel keeps them resolved without traffic. A kernel that
// cannot do that is asked again every kRefresh. A MAC once known is held until there is a new one or the kernel says the
// neighbour has failed. Static neighbours win over the kernel's.
//
// Thread: one, the controller's. Nothing blocks but single netlink requests, which the kernel answers at once. Neighbour
// entries stay in the kernel when the process ends: lb-dp goes on forwarding by them.
#pragma once

#include <endian.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <utility>
#include <vector>

#include "cp/model/model.h"

namespace lb::cp {

// As IpAddress's own order, by two words instead of sixteen bytes: there may be a hundred thousand addresses.
struct AddressOrder {
  bool operator()(const abi::IpAddress& a, const abi::IpAddress& b) const {
    const std::uint64_t first_a = word(a, 0);
    const std::uint64_t first_b = word(b, 0);
    return first_a != first_b ? first_a < first_b : word(a, 8) < word(b, 8);
  }

 private:
  static std::uint64_t word(const abi::IpAddress& address, std::size_t at) {
    std::uint64_t value = 0;
    std::memcpy(&value, address.bytes.data() + at, sizeof value);
    return be64toh(value);
  }
};

// The way to one address.
struct Path {
  NextHop next_hop;
  bool local = false;  // the address is this host's own
  std::string
      note;  // why it is not resolved: "no route: Network is unreachable", "goes by eth9, which is not a port of lb-dp"
  bool operator==(const Path&) const = default;
};

// An interface lb-dp can send by.
struct MirrorPort {
  std::string name;
  std::uint32_t ifindex = 0;  // 0: no kernel interface beside it
  abi::MacAddress mac{};
  std::uint32_t mtu_bytes = 1500;
};

class RouteMirror {
 public:
  static constexpr std::chrono::seconds kRefresh{5};

  // Opens netlink in the network namespace of the calling thread and reads links and neighbours. Errors: the system's.
  static tl::expected<std::unique_ptr<RouteMirror>, std::string> open();
  ~RouteMirror();
  RouteMirror(const RouteMirror&) = delete;
  RouteMirror& operator=(const RouteMirror&) = delete;

  // The addresses that are wanted, replacing those before. Sorted, each once.
  void want(const std::vector<abi::IpAddress>& addresses);
  void set_static(std::vector<StaticNeighbour> neighbours);
  // What lb-dp told; nullopt (lb-dp not seen yet): any interface will do.
  void set_ports(std::optional<std::vector<MirrorPort>> ports);

  [[nodiscard]] int fd() const;  // readable: call on_readable()
  void on_readable();
  // Asks the kernel about up to kStep addresses. True: there are more, call again.
  bool step();
  // Once a second or so, followed by step(): asks for neighbours that the kernel does not keep resolved by itself, and reads
  // everything anew if events were lost.
  void tick(std::chrono::steady_clock::time_point now);

  // Paths that changed since the last call.
  std::vector<std::pair<abi::IpAddress, Path>> take_changes();
  // Whether all of the kernel's routes are wanted: its main and local tables, and hosts of connected networks that it knows.
  void want_routes(bool wanted);
  // The routes if they have changed since the last call: sorted by prefix, each once, a connected network's hosts as
  // prefixes of their own. Of several routes to a prefix that of the least metric, of equal ways the first.
  std::optional<std::vector<Route>> take_routes();
  // Whether the kernel keeps neighbours resolved (NTF_EXT_MANAGED).
  [[nodiscard]] bool managed() const;

 private:
  struct Impl;
  explicit RouteMirror(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace lb::cp
