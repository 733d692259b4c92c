#include "cp/net/netlink.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <net/if.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace lb::cp {
namespace {

constexpr std::size_t kBufferBytes = 64 * 1024;
constexpr std::size_t kRequestsPerSend = 32;  // answers that fit a default receive buffer many times over
constexpr std::size_t kMostRequestBytes = 64;

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

using Attributes = std::array<const nlattr*, 128>;

int collect(const nlattr* attribute, void* into) {
  auto& all = *static_cast<Attributes*>(into);
  const std::uint16_t type = mnl_attr_get_type(attribute);
  if (type < all.size()) all[type] = attribute;
  return MNL_CB_OK;
}

std::optional<abi::IpAddress> address_of(const nlattr* attribute, std::uint8_t family) {
  if (attribute == nullptr) return std::nullopt;
  const auto* bytes = static_cast<const std::uint8_t*>(mnl_attr_get_payload(attribute));
  const std::size_t size = mnl_attr_get_payload_len(attribute);
  if (family == AF_INET && size == 4) return abi::IpAddress::v4(bytes[0], bytes[1], bytes[2], bytes[3]);
  if (family == AF_INET6 && size == 16) {
    abi::IpAddress address;
    std::copy_n(bytes, 16, address.bytes.begin());
    return address;
  }
  return std::nullopt;
}

bool mac_of(const nlattr* attribute, abi::MacAddress& mac) {
  if (attribute == nullptr || mnl_attr_get_payload_len(attribute) != mac.size()) return false;
  std::memcpy(mac.data(), mnl_attr_get_payload(attribute), mac.size());
  return true;
}

std::uint32_t u32_of(const nlattr* attribute) {
  return attribute != nullptr && mnl_attr_get_payload_len(attribute) == 4 ? mnl_attr_get_u32(attribute) : 0;
}

std::uint8_t family_of(const abi::IpAddress& address) {
  return address.is_v4() ? AF_INET : AF_INET6;
}

void put_address(nlmsghdr* message, std::uint16_t type, const abi::IpAddress& address) {
  const std::size_t skip = address.is_v4() ? 12 : 0;
  mnl_attr_put(message, type, 16 - skip, address.bytes.data() + skip);
}

// NLMSG_ERROR's errno; 0: an acknowledgement, or something else.
int error_of(const nlmsghdr* answer) {
  return answer->nlmsg_type == NLMSG_ERROR ? -static_cast<const nlmsgerr*>(mnl_nlmsg_get_payload(answer))->error : 0;
}

nlmsghdr* put_neighbour(char* space, const NeighbourKey& key, std::uint16_t type, unsigned flags) {
  nlmsghdr* request = mnl_nlmsg_put_header(space);
  request->nlmsg_type = type;
  request->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | NLM_F_ACK | flags);
  auto* header = static_cast<ndmsg*>(mnl_nlmsg_put_extra_header(request, sizeof(ndmsg)));
  header->ndm_family = family_of(key.second);
  header->ndm_ifindex = static_cast<int>(key.first);
  put_address(request, NDA_DST, key.second);
  return request;
}

mnl_socket* open_socket(int flags, unsigned groups) {
  mnl_socket* socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | flags);
  if (socket == nullptr) fail("netlink socket");
  if (mnl_socket_bind(socket, groups, MNL_SOCKET_AUTOPID) < 0) {
    const int error = errno;
    mnl_socket_close(socket);
    errno = error;
    fail("netlink bind");
  }
  return socket;
}

constexpr unsigned group_bit(unsigned group) {
  return 1U << (group - 1);
}

}  // namespace

