#include "dp/lb/rate_memory.h"

#include <sys/mman.h>

#include <new>

namespace lb {
namespace {

constexpr std::size_t kPageBytes = 4096;
std::size_t whole_pages(std::size_t bytes) {
  return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
}

}  // namespace

RateTable rate_table_at(std::byte* memory, std::uint32_t listener_capacity) {
  return {{reinterpret_cast<abi::RateLine*>(memory), abi::kRateLines},
          {reinterpret_cast<abi::RateMeter*>(memory + abi::kRateMetersAt), abi::kRateMeters},
          {reinterpret_cast<abi::RateMeter*>(memory + abi::kRateListenersAt), listener_capacity}};
}

RateMemory::RateMemory(std::uint32_t listener_capacity)
    : bytes_((listener_capacity == 0 ? 0 : abi::rate_table_bytes(listener_capacity)) +
             whole_pages(sizeof(RateFlow) * kRateFlows)) {
  void* const address = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) throw std::bad_alloc();
  memory_ = static_cast<std::byte*>(address);
  flows_ = {reinterpret_cast<RateFlow*>(memory_), kRateFlows};
  if (listener_capacity != 0)
    table_ = rate_table_at(memory_ + whole_pages(sizeof(RateFlow) * kRateFlows), listener_capacity);
}

RateMemory::~RateMemory() {
  ::munmap(memory_, bytes_);
}

}  // namespace lb
