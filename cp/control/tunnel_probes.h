// Joins the prober's sockets (cp/health) and their tunnels (cp/net) with the ways to targets that the control loop knows.
// The device and programs are made when the first probe asks for them; a host that refuses them is asked again every 5 s.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "cp/health/probe_socket.h"
#include "cp/health/prober.h"
#include "cp/model/model.h"
#include "cp/net/probe_tunnel.h"

namespace lb::cp {

class TunnelProbes final : public ProbeTunnels {
 public:
  // The way to a target, or none. The control loop's thread.
  void set_next_hop(const abi::IpAddress& target, const NextHop& next_hop);
  void forget_next_hop(const abi::IpAddress& target);

  // The prober's thread.
  tl::expected<void, ProbeError> prepare(int fd, std::uint32_t number, const ProbeSpec& spec) override;
  void forget(std::uint32_t number) override;

 private:
  tl::expected<void, ProbeError> open();
  NextHop next_hop(const abi::IpAddress& target);

  std::mutex mutex_;  // guards the next line
  std::map<abi::IpAddress, NextHop> next_hops_;
  std::unique_ptr<ProbeTunnel> tunnel_;
  std::optional<ProbeError> refused_;
  std::chrono::steady_clock::time_point refused_at_;
};

}  // namespace lb::cp
