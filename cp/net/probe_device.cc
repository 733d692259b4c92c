#include "cp/net/probe_device.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/fib_rules.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/ip.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <utility>

namespace lb::cp {
namespace {

constexpr std::uint32_t kMtuBytes = 1280;     // with an outer header it fits any way
constexpr std::uint32_t kTable = 27746;       // of the route that IPv6 sockets on the device take; also the rule's priority
constexpr std::uint32_t kDummy = 0xc0000008;  // 192.0.0.8, which names no host (RFC 7600 §4.8)

tl::unexpected<SystemError> failed(const char* what) {
  const int number = errno;
  return tl::unexpected(SystemError{number, std::string("tunnel probes: ") + what + ": " + std::strerror(number)});
}

using Build = std::function<void(nlmsghdr*)>;

// One request, and the kernel's answer: errno.
int ask(std::uint16_t type, unsigned flags, const Build& build) {
  mnl_socket* socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
  if (socket == nullptr) return errno;
  std::array<char, 1024> space{};
  nlmsghdr* request = mnl_nlmsg_put_header(space.data());
  request->nlmsg_type = type;
  request->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | NLM_F_ACK | flags);
  build(request);
  std::array<char, 4096> answer{};
  ssize_t n = -1;
  if (mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) == 0 && mnl_socket_sendto(socket, request, request->nlmsg_len) >= 0)
    n = mnl_socket_recvfrom(socket, answer.data(), answer.size());
  const bool done = n >= 0 && mnl_cb_run(answer.data(), static_cast<std::size_t>(n), 0, 0, nullptr, nullptr) >= 0;
  const int error = done ? 0 : errno;
  mnl_socket_close(socket);
  return error;
}

// Up; takes packets whose source is an address of this host, and asks no reverse path.
int set_up_link(std::uint32_t ifindex) {
  return ask(RTM_NEWLINK, 0, [&](nlmsghdr* request) {
    auto* link = static_cast<ifinfomsg*>(mnl_nlmsg_put_extra_header(request, sizeof(ifinfomsg)));
    link->ifi_index = static_cast<int>(ifindex);
    link->ifi_flags = link->ifi_change = IFF_UP;
    mnl_attr_put_u32(request, IFLA_MTU, kMtuBytes);
    nlattr* families = mnl_attr_nest_start(request, IFLA_AF_SPEC);
    nlattr* ipv4 = mnl_attr_nest_start(request, AF_INET);
    nlattr* settings = mnl_attr_nest_start(request, IFLA_INET_CONF);
    mnl_attr_put_u32(request, IPV4_DEVCONF_RP_FILTER, 0);
    mnl_attr_put_u32(request, IPV4_DEVCONF_ACCEPT_LOCAL, 1);
    mnl_attr_nest_end(request, settings);
    mnl_attr_nest_end(request, ipv4);
    mnl_attr_nest_end(request, families);
  });
}

// Without any address a loose reverse-path check (`all` = 2) would refuse every packet.
int add_address(std::uint32_t ifindex) {
  return ask(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, [&](nlmsghdr* request) {
    auto* address = static_cast<ifaddrmsg*>(mnl_nlmsg_put_extra_header(request, sizeof(ifaddrmsg)));
    address->ifa_family = AF_INET;
    address->ifa_prefixlen = 32;
    address->ifa_scope = RT_SCOPE_HOST;
    address->ifa_index = ifindex;
    mnl_attr_put_u32(request, IFA_LOCAL, htonl(kDummy));
  });
}

// IPv4 takes what is bound to a device for on-link; IPv6 wants a route, which is nobody else's in a table of its own.
int add_ipv6_route(std::uint32_t ifindex) {
  return ask(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, [&](nlmsghdr* request) {
    auto* route = static_cast<rtmsg*>(mnl_nlmsg_put_extra_header(request, sizeof(rtmsg)));
    route->rtm_family = AF_INET6;
    route->rtm_protocol = RTPROT_STATIC;
    route->rtm_scope = RT_SCOPE_UNIVERSE;
    route->rtm_type = RTN_UNICAST;
    mnl_attr_put_u32(request, RTA_OIF, ifindex);
    mnl_attr_put_u32(request, RTA_TABLE, kTable);
  });
}

int change_ipv6_rule(std::uint16_t type, unsigned flags, const char* device) {
  return ask(type, flags, [&](nlmsghdr* request) {
    auto* rule = static_cast<fib_rule_hdr*>(mnl_nlmsg_put_extra_header(request, sizeof(fib_rule_hdr)));
    rule->family = AF_INET6;
    rule->action = FR_ACT_TO_TBL;
    mnl_attr_put_strz(request, FRA_OIFNAME, device);
    mnl_attr_put_u32(request, FRA_PRIORITY, kTable);
    mnl_attr_put_u32(request, FRA_TABLE, kTable);
  });
}

std::string prepare_ipv6(std::uint32_t ifindex, const char* device) {
  if (const int error = add_ipv6_route(ifindex); error != 0) return std::string("IPv6 route: ") + std::strerror(error);
  const int error = change_ipv6_rule(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, device);
  return error == 0 || error == EEXIST ? "" : std::string("IPv6 rule: ") + std::strerror(error);
}

}  // namespace

tl::expected<ProbeDevice, SystemError> ProbeDevice::open(const char* name) {
  ProbeDevice device;
  device.fd_ = ::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (device.fd_ < 0) return failed("/dev/net/tun");
  ifreq request{};
  std::strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  request.ifr_flags = IFF_TUN | IFF_NO_PI;
  if (ioctl(device.fd_, TUNSETIFF, &request) != 0) return failed(name);
  device.ifindex_ = if_nametoindex(name);
  if (device.ifindex_ == 0) return failed(name);
  for (const int error : {set_up_link(device.ifindex_), add_address(device.ifindex_)}) {
    if (error == 0) continue;
    errno = error;
    return failed(name);
  }
  device.ipv6_error_ = prepare_ipv6(device.ifindex_, name);
  return device;
}

ProbeDevice::ProbeDevice(ProbeDevice&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      ifindex_(std::exchange(other.ifindex_, 0)),
      ipv6_error_(std::move(other.ipv6_error_)) {}

ProbeDevice::~ProbeDevice() {
  if (fd_ < 0) return;
  std::array<char, IF_NAMESIZE> name{};
  if (ifindex_ != 0 && if_indextoname(ifindex_, name.data()) != nullptr) change_ipv6_rule(RTM_DELRULE, 0, name.data());
  close(fd_);
}

}  // namespace lb::cp
