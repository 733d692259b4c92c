// The two memory regions that lb-dp shares with lb-cp, mapped read-only and checked once: every offset and size below was
// found to lie inside the mapping. lb-dp goes on writing; readers use relaxed atomic loads (std::atomic_ref) of single
// words.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "dp/abi/counters.h"
#include "dp/abi/rates.h"
#include "dp/abi/region.h"

namespace lb::cp {

// Counters and gauges of all workers. Writer: lb-dp. Valid while the StatsRegion lives, also after lb-dp has died: the
// memory then keeps its last values.
class StatsRegion {
 public:
  // The caller keeps `fd` and may close it. Errors name what is wrong with the region.
  static tl::expected<std::shared_ptr<const StatsRegion>, std::string> map(int fd);
  StatsRegion(const StatsRegion&) = delete;
  StatsRegion& operator=(const StatsRegion&) = delete;
  ~StatsRegion();

  [[nodiscard]] std::span<const abi::WorkerStats> workers() const { return workers_; }
  [[nodiscard]] std::uint32_t listener_capacity() const { return header_.listener_capacity; }
  [[nodiscard]] std::uint32_t target_capacity() const { return header_.target_capacity; }
  [[nodiscard]] std::uint64_t tsc_hz() const { return header_.tsc_hz; }
  // By Listener::counter_index; worker < workers().size().
  [[nodiscard]] std::span<const abi::ListenerStats> listeners(std::uint32_t worker) const {
    return listeners_.subspan(std::size_t{worker} * header_.listener_capacity, header_.listener_capacity);
  }
  // Entries of that worker's flow table by target id.
  [[nodiscard]] std::span<const std::uint32_t> target_flows(std::uint32_t worker) const {
    return target_flows_.subspan(std::size_t{worker} * header_.target_capacity, header_.target_capacity);
  }
  // Its meters of sources and listeners; as they are being written.
  [[nodiscard]] abi::RateView rates(std::uint32_t worker) const;
  // What that worker saw of targets that refuse or do not answer, by target id; wraps.
  [[nodiscard]] std::span<const std::uint32_t> target_troubles(std::uint32_t worker) const {
    return target_troubles_.subspan(std::size_t{worker} * header_.target_capacity, header_.target_capacity);
  }

 private:
  StatsRegion() = default;
  abi::StatsRegionHeader header_;  // a copy: lb-dp cannot change it under us
  std::span<const std::byte> bytes_;
  std::span<const abi::WorkerStats> workers_;
  std::span<const abi::ListenerStats> listeners_;
  std::span<const std::uint32_t> target_flows_;
  std::span<const std::uint32_t> target_troubles_;
};

// The flow tables of all workers, for `why`. Readers go through FlowTable::peek. Writer: lb-dp.
class FlowRegion {
 public:
  static tl::expected<std::shared_ptr<const FlowRegion>, std::string> map(int fd);
  FlowRegion(const FlowRegion&) = delete;
  FlowRegion& operator=(const FlowRegion&) = delete;
  ~FlowRegion();

  // One span of lines per worker.
  [[nodiscard]] const std::vector<std::span<const abi::FlowLine>>& tables() const { return tables_; }
  // Of mode fullnat, one span per worker; as they are being written: read copies (Translations::peek_in).
  [[nodiscard]] const std::vector<std::span<const abi::Translation>>& translations() const { return translations_; }
  [[nodiscard]] const std::array<std::uint8_t, 16>& node_secret() const { return header_.node_secret; }

 private:
  FlowRegion() = default;
  abi::FlowRegionHeader header_;
  std::span<const std::byte> bytes_;
  std::vector<std::span<const abi::FlowLine>> tables_;
  std::vector<std::span<const abi::Translation>> translations_;
};

}  // namespace lb::cp
