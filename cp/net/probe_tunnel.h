// The way of health probes that go through the tunnel: a TUN device of this process's own, "lb-probe", and the programs of
// bpf/probe.bpf.c on it and on the ports. A probe is a socket that is bound to the device and marked; it may connect to a
// VIP although this host has that VIP as well.
//
// The device, and what is routed to it, go with the process. What stays on a port after a crash is a filter that knows no
// flow; the next start replaces it. Needs CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and /dev/net/tun.
//
// Where net.ipv4.conf.all.rp_filter is 1 (strict), the kernel takes no answer from the device; 0 and 2 are fine.
//
// Thread: one.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tl/expected.hpp>
#include <utility>

#include "cp/model/model.h"
#include "cp/net/probe_device.h"

namespace lb::cp {

class ProbeTunnel {
 public:
  static constexpr const char* kDevice = "lb-probe";
  static constexpr std::uint32_t kMostProbes = 1U << 20;

  // In the network namespace of the calling thread.
  static tl::expected<std::unique_ptr<ProbeTunnel>, SystemError> open();
  ~ProbeTunnel();
  ProbeTunnel(const ProbeTunnel&) = delete;
  ProbeTunnel& operator=(const ProbeTunnel&) = delete;

  // Makes `fd`, a fresh socket of the VIP's family, one whose packets reach `target` by its tunnel. `number`, below
  // kMostProbes, is the probe's. Error number 0: the way to the target is at fault, not this host.
  tl::expected<void, SystemError> prepare(int fd, std::uint32_t number, const TunnelledProbe& probe,
                                          const abi::IpAddress& target, const NextHop& next_hop);
  void forget(std::uint32_t number);

 private:
  struct Programs;

  explicit ProbeTunnel(std::unique_ptr<Programs> programs);
  // By which others reach this host, on the interface; zero: none. Throws std::system_error.
  abi::IpAddress address_on(std::uint32_t ifindex, bool v4);
  tl::expected<void, SystemError> watch(const std::string& interface, std::uint32_t& ifindex);

  std::unique_ptr<Programs> programs_;
  std::map<std::string, std::uint32_t> watched_;                        // interfaces where answers come in
  std::map<std::pair<std::uint32_t, bool>, abi::IpAddress> addresses_;  // by interface and family, as of addresses_at_
  std::chrono::steady_clock::time_point addresses_at_;
};

}  // namespace lb::cp
