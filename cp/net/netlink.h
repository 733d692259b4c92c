// rtnetlink messages as plain structs, over libmnl. Private to cp/net.
#pragma once

#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cp/model/model.h"

struct mnl_socket;

namespace lb::cp {

struct LinkInfo {
  std::uint32_t ifindex = 0;
  std::string name;
  abi::MacAddress mac{};
  bool has_mac = false;
  std::uint32_t mtu_bytes = 1500;
  std::uint16_t vlan = 0;    // of a VLAN device
  std::uint32_t parent = 0;  // of a VLAN device: the interface below
};

struct NeighbourInfo {
  std::uint32_t ifindex = 0;
  abi::IpAddress address;
  abi::MacAddress mac{};
  bool has_mac = false;
  std::uint16_t state = 0;  // NUD_*
};

using NeighbourKey = std::pair<std::uint32_t, abi::IpAddress>;  // interface, next hop

struct RouteInfo {
  std::uint32_t table = 0;    // RT_TABLE_*
  AddressPrefix destination;  // of a dump
  std::uint32_t metric = 0;
  std::uint8_t type = 0;  // RTN_*; RTN_UNSPEC: none, see error
  int error = 0;          // errno
  std::uint32_t ifindex = 0;
  std::optional<abi::IpAddress> gateway;
  abi::IpAddress source;        // zero: none
  std::uint32_t mtu_bytes = 0;  // of the route; 0: none
};

// An address of this host.
struct HostAddress {
  std::uint32_t ifindex = 0;
  abi::IpAddress address;
  std::uint8_t scope = 0;   // RT_SCOPE_*
  std::uint32_t flags = 0;  // IFA_F_*
};

// nullopt: not a message of that kind, or of a family that is neither IPv4 nor IPv6.
std::optional<LinkInfo> parse_link(const nlmsghdr* message);
std::optional<NeighbourInfo> parse_neighbour(const nlmsghdr* message);
std::optional<RouteInfo> parse_route(const nlmsghdr* message);
std::optional<HostAddress> parse_address(const nlmsghdr* message);

// A socket for requests; every call waits for the kernel's answer.
class NetlinkRequests {
 public:
  NetlinkRequests();  // throws std::system_error
  ~NetlinkRequests();
  NetlinkRequests(const NetlinkRequests&) = delete;
  NetlinkRequests& operator=(const NetlinkRequests&) = delete;

  using OnMessage = std::function<void(const nlmsghdr*)>;
  void dump(std::uint16_t type, const OnMessage& on_message);  // RTM_GETLINK, …NEIGH, …ROUTE or …ADDR
  // One answer per address, same order.
  std::vector<RouteInfo> routes(std::span<const abi::IpAddress> addresses);
  // Makes the kernel resolve neighbours: and keep them so (`managed`), or once. Errno of each, same order; 0: it took it.
  std::vector<int> use_neighbours(std::span<const NeighbourKey> keys, bool managed);
  // Withdraws what use_neighbours(…, managed) made.
  void forget_neighbours(std::span<const NeighbourKey> keys);

 private:
  // Writes request `index` where it is told; the sequence number is put in afterwards.
  using Write = std::function<nlmsghdr*(char*, std::size_t index)>;
  using OnAnswer = std::function<void(std::size_t index, const nlmsghdr*)>;
  // Sends `count` requests, many at a time, and hands on the one answer of each.
  void exchange(std::size_t count, const Write& write, const OnAnswer& on_answer);

  mnl_socket* socket_ = nullptr;
  std::uint32_t sequence_ = 0;
  std::vector<char> buffer_;
};

// A non-blocking socket that hears of changes to links, neighbours, addresses and routes.
class NetlinkEvents {
 public:
  NetlinkEvents();  // throws std::system_error
  ~NetlinkEvents();
  NetlinkEvents(const NetlinkEvents&) = delete;
  NetlinkEvents& operator=(const NetlinkEvents&) = delete;

  [[nodiscard]] int fd() const;
  // Hands on everything there is. False: some were lost, read everything anew.
  bool read(const std::function<void(const nlmsghdr*)>& on_message);

 private:
  mnl_socket* socket_ = nullptr;
  std::vector<char> buffer_;
};

}  // namespace lb::cp
