// Whether a host is set up to be a target: facts in, findings out, each with the command that mends it.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "dp/abi/types.h"
#include "target/host.h"

namespace lb::target {

struct Finding {
  bool ok = false;
  std::string what;
  std::string command;  // that mends it; empty when ok
};

// One finding a subject, in the order in which they are best mended. `mode`: l2dsr needs no tunnel, so neither the program
// nor room in the MTU. client_mtu_bytes: the largest packet clients send.
std::vector<Finding> check(const HostFacts& host, std::span<const abi::IpAddress> vips, abi::ForwardingMode mode,
                           std::uint32_t client_mtu_bytes);

// "192.0.2.1", "2001:db8::1".
std::string to_text(const abi::IpAddress& address);

}  // namespace lb::target
