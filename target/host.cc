#include "target/host.h"

#include <ifaddrs.h>
#include <linux/ethtool.h>
#include <linux/if_addr.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>

#include "target/fd.h"

namespace lb::target {
namespace {

template <typename T>
using Result = tl::expected<T, std::string>;

abi::IpAddress to_address(const sockaddr& from) {
  abi::IpAddress address;
  if (from.sa_family == AF_INET6) {
    std::memcpy(address.bytes.data(), &reinterpret_cast<const sockaddr_in6&>(from).sin6_addr, 16);
  } else {
    address = abi::IpAddress::v4(0, 0, 0, 0);
    std::memcpy(address.bytes.data() + 12, &reinterpret_cast<const sockaddr_in&>(from).sin_addr, 4);
  }
  return address;
}

// IPv6 addresses, as 32 hex digits, that are still tentative or found to be used by another host.
std::set<std::string> unusable_v6() {
  std::set<std::string> unusable;
  std::ifstream file("/proc/net/if_inet6");
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string address;
    std::string skip;
    unsigned flags = 0;
    fields >> address >> skip >> skip >> skip >> std::hex >> flags;
    if ((flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)) != 0) unusable.insert(address);
  }
  return unusable;
}

std::string to_hex(const abi::IpAddress& address) {
  std::string hex;
  for (const std::uint8_t byte : address.bytes) {
    for (const int nibble : {byte >> 4, byte & 15}) hex += "0123456789abcdef"[nibble];
  }
  return hex;
}

// 0 where there is no such setting: a kernel without IPv6 has none of its.
int read_setting(const std::string& path) {
  std::ifstream file("/proc/sys/net/" + path);
  int value = 0;
  file >> value;
  return file ? value : 0;
}

Ipv4Settings read_ipv4(const std::string& name) {
  const std::string directory = "ipv4/conf/" + name + "/";
  return {read_setting(directory + "arp_ignore"), read_setting(directory + "arp_announce"),
          read_setting(directory + "rp_filter")};
}

}  // namespace

std::vector<LocalAddress> local_addresses() {
  std::vector<LocalAddress> addresses;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return addresses;
  const std::set<std::string> unusable = unusable_v6();
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr) continue;
    const int family = entry->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    // A label such as eth0:1 names an address, not another interface.
    const std::string name(entry->ifa_name, std::strcspn(entry->ifa_name, ":"));
    const abi::IpAddress address = to_address(*entry->ifa_addr);
    addresses.push_back({address, name, family == AF_INET || !unusable.contains(to_hex(address))});
  }
  freeifaddrs(list);
  return addresses;
}

Result<HostFacts> read_host(const std::string& interface) {
  const Fd socket_fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  if (interface.size() >= sizeof request.ifr_name) return tl::unexpected(interface + ": no interface has so long a name");
  std::memcpy(request.ifr_name, interface.c_str(), interface.size() + 1);
  if (ioctl(socket_fd.get(), SIOCGIFMTU, &request) != 0) return tl::unexpected(interface + ": " + std::strerror(errno));

  HostFacts facts{.interface = interface, .mtu_bytes = static_cast<std::uint32_t>(request.ifr_mtu)};
  ethtool_drvinfo driver{.cmd = ETHTOOL_GDRVINFO};
  request.ifr_data = reinterpret_cast<char*>(&driver);
  facts.is_veth = ioctl(socket_fd.get(), SIOCETHTOOL, &request) == 0 && std::strcmp(driver.driver, "veth") == 0;
  ethtool_value checksum{.cmd = ETHTOOL_GTXCSUM, .data = 0};
  request.ifr_data = reinterpret_cast<char*>(&checksum);
  facts.tx_checksum = ioctl(socket_fd.get(), SIOCETHTOOL, &request) == 0 && checksum.data != 0;
  facts.ipv4_all = read_ipv4("all");
  facts.ipv4_interface = read_ipv4(interface);
  facts.ipv6_off_lo = read_setting("ipv6/conf/lo/disable_ipv6") != 0;
  facts.ipv6_off_interface = read_setting("ipv6/conf/" + interface + "/disable_ipv6") != 0;
  facts.addresses = local_addresses();
  return facts;
}

}  // namespace lb::target