std::optional<LinkInfo> parse_link(const nlmsghdr* message) {
  if (message->nlmsg_type != RTM_NEWLINK && message->nlmsg_type != RTM_DELLINK) return std::nullopt;
  const auto* header = static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(message));
  if (header->ifi_family != AF_UNSPEC) return std::nullopt;  // a bridge's view of a port
  Attributes at{};
  mnl_attr_parse(message, sizeof *header, collect, &at);
  LinkInfo link;
  link.ifindex = static_cast<std::uint32_t>(header->ifi_index);
  if (at[IFLA_IFNAME] != nullptr) link.name = mnl_attr_get_str(at[IFLA_IFNAME]);
  link.has_mac = mac_of(at[IFLA_ADDRESS], link.mac);
  if (at[IFLA_MTU] != nullptr) link.mtu_bytes = u32_of(at[IFLA_MTU]);
  if (at[IFLA_LINKINFO] != nullptr) {
    Attributes info{};
    mnl_attr_parse_nested(at[IFLA_LINKINFO], collect, &info);
    if (info[IFLA_INFO_KIND] != nullptr && std::strcmp(mnl_attr_get_str(info[IFLA_INFO_KIND]), "vlan") == 0 &&
        info[IFLA_INFO_DATA] != nullptr) {
      Attributes data{};
      mnl_attr_parse_nested(info[IFLA_INFO_DATA], collect, &data);
      if (data[IFLA_VLAN_ID] != nullptr) link.vlan = mnl_attr_get_u16(data[IFLA_VLAN_ID]);
      link.parent = u32_of(at[IFLA_LINK]);
    }
  }
  return link;
}

std::optional<NeighbourInfo> parse_neighbour(const nlmsghdr* message) {
  if (message->nlmsg_type != RTM_NEWNEIGH && message->nlmsg_type != RTM_DELNEIGH) return std::nullopt;
  const auto* header = static_cast<const ndmsg*>(mnl_nlmsg_get_payload(message));
  Attributes at{};
  mnl_attr_parse(message, sizeof *header, collect, &at);
  const auto address = address_of(at[NDA_DST], header->ndm_family);
  if (!address) return std::nullopt;
  NeighbourInfo neighbour;
  neighbour.ifindex = static_cast<std::uint32_t>(header->ndm_ifindex);
  neighbour.address = *address;
  neighbour.has_mac = mac_of(at[NDA_LLADDR], neighbour.mac);
  neighbour.state = header->ndm_state;
  return neighbour;
}

std::optional<HostAddress> parse_address(const nlmsghdr* message) {
  if (message->nlmsg_type != RTM_NEWADDR && message->nlmsg_type != RTM_DELADDR) return std::nullopt;
  const auto* header = static_cast<const ifaddrmsg*>(mnl_nlmsg_get_payload(message));
  Attributes at{};
  mnl_attr_parse(message, sizeof *header, collect, &at);
  const auto address = address_of(at[at[IFA_LOCAL] != nullptr ? IFA_LOCAL : IFA_ADDRESS], header->ifa_family);
  if (!address) return std::nullopt;
  return HostAddress{header->ifa_index, *address, header->ifa_scope,
                     at[IFA_FLAGS] != nullptr ? u32_of(at[IFA_FLAGS]) : header->ifa_flags};
}

