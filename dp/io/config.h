// dp.yaml: what this machine gives to lb-dp. Read once at start; everything that may change at run time comes in snapshots.
//
// Reading is strict: an unknown key, a value of the wrong kind or out of range is an error that names file, line and field,
// and all errors of a file are reported together. An annotated example is configs/dp.yaml.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

namespace lb::io {

enum class MemoryMode : std::uint8_t { automatic, hugepages, no_huge };

enum class Driver : std::uint8_t { af_xdp, af_packet, memif, pcap, ring, null, tap, virtio_user, pci };

// How frames reach the kernel beside a port ("kernel twin").
//   netdev   the interface itself, which the driver shares with the kernel (af_xdp, af_packet)
//   tap      a TAP that lb-dp makes under the port's name, both ways
//   none     there is no kernel beside this port
enum class Twin : std::uint8_t { netdev, tap, none };

struct WorkerConfig {
  std::uint32_t cpu = 0;  // `lcore`: the CPU this worker is pinned to
};

struct PortConfig {
  std::string name;  // kernel twin's interface name, as snapshots name the port; 1…15 bytes
  Driver driver = Driver::af_xdp;
  std::string interface;  // af_xdp, af_packet, tap: the netdev; default: name
  std::string address;    // pci: domain:bus:device.function
  std::string devargs;    // passed on to the driver, after what lb-dp sets itself
  Twin twin = Twin::none;
  std::uint32_t line = 0;  // in the file, for errors found later
};

struct DpConfig {
  std::string file;
  std::string name = "lb-dp";  // of this instance: log lines, default paths, DPDK's file prefix
  std::string control_socket = "/run/lb/dp.sock";
  std::string state_dir = "/var/lib/lb/dp";
  std::string bpf_dir;  // default /run/lb/bpf/<name>
  std::vector<WorkerConfig> workers;
  std::uint32_t workers_line = 0;
  std::vector<PortConfig> ports;
  struct {
    MemoryMode mode = MemoryMode::automatic;
    std::uint32_t size_mb = 256;      // 64…1048576, per NUMA node that has ports
    std::uint32_t mbuf_bytes = 2176;  // room for a frame with 128 bytes in front of it; 2176…9600; af_xdp ≤ 3840
    std::uint32_t mbufs = 0;          // per NUMA node; 0: from ports and queues
    std::uint32_t line = 0;
  } memory;
  struct {
    std::uint32_t after_empty_polls = 0;  // 0: never sleep
    std::uint32_t sleep_us = 50;          // 1…1000
  } idle;
  struct {
    std::uint32_t flows_per_worker = 1U << 20;         // 1024…2^28
    std::uint32_t translations_per_worker = 1U << 16;  // 1024…2^24, of fullnat flows
    std::string path;                                  // default: hugetlbfs where there are free pages, else /dev/shm
  } flow_table;
  struct {
    std::uint32_t targets = 131072;   // 1…2^20
    std::uint32_t listeners = 16384;  // 1…65536
  } capacity;
  struct {
    std::string tap = "lbtap0";                // empty: none; for ports whose twin is a netdev that cannot take frames back
    std::uint32_t packets_per_second = 10000;  // per worker, all ports; above it packets are dropped as punt_failed
  } punt;
  struct {
    std::string user = "lb";     // whom lb-dp becomes once it serves
    bool user_required = false;  // it stands in the file: not to have it is an error
    bool seccomp = true;
  } sandbox;
};

std::string_view to_string(Driver driver);

// Reads and checks a file. Errors: one `file:line: field: text` each.
tl::expected<DpConfig, std::vector<std::string>> load_config(const std::string& path);

// The same from memory; `file` is only named in errors.
tl::expected<DpConfig, std::vector<std::string>> parse_config(const std::string& text, const std::string& file);

}  // namespace lb::io
