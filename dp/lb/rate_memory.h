// Memory for the rates of one worker whose options bring none: lb-replay, tests, the bench; and for what a worker alone
// reads. Pages come when they are first touched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "dp/lb/rate_book.h"
#include "dp/lb/rate_flows.h"

namespace lb {

// `memory`: abi::rate_table_bytes(), at a multiple of a page.
[[nodiscard]] RateTable rate_table_at(std::byte* memory, std::uint32_t listener_capacity);

class RateMemory {
 public:
  // listener_capacity 0: only the flows.
  explicit RateMemory(std::uint32_t listener_capacity);
  RateMemory(const RateMemory&) = delete;
  RateMemory& operator=(const RateMemory&) = delete;
  ~RateMemory();

  [[nodiscard]] std::span<const RateTable> tables() const { return {&table_, 1}; }
  [[nodiscard]] std::span<RateFlow> flows() const { return flows_; }

 private:
  std::byte* memory_;
  std::size_t bytes_;
  RateTable table_;
  std::span<RateFlow> flows_;
};

}  // namespace lb