std::optional<RouteInfo> parse_route(const nlmsghdr* message) {
  if (message->nlmsg_type != RTM_NEWROUTE && message->nlmsg_type != RTM_DELROUTE) return std::nullopt;
  const auto* header = static_cast<const rtmsg*>(mnl_nlmsg_get_payload(message));
  Attributes at{};
  mnl_attr_parse(message, sizeof *header, collect, &at);
  RouteInfo route;
  route.type = header->rtm_type;
  route.table = at[RTA_TABLE] != nullptr ? u32_of(at[RTA_TABLE]) : header->rtm_table;
  route.metric = u32_of(at[RTA_PRIORITY]);
  const bool v4 = header->rtm_family == AF_INET;
  const abi::IpAddress any = v4 ? abi::IpAddress::v4(0, 0, 0, 0) : abi::IpAddress{};
  route.destination = {address_of(at[RTA_DST], header->rtm_family).value_or(any),
                       static_cast<std::uint8_t>(header->rtm_dst_len + (v4 ? 96 : 0))};
  route.ifindex = u32_of(at[RTA_OIF]);
  route.gateway = address_of(at[RTA_GATEWAY], header->rtm_family);
  if (const nlattr* via = at[RTA_VIA]; via != nullptr && mnl_attr_get_payload_len(via) == sizeof(std::uint16_t) + 16) {
    // An IPv4 route by an IPv6 next hop: family, then the address.
    route.gateway.emplace();
    std::memcpy(route.gateway->bytes.data(), static_cast<const char*>(mnl_attr_get_payload(via)) + sizeof(std::uint16_t),
                16);
  }
  if (const nlattr* hops = at[RTA_MULTIPATH]; hops != nullptr && mnl_attr_get_payload_len(hops) >= sizeof(rtnexthop)) {
    // Of several equal ways the first.
    const auto* hop = static_cast<const rtnexthop*>(mnl_attr_get_payload(hops));
    route.ifindex = static_cast<std::uint32_t>(hop->rtnh_ifindex);
    Attributes of_hop{};
    if (hop->rtnh_len > sizeof *hop && hop->rtnh_len <= mnl_attr_get_payload_len(hops)) {
      mnl_attr_parse_payload(hop + 1, hop->rtnh_len - sizeof *hop, collect, &of_hop);
    }
    route.gateway = address_of(of_hop[RTA_GATEWAY], header->rtm_family);
  }
  route.source = address_of(at[RTA_PREFSRC], header->rtm_family).value_or(abi::IpAddress{});
  if (at[RTA_METRICS] != nullptr) {
    Attributes metrics{};
    mnl_attr_parse_nested(at[RTA_METRICS], collect, &metrics);
    route.mtu_bytes = u32_of(metrics[RTAX_MTU]);
  }
  return route;
}

