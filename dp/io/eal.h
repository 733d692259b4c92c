// Starts DPDK's environment (EAL) as dp.yaml wants it: one lcore per worker, pinned; memory from hugepages or not; nothing
// left behind on any file system. Lcore ids are worker numbers; the main thread is the lcore after the last worker and
// floats over the CPUs that no worker has (over all of them if there are no others).
#pragma once

#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "dp/io/config.h"

namespace lb::io {

// What can be told about the machine before EAL starts: CPUs, hugepages, interfaces and their queues. Each error is one
// line `file:line: field: text`.
std::vector<std::string> check_machine(const DpConfig& config);

// The arguments EAL is started with, program name first.
std::vector<std::string> eal_arguments(const DpConfig& config);

// Call once, from the thread that is to be the main thread. EAL's messages go to spdlog.
tl::expected<void, std::string> start_eal(const DpConfig& config);
void stop_eal();

// The devices a port needs: vdev name and arguments, as for --vdev; empty for pci.
struct Vdev {
  std::string name;
  std::string arguments;
};
std::vector<Vdev> vdevs_of(const DpConfig& config, std::size_t port);

}  // namespace lb::io
