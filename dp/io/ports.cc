#include "dp/io/ports.h"

#include <fmt/format.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "dp/io/eal.h"
#include "dp/io/interface.h"

namespace lb::io {
namespace {

constexpr std::uint16_t kDescriptors = 1024;
constexpr std::uint32_t kBuffersPerAfXdpQueue = 4 * 2048;  // rx, fill, tx and completion rings
constexpr std::uint32_t kBuffersPerQueue = 4 * kDescriptors;
constexpr std::uint32_t kBuffersPerWorker = 1024;
constexpr std::uint32_t kPoolCache = 256;
constexpr std::uint64_t kRssWanted = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP;

std::string device_name(const DpConfig& config, std::size_t port, std::size_t device) {
  if (config.ports[port].driver == Driver::pci) return config.ports[port].address;
  return vdevs_of(config, port)[device].name;
}

std::string field(const DpConfig& config, std::size_t port) {
  return fmt::format("{}:{}: ports[{}] ({})", config.file, config.ports[port].line, port, config.ports[port].name);
}

std::uint32_t buffers_for(const DpConfig& config) {
  if (config.memory.mbufs != 0) return config.memory.mbufs;
  std::uint32_t count = kBuffersPerWorker;
  for (const PortConfig& port : config.ports) {
    count += static_cast<std::uint32_t>(config.workers.size()) *
             (port.driver == Driver::af_xdp ? kBuffersPerAfXdpQueue : kBuffersPerQueue);
  }
  return count + static_cast<std::uint32_t>(config.workers.size()) * kBuffersPerWorker;
}

tl::expected<rte_mempool*, std::string> make_pool(const DpConfig& config, int node) {
  const std::uint32_t count = buffers_for(config);
  rte_mempool* pool = rte_pktmbuf_pool_create(fmt::format("frames{}", node).c_str(), count, kPoolCache, 0,
                                              static_cast<std::uint16_t>(config.memory.mbuf_bytes), node);
  const bool umem =
      std::any_of(config.ports.begin(), config.ports.end(), [](const auto& p) { return p.driver == Driver::af_xdp; });
  if (pool == nullptr || (umem && pool->nb_mem_chunks != 1)) {
    const std::string why = pool == nullptr ? rte_strerror(rte_errno) : "it is not in one piece, as af_xdp needs it";
    return tl::unexpected(fmt::format("{}:{}: memory.size_mb: {} buffers of {} bytes ({} MiB) cannot be had from {} MiB: {}",
                                      config.file, config.memory.line, count, config.memory.mbuf_bytes,
                                      (std::uint64_t{count} * (config.memory.mbuf_bytes + 256U)) >> 20,
                                      config.memory.size_mb, why));
  }
  return pool;
}

tl::expected<void, std::string> start_device(std::uint16_t device, std::uint16_t queues, rte_mempool* pool,
                                             bool& checks_ip) {
  const auto failed = [](const char* what, int error) {
    return tl::unexpected(fmt::format("{}: {}", what, rte_strerror(-error)));
  };
  rte_eth_dev_info info{};
  if (const int error = rte_eth_dev_info_get(device, &info); error != 0) return failed("reading its properties", error);
  if (info.max_rx_queues < queues || info.max_tx_queues < queues) {
    return tl::unexpected(fmt::format("offers {} receive and {} transmit queues; {} workers need one of each",
                                      info.max_rx_queues, info.max_tx_queues, queues));
  }
  rte_eth_conf conf{};
  conf.rxmode.offloads = info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
  checks_ip = conf.rxmode.offloads != 0;
  if (queues > 1 && (info.flow_type_rss_offloads & kRssWanted) != 0) {
    conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
    conf.rx_adv_conf.rss_conf.rss_hf = info.flow_type_rss_offloads & kRssWanted;
  }
  if (const int error = rte_eth_dev_configure(device, queues, queues, &conf); error != 0)
    return failed("configuring it", error);
  std::uint16_t rx = info.default_rxportconf.ring_size != 0 ? info.default_rxportconf.ring_size : kDescriptors;
  std::uint16_t tx = info.default_txportconf.ring_size != 0 ? info.default_txportconf.ring_size : kDescriptors;
  if (const int error = rte_eth_dev_adjust_nb_rx_tx_desc(device, &rx, &tx); error != 0)
    return failed("sizing its rings", error);
  const auto node = static_cast<unsigned>(rte_eth_dev_socket_id(device));
  for (std::uint16_t queue = 0; queue < queues; ++queue) {
    if (const int error = rte_eth_rx_queue_setup(device, queue, rx, node, nullptr, pool); error != 0) {
      return failed("setting up a receive queue", error);
    }
    if (const int error = rte_eth_tx_queue_setup(device, queue, tx, node, nullptr); error != 0) {
      return failed("setting up a transmit queue", error);
    }
  }
  if (const int error = rte_eth_dev_start(device); error != 0) return failed("starting it", error);
  return {};
}

// The node whose memory a port's frames should be in.
int node_of(const DpConfig& config, std::size_t port, std::uint16_t device) {
  const int node = rte_eth_dev_socket_id(device);
  if (node < 0) return static_cast<int>(rte_lcore_to_socket_id(0));
  for (std::size_t w = 0; w < config.workers.size(); ++w) {
    const auto worker_node = static_cast<int>(rte_lcore_to_socket_id(static_cast<unsigned>(w)));
    if (worker_node != node && rte_eth_dev_count_avail() > 0 && rte_socket_count() > 1) {
      spdlog::warn("{}: on NUMA node {}, but worker {} runs on node {}: every packet crosses the machine",
                   field(config, port), node, w, worker_node);
    }
  }
  return rte_socket_count() > 1 ? node : static_cast<int>(rte_lcore_to_socket_id(0));
}

tl::expected<void, std::string> add_twin(const PortConfig& config, Port& port) {
  if (config.twin == Twin::netdev) {
    auto info = interface_info(config.interface);
    if (!info) return tl::unexpected(info.error());
    port.info.ifindex = info->index;
    port.info.mtu_bytes = info->mtu_bytes;
    port.info.mac = info->mac;
    port.kernel_sees_all = config.driver == Driver::af_packet;
    port.can_punt = port.kernel_sees_all;
    return {};
  }
  std::uint16_t mtu = 1500;
  rte_ether_addr mac{};
  rte_eth_dev_get_mtu(port.devices.front(), &mtu);
  rte_eth_macaddr_get(port.devices.front(), &mac);
  std::copy_n(mac.addr_bytes, port.info.mac.size(), port.info.mac.begin());
  // ring and null have no address of their own, and the kernel takes none of zeros for the twin.
  if (rte_is_zero_ether_addr(&mac)) port.info.mac = {0x02, 0, 0, 0, 0, static_cast<std::uint8_t>(port.devices.front())};
  port.info.mtu_bytes = mtu;
  if (config.twin == Twin::none) return {};
  auto tap = Tap::open({.name = config.name, .mac = port.info.mac, .mtu_bytes = mtu});
  if (!tap) return tl::unexpected(tap.error());
  auto info = interface_info(config.name);
  if (!info) return tl::unexpected(info.error());
  port.info.ifindex = info->index;
  port.twin = std::move(*tap);
  port.can_punt = true;
  rte_eth_allmulticast_enable(port.devices.front());  // neighbour discovery is the kernel's; drivers without it receive all
  return {};
}

// As it closes a device, the driver would detach our XDP program, fails because of the pinned link, and says so as an error.
// It is meant to stay.
void quiet_driver() {
  rte_log_set_level_pattern("pmd.net.af_xdp*", RTE_LOG_CRIT);
}

}  // namespace

tl::expected<void, std::string> Ports::find_devices(const DpConfig& config) {
  for (std::size_t i = 0; i < ports_.size(); ++i) {
    for (std::size_t d = 0; d < (ports_[i].driver == Driver::af_xdp ? config.workers.size() : 1); ++d) {
      std::uint16_t device = 0;
      const std::string name = device_name(config, i, d);
      if (rte_eth_dev_get_port_by_name(name.c_str(), &device) != 0) {
        return tl::unexpected(field(config, i) + ": DPDK has no driver for device " + name + ", or could not open it");
      }
      ports_[i].devices.push_back(device);
    }
  }
  return {};
}

tl::expected<std::unique_ptr<Ports>, std::string> Ports::open(const DpConfig& config) {
  std::unique_ptr<Ports> ports(new Ports);
  for (const PortConfig& port_config : config.ports) {
    Port& port = ports->ports_.emplace_back();
    port.driver = port_config.driver;
    port_config.name.copy(port.info.name, sizeof(port.info.name) - 1);
  }
  if (auto r = ports->find_devices(config); !r) return tl::unexpected(r.error());
  if (auto r = ports->make_pools(config); !r) return tl::unexpected(r.error());
  return ports;
}

// Of ports that are all af_xdp.
tl::expected<void, std::string> Ports::renew_devices(const DpConfig& config) {
  quiet_driver();
  for (std::size_t i = 0; i < ports_.size(); ++i) {
    Port& port = ports_[i];
    port.queues.clear();
    port.devices.clear();
    for (const Vdev& device : vdevs_of(config, i)) {
      int error = rte_eal_hotplug_remove("vdev", device.name.c_str());
      if (error == 0) error = rte_eal_hotplug_add("vdev", device.name.c_str(), device.arguments.c_str());
      if (error != 0)
        return tl::unexpected(fmt::format("{}: making {} anew: {}", field(config, i), device.name, rte_strerror(-error)));
    }
  }
  return find_devices(config);
}

// One for each NUMA node that a device is on; what was there before is freed.
tl::expected<void, std::string> Ports::make_pools(const DpConfig& config) {
  for (rte_mempool*& pool : pools_) rte_mempool_free(std::exchange(pool, nullptr));
  for (std::size_t i = 0; i < ports_.size(); ++i) {
    for (const std::uint16_t device : ports_[i].devices) {
      const auto node = static_cast<std::size_t>(node_of(config, i, device));
      if (pools_.size() <= node) pools_.resize(node + 1, nullptr);
      if (pools_[node] == nullptr) {
        auto pool = make_pool(config, static_cast<int>(node));
        if (!pool) return tl::unexpected(pool.error());
        pools_[node] = *pool;
      }
      ports_[i].pool = pools_[node];
    }
  }
  return {};
}

tl::expected<void, std::string> Ports::start_port(const DpConfig& config, std::size_t index) {
  Port& port = ports_[index];
  const bool device_per_queue = port.driver == Driver::af_xdp;
  const auto queues = static_cast<std::uint16_t>(device_per_queue ? 1 : config.workers.size());
  for (const std::uint16_t device : port.devices) {
    bool checks_ip = false;
    if (auto r = start_device(device, queues, port.pool, checks_ip); !r) return r;
    for (std::uint16_t queue = 0; queue < queues; ++queue) {
      port.queues.push_back({.device = device, .queue = queue, .checks_ip = checks_ip});
    }
  }
  return add_twin(config.ports[index], port);
}

tl::expected<void, std::string> Ports::open_punt_tap(const DpConfig& config) {
  const auto owner = std::find_if(ports_.begin(), ports_.end(), [](const Port& p) { return p.driver == Driver::af_xdp; });
  if (owner == ports_.end() || config.punt.tap.empty()) return {};
  auto tap =
      Tap::open({.name = config.punt.tap, .mac = owner->info.mac, .mtu_bytes = owner->info.mtu_bytes, .punt_only = true});
  if (!tap) return tl::unexpected("punt.tap: " + tap.error());
  punt_tap_ = std::move(*tap);
  for (Port& port : ports_) port.can_punt = port.can_punt || port.driver == Driver::af_xdp;
  return {};
}

// The kernel gives a queue back some time after its last socket was closed. The driver is left with rings and buffers of the
// socket that could not be made, so each try is with a device and with buffers of its own.
tl::expected<void, std::string> Ports::start(const DpConfig& config) {
  constexpr std::chrono::seconds kPatience{2};
  const auto end = std::chrono::steady_clock::now() + kPatience;
  for (std::chrono::milliseconds pause{5};; pause *= 2) {  // longer each time: what has succeeded is given back, too
    std::string error;
    for (std::size_t i = 0; i < ports_.size() && error.empty(); ++i) {
      if (auto r = start_port(config, i); !r) error = field(config, i) + ": " + r.error();
    }
    if (error.empty()) return open_punt_tap(config);
    const bool only_sockets = std::ranges::all_of(ports_, [](const Port& p) { return p.driver == Driver::af_xdp; });
    if (!only_sockets || std::chrono::steady_clock::now() >= end) return tl::unexpected(error);
    spdlog::info("{}: again in {} ms, in case its queues are still to be given back", error, pause.count());
    std::this_thread::sleep_for(pause);
    if (auto r = renew_devices(config); !r) return r;
    if (auto r = make_pools(config); !r) return r;
  }
}

Ports::~Ports() {
  quiet_driver();
  for (const Port& port : ports_) {
    for (const std::uint16_t device : port.devices) {
      rte_eth_dev_stop(device);
      rte_eth_dev_close(device);
    }
  }
}

}  // namespace lb::io
