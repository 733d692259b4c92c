// The trace region (dp/abi/trace.h): a memfd that workers write and lb-cp maps read-only.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <tl/expected.hpp>

#include "dp/abi/trace.h"
#include "dp/io/fd.h"
#include "dp/lb/tracer.h"

namespace lb::worker {

class TraceRegion {
 public:
  static tl::expected<std::unique_ptr<TraceRegion>, std::string> create(std::uint32_t workers);
  TraceRegion(const TraceRegion&) = delete;
  TraceRegion& operator=(const TraceRegion&) = delete;
  ~TraceRegion();

  // Writer: that worker.
  [[nodiscard]] abi::TraceRing& ring(std::uint32_t worker) const;
  // Writer: the main thread.
  [[nodiscard]] TraceOrders& orders() { return orders_; }
  [[nodiscard]] const TraceOrders& orders() const { return orders_; }

  [[nodiscard]] int read_only_fd() const { return read_only_.get(); }

 private:
  TraceRegion() = default;
  io::Fd read_only_;
  abi::TraceRegionHeader* header_ = nullptr;
  std::size_t size_ = 0;
  TraceOrders orders_;
};

}  // namespace lb::worker
