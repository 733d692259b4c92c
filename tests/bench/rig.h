// The bench's world: packets in a pool larger than the second-level cache, flow tables of a given number of flows, and
// pipelines of every mode on them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "dp/lb/dispatch.h"
#include "dp/lb/pipeline.h"
#include "dp/net/flow_key.h"
#include "tests/unit/lb/world.h"

namespace lb::bench {

enum class Mode : std::uint8_t { l2dsr, ipip4, ipip6, gue4, gre4, nat4 };
inline constexpr std::size_t kModes = 6;
inline constexpr std::array<const char*, kModes> kModeNames = {"l2dsr", "ipip4", "ipip6", "gue4", "gre4", "nat4"};

inline constexpr std::uint32_t kTargets = 1000;
inline constexpr std::uint32_t kSlots = 65537;
inline constexpr NodeSecret kSecret{0x6c, 0x62};
inline constexpr double kAssumedPps = 30e6;  // what virtual time and ageing are reckoned by

// Zeroed memory on 2 MiB pages where the kernel gives them. Owner: itself.
class HugeMemory {
 public:
  explicit HugeMemory(std::size_t size);
  HugeMemory(HugeMemory&& other) noexcept;
  HugeMemory& operator=(HugeMemory&&) = delete;
  ~HugeMemory();
  [[nodiscard]] void* data() const { return data_; }
  [[nodiscard]] std::span<abi::FlowLine> lines(std::uint64_t flows) const;  // of a flow table, from the first whole page
  [[nodiscard]] const char* pages() const { return pages_; }                // "hugetlb", "transparent" or "4k"

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
  const char* pages_ = "4k";
};

// Flow n of a world with `listeners` listeners; every n another 5-tuple.
net::FlowKey flow_key(std::uint64_t n, std::uint32_t listeners);

// 16,384 buffers of 2,304 bytes, as an mbuf pool has them; 64-byte frames. What is written to them is overwritten by
// prepare(), so that every pass begins with the frames as a NIC would leave them.
class PacketPool {
 public:
  static constexpr std::uint32_t kBuffers = 16384;
  PacketPool();
  // Writes flow `of(i)` with these TCP flags into every buffer i.
  template <typename Of>
  void prepare(std::uint32_t listeners, const Of& of) {
    for (std::uint32_t i = 0; i < kBuffers; ++i) {
      const auto [flow, tcp_flags] = of(i);
      write(i, flow_key(flow, listeners), tcp_flags);
    }
  }
  // The `b`-th burst of `size` packets.
  void fill(Burst& burst, std::uint32_t b, std::uint32_t size) const;

 private:
  static constexpr std::uint32_t kStride = 2304;
  static constexpr std::uint32_t kHeadroom = 256;  // behind the mbuf's own 128 bytes, DPDK's 128
  void write(std::uint32_t buffer, const net::FlowKey& key, std::uint8_t tcp_flags);
  HugeMemory memory_;
  std::uint8_t* first_;
  std::vector<std::uint16_t> order_;
};

// One flow table with `flows` flows in it, and a pipeline per mode.
class Rig {
 public:
  // state: of the flows entered at first. flows 0: an empty table for `capacity` flows.
  Rig(const Kernel& kernel, std::uint64_t flows, std::uint32_t listeners, FlowState state);
  Rig(const Rig&) = delete;
  Rig& operator=(const Rig&) = delete;

  Pipeline& pipeline(Mode mode) { return *pipelines_[static_cast<std::size_t>(mode)]; }
  const Snapshot& snapshot(Mode mode) const { return *snapshots_[static_cast<std::size_t>(mode)]; }
  [[nodiscard]] std::span<abi::FlowLine> lines() const { return lines_; }
  [[nodiscard]] FlowTable& table() { return *table_; }
  [[nodiscard]] const abi::WorkerStats& stats() const { return stats_; }
  [[nodiscard]] std::uint64_t flows() const { return flows_; }
  [[nodiscard]] std::uint32_t listeners() const { return listeners_; }
  [[nodiscard]] const char* pages() const { return memory_.pages(); }

  std::uint64_t now_ns = 1'000'000'000'000;
  std::uint64_t next_flow;  // for rows that bring new flows

 private:
  void enter(const Kernel& kernel, std::uint64_t flow, FlowState state);

  std::uint64_t flows_;
  std::uint32_t listeners_;
  HugeMemory memory_;
  std::span<abi::FlowLine> lines_;
  std::vector<std::uint32_t> target_flows_;
  std::unique_ptr<FlowTable> table_;
  abi::WorkerStats stats_;
  std::vector<abi::ListenerStats> listener_stats_;
  std::array<std::shared_ptr<const Snapshot>, kModes> snapshots_;
  std::array<std::unique_ptr<Pipeline>, kModes> pipelines_;
};

}  // namespace lb::bench
