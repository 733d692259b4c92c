// What the kernel says about a network interface, and the little that lb-dp sets on its own TAPs. Network namespace: the
// calling thread's.
#pragma once

#include <cstdint>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "dp/abi/types.h"

namespace lb::io {

struct InterfaceInfo {
  std::uint32_t index = 0;
  std::uint32_t mtu_bytes = 0;
  abi::MacAddress mac{};
  std::uint32_t rx_queues = 0;  // 0: the driver does not say
  int numa_node = -1;           // -1: unknown or not on a node of its own
};

// Errors: "no such interface" and others, in words.
tl::expected<InterfaceInfo, std::string> interface_info(const std::string& name);

// Addresses of all interfaces, sorted; empty if the kernel does not say.
std::vector<abi::IpAddress> own_addresses();

tl::expected<void, std::string> set_interface_mac(const std::string& name, const abi::MacAddress& mac);
tl::expected<void, std::string> set_interface_mtu(const std::string& name, std::uint32_t mtu_bytes);
// An IPv4 address with a /32 mask.
tl::expected<void, std::string> set_interface_address(const std::string& name, const abi::IpAddress& address);
tl::expected<void, std::string> set_interface_up(const std::string& name);

}  // namespace lb::io