NetlinkRequests::NetlinkRequests() : buffer_(kBufferBytes) {
  socket_ = open_socket(0, 0);
  const timeval limit{2, 0};  // the kernel answers at once; never hang if it does not
  setsockopt(mnl_socket_get_fd(socket_), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
}

NetlinkRequests::~NetlinkRequests() {
  mnl_socket_close(socket_);
}

void NetlinkRequests::dump(std::uint16_t type, const OnMessage& on_message) {
  std::array<char, 256> space{};
  nlmsghdr* request = mnl_nlmsg_put_header(space.data());
  request->nlmsg_type = type;
  request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request->nlmsg_seq = ++sequence_;
  const std::size_t header = type == RTM_GETLINK    ? sizeof(ifinfomsg)
                             : type == RTM_GETROUTE ? sizeof(rtmsg)
                             : type == RTM_GETADDR  ? sizeof(ifaddrmsg)
                                                    : sizeof(ndmsg);
  mnl_nlmsg_put_extra_header(request, header);
  if (mnl_socket_sendto(socket_, request, request->nlmsg_len) < 0) fail("netlink send");
  for (;;) {
    const ssize_t n = mnl_socket_recvfrom(socket_, buffer_.data(), buffer_.size());
    if (n < 0) fail("netlink receive");
    int left = static_cast<int>(n);
    for (auto* at = reinterpret_cast<const nlmsghdr*>(buffer_.data()); mnl_nlmsg_ok(at, left);
         at = mnl_nlmsg_next(at, &left)) {
      if (at->nlmsg_seq != sequence_) continue;
      if (at->nlmsg_type == NLMSG_DONE || at->nlmsg_type == NLMSG_ERROR) return;
      on_message(at);
    }
  }
}

void NetlinkRequests::exchange(std::size_t count, const Write& write, const OnAnswer& on_answer) {
  std::vector<char> space(kRequestsPerSend * kMostRequestBytes);
  for (std::size_t first = 0; first < count; first += kRequestsPerSend) {
    const std::size_t sent = std::min(kRequestsPerSend, count - first);
    const std::uint32_t base = sequence_ + 1;
    std::size_t used = 0;
    for (std::size_t i = 0; i < sent; ++i) {
      nlmsghdr* request = write(space.data() + used, first + i);
      request->nlmsg_seq = ++sequence_;
      used += MNL_ALIGN(request->nlmsg_len);
    }
    if (mnl_socket_sendto(socket_, space.data(), used) < 0) fail("netlink send");
    for (std::size_t answered = 0; answered < sent;) {
      const ssize_t n = mnl_socket_recvfrom(socket_, buffer_.data(), buffer_.size());
      if (n < 0) fail("netlink receive");
      int left = static_cast<int>(n);
      for (auto* at = reinterpret_cast<const nlmsghdr*>(buffer_.data()); mnl_nlmsg_ok(at, left);
           at = mnl_nlmsg_next(at, &left)) {
        const std::size_t index = at->nlmsg_seq - base;
        if (index >= sent) continue;
        on_answer(first + index, at);
        ++answered;
      }
    }
  }
}

std::vector<RouteInfo> NetlinkRequests::routes(std::span<const abi::IpAddress> addresses) {
  std::vector<RouteInfo> answers(addresses.size());
  const auto write = [&](char* space, std::size_t i) {
    const abi::IpAddress& address = addresses[i];
    nlmsghdr* request = mnl_nlmsg_put_header(space);
    request->nlmsg_type = RTM_GETROUTE;
    request->nlmsg_flags = NLM_F_REQUEST;
    auto* header = static_cast<rtmsg*>(mnl_nlmsg_put_extra_header(request, sizeof(rtmsg)));
    header->rtm_family = family_of(address);
    header->rtm_dst_len = address.is_v4() ? 32 : 128;
    put_address(request, RTA_DST, address);
    return request;
  };
  exchange(addresses.size(), write, [&](std::size_t i, const nlmsghdr* answer) {
    if (const int error = error_of(answer); error != 0) {
      answers[i].error = error;
    } else if (auto route = parse_route(answer)) {
      answers[i] = *route;
    }
  });
  return answers;
}

std::vector<int> NetlinkRequests::use_neighbours(std::span<const NeighbourKey> keys, bool managed) {
  std::vector<int> errors(keys.size());
  const auto write = [&](char* space, std::size_t i) {
    nlmsghdr* request = put_neighbour(space, keys[i], RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE);
    // Learned by a control plane: the kernel does not collect it as garbage.
    static_cast<ndmsg*>(mnl_nlmsg_get_payload(request))->ndm_flags = managed ? NTF_EXT_LEARNED : NTF_USE;
    if (managed) mnl_attr_put_u32(request, NDA_FLAGS_EXT, NTF_EXT_MANAGED);
    return request;
  };
  exchange(keys.size(), write, [&](std::size_t i, const nlmsghdr* answer) { errors[i] = error_of(answer); });
  return errors;
}

void NetlinkRequests::forget_neighbours(std::span<const NeighbourKey> keys) {
  const auto write = [&](char* space, std::size_t i) { return put_neighbour(space, keys[i], RTM_DELNEIGH, 0); };
  exchange(keys.size(), write, [](std::size_t, const nlmsghdr*) {});
}

NetlinkEvents::NetlinkEvents() : buffer_(kBufferBytes) {
  socket_ = open_socket(SOCK_NONBLOCK, group_bit(RTNLGRP_LINK) | group_bit(RTNLGRP_NEIGH) | group_bit(RTNLGRP_IPV4_IFADDR) |
                                           group_bit(RTNLGRP_IPV6_IFADDR) | group_bit(RTNLGRP_IPV4_ROUTE) |
                                           group_bit(RTNLGRP_IPV6_ROUTE));
  const int bytes = 4 << 20;
  setsockopt(fd(), SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
}

NetlinkEvents::~NetlinkEvents() {
  mnl_socket_close(socket_);
}

int NetlinkEvents::fd() const {
  return mnl_socket_get_fd(socket_);
}

bool NetlinkEvents::read(const std::function<void(const nlmsghdr*)>& on_message) {
  bool complete = true;
  for (;;) {
    const ssize_t n = mnl_socket_recvfrom(socket_, buffer_.data(), buffer_.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == ENOBUFS || errno == ENOSPC)) {
      complete = false;  // the kernel has dropped some
      continue;
    }
    if (n <= 0) return complete;
    int left = static_cast<int>(n);
    for (auto* at = reinterpret_cast<const nlmsghdr*>(buffer_.data()); mnl_nlmsg_ok(at, left);
         at = mnl_nlmsg_next(at, &left)) {
      on_message(at);
    }
  }
}

}  // namespace lb::cp
