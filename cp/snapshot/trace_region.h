// The memory in which lb-dp's workers write down single packets (dp/abi/trace.h), mapped read-only and checked once.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <tl/expected.hpp>

#include "dp/abi/trace.h"

namespace lb::cp {

class TraceRegion {
 public:
  // The caller keeps `fd` and may close it. Errors name what is wrong with the region.
  static tl::expected<std::shared_ptr<const TraceRegion>, std::string> map(int fd);
  TraceRegion(const TraceRegion&) = delete;
  TraceRegion& operator=(const TraceRegion&) = delete;
  ~TraceRegion();

  // By worker. lb-dp goes on writing.
  [[nodiscard]] std::span<const abi::TraceRing> rings() const { return rings_; }

 private:
  TraceRegion() = default;
  std::span<const std::byte> bytes_;
  std::span<const abi::TraceRing> rings_;
};

}  // namespace lb::cp
