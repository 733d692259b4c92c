// The ports of dp.yaml as started DPDK devices.
//
//   port "eth0" ── worker 0 ── device 0 queue 0        af_xdp: one device per queue
//               └─ worker 1 ── device 1 queue 0
//   port "nic0" ── worker 0 ── device 2 queue 0        others: one device, one queue per worker, RSS where there is RSS
//               └─ worker 1 ── device 2 queue 1
//
// Packet buffers come from one pool per NUMA node: 128 bytes (af_xdp: 384) of headroom in front of each frame, one buffer
// per frame.
#pragma once

#include <rte_mbuf.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "dp/abi/control.h"
#include "dp/io/config.h"
#include "dp/io/tap.h"

namespace lb::io {

// A worker's own receive and transmit queue of one port.
struct PortQueue {
  std::uint16_t device = 0;
  std::uint16_t queue = 0;
  bool checks_ip = false;  // the NIC verifies IPv4 header checksums
};

// Where a port's punted frames go.
struct Port {
  abi::PortInfo info;  // as told to lb-cp
  Driver driver = Driver::af_xdp;
  std::vector<PortQueue> queues;  // by worker
  std::vector<std::uint16_t> devices;
  rte_mempool* pool = nullptr;
  std::optional<Tap> twin;       // Twin::tap
  bool kernel_sees_all = false;  // af_packet: the kernel has had the frame already
  bool can_punt = false;         // via twin, the punt TAP, or because the kernel has it
};

class Ports {
 public:
  // Finds the devices and makes their buffers; call it after EAL has started. Touches nothing of an AF_XDP interface that
  // another lb-dp may be using. Errors in words.
  static tl::expected<std::unique_ptr<Ports>, std::string> open(const DpConfig& config);
  // Configures and starts everything. Once, when no other lb-dp uses the interfaces.
  tl::expected<void, std::string> start(const DpConfig& config);
  Ports(const Ports&) = delete;
  Ports& operator=(const Ports&) = delete;
  ~Ports();  // stops and closes the devices; the workers must have ended

  [[nodiscard]] const std::vector<Port>& list() const { return ports_; }
  [[nodiscard]] const Tap* punt_tap() const { return punt_tap_ ? &*punt_tap_ : nullptr; }

 private:
  Ports() = default;
  tl::expected<void, std::string> find_devices(const DpConfig& config);
  tl::expected<void, std::string> renew_devices(const DpConfig& config);
  tl::expected<void, std::string> make_pools(const DpConfig& config);
  tl::expected<void, std::string> start_port(const DpConfig& config, std::size_t index);
  tl::expected<void, std::string> open_punt_tap(const DpConfig& config);

  std::vector<Port> ports_;
  std::vector<rte_mempool*> pools_;  // by NUMA node
  std::optional<Tap> punt_tap_;
};

}  // namespace lb::io
