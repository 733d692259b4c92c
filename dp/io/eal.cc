#include "dp/io/eal.h"

#include <fmt/format.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>
#include <sched.h>
#include <spdlog/spdlog.h>
#include <xdp/libxdp.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <string_view>

#include "dp/io/interface.h"

namespace lb::io {
namespace {

constexpr std::uint64_t kMiB = 1ULL << 20;

std::set<std::uint32_t> allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  ::sched_getaffinity(0, sizeof(set), &set);
  std::set<std::uint32_t> cpus;
  for (std::uint32_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.insert(cpu);
  }
  return cpus;
}

std::uint64_t read_number(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::uint64_t value = 0;
  in >> value;
  return in ? value : 0;
}

std::uint64_t free_hugepage_mb() {
  std::uint64_t total = 0;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/kernel/mm/hugepages", ignored)) {
    const std::string name = entry.path().filename();  // hugepages-2048kB
    const std::uint64_t page_kb = std::strtoull(name.c_str() + std::strlen("hugepages-"), nullptr, 10);
    total += read_number(entry.path() / "free_hugepages") * page_kb / 1024;
  }
  return total;
}

std::uint32_t node_of_cpu(std::uint32_t cpu) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(fmt::format("/sys/devices/system/cpu/cpu{}", cpu), ignored)) {
    const std::string name = entry.path().filename();
    if (name.starts_with("node")) return static_cast<std::uint32_t>(std::strtoul(name.c_str() + 4, nullptr, 10));
  }
  return 0;
}

// NUMA nodes that hold a worker or a port: each gets memory.
std::set<std::uint32_t> nodes_in_use(const DpConfig& config) {
  std::set<std::uint32_t> nodes;
  for (const WorkerConfig& worker : config.workers) nodes.insert(node_of_cpu(worker.cpu));
  for (const PortConfig& port : config.ports) {
    if (port.twin == Twin::netdev) {
      const auto info = interface_info(port.interface);
      if (info && info->numa_node >= 0) nodes.insert(static_cast<std::uint32_t>(info->numa_node));
    } else if (port.driver == Driver::pci) {
      std::ifstream in("/sys/bus/pci/devices/" + port.address + "/numa_node");
      int node = -1;
      if (in >> node && node >= 0) nodes.insert(static_cast<std::uint32_t>(node));
    }
  }
  return nodes;
}

std::uint64_t wanted_mb(const DpConfig& config) {
  return std::uint64_t{config.memory.size_mb} * nodes_in_use(config).size();
}

bool use_hugepages(const DpConfig& config) {
  if (config.memory.mode == MemoryMode::automatic) return free_hugepage_mb() >= wanted_mb(config);
  return config.memory.mode == MemoryMode::hugepages;
}

std::string join(const std::set<std::uint32_t>& values) {
  return fmt::format("{}", fmt::join(values, ","));
}

void check_port(const DpConfig& config, std::size_t index, std::vector<std::string>& errors) {
  const PortConfig& port = config.ports[index];
  const auto complain = [&](std::string_view field, const std::string& text) {
    errors.push_back(fmt::format("{}:{}: ports[{}].{}: {}", config.file, port.line, index, field, text));
  };
  if (port.driver == Driver::pci && !std::filesystem::exists("/sys/bus/pci/devices/" + port.address)) {
    complain("address", "there is no PCI device " + port.address);
  }
  if (port.twin != Twin::netdev) return;
  const auto info = interface_info(port.interface);
  if (!info) {
    complain("interface", info.error());
  } else if (port.driver == Driver::af_xdp && info->rx_queues != 0 && info->rx_queues != config.workers.size()) {
    complain("interface",
             fmt::format("{} has {} receive queues and there are {} workers; each queue needs its worker "
                         "(ethtool -L {} combined {}, or change `workers`)",
                         port.interface, info->rx_queues, config.workers.size(), port.interface, config.workers.size()));
  }
}

// EAL writes its messages to a stdio stream; each write is one message or a part of one.
ssize_t write_log(void*, const char* text, std::size_t size) {
  std::string_view message(text, size);
  while (!message.empty() && (message.back() == '\n' || message.back() == ' ')) message.remove_suffix(1);
  if (message.empty()) return static_cast<ssize_t>(size);
  const int level = rte_log_cur_msg_loglevel();
  const auto severity = level <= static_cast<int>(RTE_LOG_ERR)       ? spdlog::level::err
                        : level == static_cast<int>(RTE_LOG_WARNING) ? spdlog::level::warn
                        : level <= static_cast<int>(RTE_LOG_INFO)    ? spdlog::level::info
                                                                     : spdlog::level::debug;
  spdlog::log(severity, "dpdk: {}", message);
  return static_cast<ssize_t>(size);
}

void route_logs() {
  const cookie_io_functions_t functions{.read = nullptr, .write = write_log, .seek = nullptr, .close = nullptr};
  std::FILE* stream = ::fopencookie(nullptr, "w", functions);
  if (stream == nullptr) return;
  ::setvbuf(stream, nullptr, _IOLBF, 4096);
  rte_openlog_stream(stream);
  libxdp_set_print([](libxdp_print_level level, const char* format, va_list arguments) {
    if (level != LIBXDP_WARN) return 0;
    char text[512];
    const int length = std::vsnprintf(text, sizeof(text), format, arguments);
    if (std::strstr(text, "bpffs") == nullptr && std::strstr(text, "dispatcher") == nullptr) {  // we need neither
      spdlog::debug("libxdp: {}",
                    std::string_view(text, std::min<std::size_t>(static_cast<std::size_t>(std::max(length, 0)), 511)));
    }
    return 0;
  });
}

}  // namespace

