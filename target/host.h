// What the kernel says about this host, as far as target/check.h needs it. Read once, changes nothing.
#pragma once

#include <cstdint>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "dp/abi/types.h"

namespace lb::target {

struct LocalAddress {
  abi::IpAddress address;
  std::string interface;
  bool usable = true;  // false: IPv6, and its duplicate address detection has not ended well
};

// Every address of every interface of this network namespace, those of interfaces that are down included.
std::vector<LocalAddress> local_addresses();

// Settings in /proc/sys/net that decide how a VIP behaves.
struct Ipv4Settings {
  int arp_ignore = 0;
  int arp_announce = 0;
  int rp_filter = 0;
};

struct HostFacts {
  std::string interface;
  std::uint32_t mtu_bytes = 0;
  bool is_veth = false;
  bool tx_checksum = false;  // the interface leaves L4 checksums to "hardware"
  bool decap_attached = false;
  Ipv4Settings ipv4_all;
  Ipv4Settings ipv4_interface;
  bool ipv6_off_lo = false;  // disable_ipv6
  bool ipv6_off_interface = false;
  std::vector<LocalAddress> addresses;
};

// Reads everything but decap_attached. Error: no such interface, /proc/sys cannot be read.
tl::expected<HostFacts, std::string> read_host(const std::string& interface);

}  // namespace lb::target
