// Steering of an AF_XDP port: which frames the kernel hands to the workers' sockets (bpf/steer.bpf.c).
//
//   <bpf_dir>/<interface>   pinned bpf_link: keeps program, VIP map and counters alive between two runs of lb-dp
//
// While lb-dp is away, frames for VIPs are dropped (no socket), not passed to a kernel that does not own the VIPs. To end
// steering for good, remove the pin. Writer of the maps: lb-dp's main thread; of the socket map: libxdp, within EAL.
#pragma once

#include <cstdint>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "dp/abi/types.h"
#include "dp/io/fd.h"

namespace lb::io {

// A VIP that is a prefix, as the map of prefixes has it.
struct SteeredPrefix {
  std::uint32_t bits = 128;  // of the 16-byte form
  abi::IpAddress address;
  friend auto operator<=>(const SteeredPrefix&, const SteeredPrefix&) = default;
};

// What goes to the workers; both sorted.
struct SteeredVips {
  std::vector<abi::IpAddress> addresses;
  std::vector<SteeredPrefix> prefixes;
};

// Packets since the program was first attached.
struct SteeringStats {
  std::uint64_t steered = 0;
  std::uint64_t passed = 0;
  std::uint64_t dropped_no_socket = 0;
};

class Steering {
 public:
  // Attaches our program to an interface, or puts it in the place of the one that an earlier lb-dp left there, in one step
  // and with its VIPs and counters. The sockets of an lb-dp that still runs would lose their packets: call it when there is
  // none, and before EAL starts. Errors in words.
  static tl::expected<Steering, std::string> attach(const std::string& interface, const std::string& bpf_dir);

  // Makes sure that packets to all of `vips` are steered; removes nothing.
  tl::expected<void, std::string> add(const SteeredVips& vips) const;

  // Ends steering for every address and prefix that is not among `vips`.
  tl::expected<void, std::string> keep_only(const SteeredVips& vips) const;

  [[nodiscard]] SteeredVips vips() const;
  [[nodiscard]] SteeringStats stats() const;
  [[nodiscard]] const std::string& interface() const { return interface_; }
  [[nodiscard]] bool taken_over() const { return taken_over_; }  // an earlier run's program was found

 private:
  Steering() = default;

  std::string interface_;
  Fd vips_;
  Fd prefixes_;
  Fd outcomes_;
  bool taken_over_ = false;
};

}  // namespace lb::io