std::vector<std::string> check_machine(const DpConfig& config) {
  std::vector<std::string> errors;
  const auto cpus = allowed_cpus();
  for (std::size_t i = 0; i < config.workers.size(); ++i) {
    if (!cpus.contains(config.workers[i].cpu)) {
      errors.push_back(fmt::format("{}:{}: workers[{}].lcore: there is no CPU {} for this process; it may use {}",
                                   config.file, config.workers_line, i, config.workers[i].cpu, join(cpus)));
    }
  }
  for (std::size_t i = 0; i < config.ports.size(); ++i) check_port(config, i, errors);
  if (config.memory.mode == MemoryMode::hugepages && free_hugepage_mb() < wanted_mb(config)) {
    errors.push_back(
        fmt::format("{}:{}: memory.mode: {} MiB of hugepages are wanted and {} MiB are free; reserve some "
                    "(echo {} > /proc/sys/vm/nr_hugepages), or set `mode: auto` or `mode: no_huge`",
                    config.file, config.memory.line, wanted_mb(config), free_hugepage_mb(), (wanted_mb(config) + 1) / 2));
  }
  return errors;
}

std::vector<Vdev> vdevs_of(const DpConfig& config, std::size_t port) {
  const PortConfig& p = config.ports[port];
  const std::string extra = p.devargs.empty() ? "" : "," + p.devargs;
  const std::string name =
      fmt::format("net_{}{}", p.driver == Driver::virtio_user ? "virtio_user" : to_string(p.driver), port);
  switch (p.driver) {
    case Driver::af_xdp: {
      // One device per queue: the driver takes several queues only from interfaces that have `combined` ones, veth has not.
      std::vector<Vdev> devices;
      for (std::size_t queue = 0; queue < config.workers.size(); ++queue) {
        devices.push_back(
            {fmt::format("{}_{}", name, queue), fmt::format("iface={},start_queue={}{}", p.interface, queue, extra)});
      }
      return devices;
    }
    case Driver::af_packet: return {{name, fmt::format("iface={},qpairs={}{}", p.interface, config.workers.size(), extra)}};
    case Driver::tap: return {{name, fmt::format("iface={}{}", p.interface, extra)}};
    case Driver::virtio_user: return {{name, fmt::format("queues={}{}", config.workers.size(), extra)}};
    case Driver::memif:
    case Driver::pcap:
    case Driver::ring:
    case Driver::null: return {{name, p.devargs}};
    case Driver::pci: break;
  }
  return {};
}

std::vector<std::string> eal_arguments(const DpConfig& config) {
  std::vector<std::string> arguments{"lb-dp", "--no-telemetry", "--file-prefix", config.name, "--log-level", "notice"};
  std::set<std::uint32_t> others = allowed_cpus();
  for (const WorkerConfig& worker : config.workers) others.erase(worker.cpu);
  if (others.empty()) others = allowed_cpus();
  std::string lcores;
  for (std::size_t i = 0; i < config.workers.size(); ++i) lcores += fmt::format("{}@{},", i, config.workers[i].cpu);
  lcores += fmt::format("{}@({})", config.workers.size(), join(others));
  arguments.insert(arguments.end(), {"--lcores", lcores, "--main-lcore", std::to_string(config.workers.size())});

  const std::set<std::uint32_t> nodes = nodes_in_use(config);
  if (!use_hugepages(config)) {
    arguments.insert(arguments.end(), {"--no-huge", "--no-shconf", "-m", std::to_string(wanted_mb(config))});
  } else if (nodes.size() == 1 && *nodes.begin() == 0) {
    arguments.insert(arguments.end(),
                     {"--in-memory", "--single-file-segments", "-m", std::to_string(config.memory.size_mb)});
  } else {
    std::string per_node;
    for (std::uint32_t node = 0; node <= *nodes.rbegin(); ++node) {
      per_node += (node == 0 ? "" : ",") + std::to_string(nodes.contains(node) ? config.memory.size_mb : 0);
    }
    arguments.insert(arguments.end(), {"--in-memory", "--single-file-segments", "--socket-mem", per_node});
  }

  bool pci = false;
  for (std::size_t i = 0; i < config.ports.size(); ++i) {
    const PortConfig& port = config.ports[i];
    if (port.driver == Driver::pci) {
      pci = true;
      arguments.insert(arguments.end(), {"-a", port.address + (port.devargs.empty() ? "" : "," + port.devargs)});
    }
    for (const Vdev& device : vdevs_of(config, i)) {
      arguments.insert(arguments.end(), {"--vdev", device.name + (device.arguments.empty() ? "" : "," + device.arguments)});
    }
  }
  if (!pci) arguments.emplace_back("--no-pci");
  return arguments;
}

tl::expected<void, std::string> start_eal(const DpConfig& config) {
  if (config.memory.mode == MemoryMode::automatic && !use_hugepages(config)) {
    spdlog::warn("{} MiB of hugepages are wanted and {} MiB are free: running without, slower", wanted_mb(config),
                 free_hugepage_mb());
  }
  route_logs();
  std::vector<std::string> arguments = eal_arguments(config);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  if (rte_eal_init(static_cast<int>(argv.size()), argv.data()) < 0) {
    return tl::unexpected(
        fmt::format("DPDK does not start: {} (arguments: {})", rte_strerror(rte_errno), fmt::join(arguments, " ")));
  }
  return {};
}

void stop_eal() {
  rte_eal_cleanup();
}

}  // namespace lb::io
