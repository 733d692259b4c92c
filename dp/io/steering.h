// Steering of an AF_XDP port: which frames the kernel hands to the workers' sockets (bpf/steer.bpf.c).
//
//   <bpf_dir>/<interface>   pinned bpf_link: keeps program, VIP map and counters alive between two runs of lb-dp
//
// While lb-dp is away, frames for VIPs are dropped (no socket), not passed to a kernel that does not own the VIPs. To end
// steering for good, remove the pin. Writer of the maps: lb-dp's main thread; of the socket map: libxdp, within EAL.
#pragma once

#include <compare>
#include <cstddef>
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

// Packets since the program was first attached.
struct SteeringStats {
  std::uint64_t steered = 0;
  std::uint64_t passed = 0;
  std::uint64_t dropped_no_socket = 0;
};

// Where replies of nat targets come from. Key of the map `returns`.
struct ReturnSource {
  abi::IpAddress address;
  std::uint16_t port = 0;  // host order
  std::uint8_t protocol = 0;
  std::uint8_t reserved = 0;
  friend auto operator<=>(const ReturnSource&, const ReturnSource&) = default;
};
static_assert(sizeof(ReturnSource) == 20);

// What goes to the workers: packets to VIPs, from nat targets to clients, from appliances to tunnel sources, and all that is
// routed by some interfaces. All sorted.
struct Steered {
  std::vector<abi::IpAddress> addresses;
  std::vector<SteeredPrefix> prefixes;
  std::vector<ReturnSource> returns;
  std::vector<SteeredPrefix> tunnel_ends;
  std::vector<std::string> whole_interfaces;
};

class Steering {
 public:
  // Attaches our program to an interface, or puts it in the place of the one that an earlier lb-dp left there, in one step
  // and with its VIPs and counters. The sockets of an lb-dp that still runs would lose their packets: call it when there is
  // none, and before ports start. Errors in words.
  static tl::expected<Steering, std::string> attach(const std::string& interface, const std::string& bpf_dir);

  // Of what an lb-dp, this or another, has attached to an interface; all 0 where there is nothing.
  static SteeringStats stats_of(const std::string& interface, const std::string& bpf_dir);

  // Makes sure that all of `steered` goes to the workers; removes nothing.
  tl::expected<void, std::string> add(const Steered& steered) const;

  // Ends steering for everything that is not in `steered`.
  tl::expected<void, std::string> keep_only(const Steered& steered) const;

  // The addresses of this host, sorted: what nat targets send to them is not steered.
  tl::expected<void, std::string> set_own_addresses(const std::vector<abi::IpAddress>& addresses) const;

  [[nodiscard]] Steered steered() const;  // whole_interfaces: this one, or none
  [[nodiscard]] SteeringStats stats() const;
  [[nodiscard]] const std::string& interface() const { return interface_; }
  [[nodiscard]] bool taken_over() const { return taken_over_; }  // an earlier run's program was found

 private:
  Steering() = default;
  [[nodiscard]] tl::expected<void, std::string> steer_everything(bool all) const;
  [[nodiscard]] bool is_whole(const Steered& steered) const;

  std::string interface_;
  Fd vips_;
  Fd prefixes_;
  Fd returns_;
  Fd tunnel_ends_;
  Fd everything_;
  Fd own_addresses_;
  Fd outcomes_;
  bool taken_over_ = false;
};

}  // namespace lb::io
