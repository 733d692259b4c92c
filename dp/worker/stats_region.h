// The stats region (dp/abi/counters.h): a memfd that lb-dp writes and lb-cp maps read-only.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <tl/expected.hpp>

#include "dp/abi/counters.h"
#include "dp/io/fd.h"
#include "dp/lb/rate_book.h"

namespace lb::worker {

class StatsRegion {
 public:
  static tl::expected<std::unique_ptr<StatsRegion>, std::string> create(std::uint32_t workers,
                                                                        std::uint32_t listener_capacity,
                                                                        std::uint32_t target_capacity, std::uint64_t tsc_hz);
  StatsRegion(const StatsRegion&) = delete;
  StatsRegion& operator=(const StatsRegion&) = delete;
  ~StatsRegion();

  // Each worker's blocks. Writer: that worker.
  [[nodiscard]] abi::WorkerStats& worker(std::uint32_t index) const;
  [[nodiscard]] std::span<abi::ListenerStats> listeners(std::uint32_t worker) const;
  [[nodiscard]] std::span<std::uint32_t> target_flows(std::uint32_t worker) const;
  [[nodiscard]] std::span<std::uint32_t> target_troubles(std::uint32_t worker) const;
  [[nodiscard]] RateTable rates(std::uint32_t worker) const;

  [[nodiscard]] int read_only_fd() const { return read_only_.get(); }

 private:
  StatsRegion() = default;
  [[nodiscard]] std::span<std::uint32_t> by_target(std::uint64_t offset, std::uint32_t worker) const;
  [[nodiscard]] std::byte* at(std::uint64_t offset) const { return reinterpret_cast<std::byte*>(header_) + offset; }

  io::Fd read_only_;
  abi::StatsRegionHeader* header_ = nullptr;
};

}  // namespace lb::worker
