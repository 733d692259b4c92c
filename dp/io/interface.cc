#include "dp/io/interface.h"

#include <ifaddrs.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

namespace lb::io {
namespace {

// An ifreq for one interface and the socket to ask with.
class Request {
 public:
  explicit Request(const std::string& name) : socket_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    name.copy(ifreq_.ifr_name, IFNAMSIZ - 1);
  }
  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;
  ~Request() {
    if (socket_ >= 0) ::close(socket_);
  }
  bool run(unsigned long what) { return ::ioctl(socket_, what, &ifreq_) == 0; }
  ifreq& operator*() { return ifreq_; }
  ifreq* operator->() { return &ifreq_; }

 private:
  ifreq ifreq_{};
  int socket_;
};

tl::unexpected<std::string> failed(const std::string& name, const std::string& what) {
  return tl::unexpected("interface " + name + ": " + what + ": " + std::strerror(errno));
}

std::uint32_t rx_queues(const std::string& name) {
  Request request(name);
  ethtool_channels channels{};
  channels.cmd = ETHTOOL_GCHANNELS;
  request->ifr_data = reinterpret_cast<char*>(&channels);
  if (!request.run(SIOCETHTOOL)) return 0;
  return channels.combined_count + channels.rx_count;
}

int numa_node(const std::string& name) {
  std::ifstream in("/sys/class/net/" + name + "/device/numa_node");
  int node = -1;
  in >> node;
  return in ? node : -1;
}

}  // namespace

tl::expected<InterfaceInfo, std::string> interface_info(const std::string& name) {
  InterfaceInfo info;
  info.index = ::if_nametoindex(name.c_str());
  if (info.index == 0) return tl::unexpected("interface " + name + " does not exist in this network namespace");
  Request request(name);
  if (!request.run(SIOCGIFMTU)) return failed(name, "reading the MTU");
  info.mtu_bytes = static_cast<std::uint32_t>(request->ifr_mtu);
  if (!request.run(SIOCGIFHWADDR)) return failed(name, "reading the MAC address");
  std::memcpy(info.mac.data(), request->ifr_hwaddr.sa_data, info.mac.size());
  info.rx_queues = rx_queues(name);
  info.numa_node = numa_node(name);
  return info;
}

std::vector<abi::IpAddress> own_addresses() {
  std::vector<abi::IpAddress> addresses;
  ifaddrs* first = nullptr;
  if (::getifaddrs(&first) != 0) return addresses;
  for (const ifaddrs* at = first; at != nullptr; at = at->ifa_next) {
    if (at->ifa_addr == nullptr) continue;
    abi::IpAddress address = abi::IpAddress::v4(0, 0, 0, 0);
    if (at->ifa_addr->sa_family == AF_INET) {
      std::memcpy(address.bytes.data() + 12, &reinterpret_cast<const sockaddr_in*>(at->ifa_addr)->sin_addr, 4);
    } else if (at->ifa_addr->sa_family == AF_INET6) {
      std::memcpy(address.bytes.data(), &reinterpret_cast<const sockaddr_in6*>(at->ifa_addr)->sin6_addr, 16);
    } else {
      continue;
    }
    addresses.push_back(address);
  }
  ::freeifaddrs(first);
  std::sort(addresses.begin(), addresses.end());
  addresses.erase(std::unique(addresses.begin(), addresses.end()), addresses.end());
  return addresses;
}

tl::expected<void, std::string> set_interface_mac(const std::string& name, const abi::MacAddress& mac) {
  Request request(name);
  request->ifr_hwaddr.sa_family = ARPHRD_ETHER;
  std::memcpy(request->ifr_hwaddr.sa_data, mac.data(), mac.size());
  if (!request.run(SIOCSIFHWADDR)) return failed(name, "setting the MAC address");
  return {};
}

tl::expected<void, std::string> set_interface_mtu(const std::string& name, std::uint32_t mtu_bytes) {
  Request request(name);
  request->ifr_mtu = static_cast<int>(mtu_bytes);
  if (!request.run(SIOCSIFMTU)) return failed(name, "setting the MTU");
  return {};
}

tl::expected<void, std::string> set_interface_address(const std::string& name, const abi::IpAddress& address) {
  const auto set = [&](unsigned long what, const std::uint8_t* bytes) {
    Request request(name);
    sockaddr_in value{};
    value.sin_family = AF_INET;
    std::memcpy(&value.sin_addr, bytes, 4);
    std::memcpy(&request->ifr_addr, &value, sizeof(value));
    return request.run(what);
  };
  constexpr std::uint8_t kHostMask[] = {255, 255, 255, 255};
  if (!set(SIOCSIFADDR, address.bytes.data() + 12)) return failed(name, "setting its address");
  if (!set(SIOCSIFNETMASK, kHostMask)) return failed(name, "setting its netmask");
  return {};
}

tl::expected<void, std::string> set_interface_up(const std::string& name) {
  Request request(name);
  if (!request.run(SIOCGIFFLAGS)) return failed(name, "reading its flags");
  request->ifr_flags = static_cast<short>(request->ifr_flags | IFF_UP);
  if (!request.run(SIOCSIFFLAGS)) return failed(name, "bringing it up");
  return {};
}

}  // namespace lb::io
