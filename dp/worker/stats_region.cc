#include "dp/worker/stats_region.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <new>

#include "dp/abi/fingerprint.h"
#include "dp/abi/region.h"
#include "dp/lb/rate_memory.h"

namespace lb::worker {
namespace {

constexpr std::uint64_t line_aligned(std::uint64_t n) {
  return (n + abi::kCacheLineBytes - 1) / abi::kCacheLineBytes * abi::kCacheLineBytes;
}

constexpr std::uint64_t whole_pages(std::uint64_t n) {
  constexpr std::uint64_t kPageBytes = 4096;
  return (n + kPageBytes - 1) / kPageBytes * kPageBytes;
}

}  // namespace

tl::expected<std::unique_ptr<StatsRegion>, std::string> StatsRegion::create(std::uint32_t workers,
                                                                            std::uint32_t listener_capacity,
                                                                            std::uint32_t target_capacity,
                                                                            std::uint64_t tsc_hz) {
  // Two workers never share a line: blocks of listeners and of targets are padded to whole lines by rounding the capacity
  // up.
  listener_capacity = (listener_capacity + 1) / 2 * 2;
  target_capacity = (target_capacity + 15) / 16 * 16;
  abi::StatsRegionHeader header;
  header.magic = abi::kStatsMagic;
  header.version = abi::kRegionVersion;
  header.worker_count = workers;
  header.layout_fingerprint = abi::region_fingerprint();
  header.listener_capacity = listener_capacity;
  header.target_capacity = target_capacity;
  header.tsc_hz = tsc_hz;
  header.workers_offset = line_aligned(sizeof(header));
  header.listeners_offset = header.workers_offset + sizeof(abi::WorkerStats) * workers;
  header.target_flows_offset =
      header.listeners_offset + sizeof(abi::ListenerStats) * listener_capacity * std::uint64_t{workers};
  const std::uint64_t by_target_bytes = sizeof(std::uint32_t) * target_capacity * std::uint64_t{workers};
  header.target_troubles_offset = header.target_flows_offset + by_target_bytes;
  header.rates_offset = whole_pages(header.target_troubles_offset + by_target_bytes);
  header.size_bytes = header.rates_offset + abi::rate_table_bytes(listener_capacity) * workers;

  const auto failed = [](const char* what) {
    return tl::unexpected(fmt::format("stats region: {}: {}", what, std::strerror(errno)));
  };
  const io::Fd fd(::memfd_create("lb-stats", MFD_CLOEXEC));
  if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(header.size_bytes)) != 0) return failed("memfd");
  void* const address = ::mmap(nullptr, header.size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (address == MAP_FAILED) return failed("mmap");
  // What every packet writes is there from the start; pages of rates come with the first listener that has limits.
  ::madvise(address, header.rates_offset, MADV_POPULATE_WRITE);
  std::unique_ptr<StatsRegion> region(new StatsRegion);
  region->header_ = new (address) abi::StatsRegionHeader(header);
  region->read_only_ = io::Fd(::open(fmt::format("/proc/self/fd/{}", fd.get()).c_str(), O_RDONLY | O_CLOEXEC));
  if (!region->read_only_) return failed("opening it read-only");
  return region;
}

StatsRegion::~StatsRegion() {
  if (header_ != nullptr) ::munmap(header_, header_->size_bytes);
}

abi::WorkerStats& StatsRegion::worker(std::uint32_t index) const {
  return reinterpret_cast<abi::WorkerStats*>(at(header_->workers_offset))[index];
}

std::span<abi::ListenerStats> StatsRegion::listeners(std::uint32_t worker) const {
  auto* const first = reinterpret_cast<abi::ListenerStats*>(at(header_->listeners_offset));
  return {first + std::uint64_t{worker} * header_->listener_capacity, header_->listener_capacity};
}

std::span<std::uint32_t> StatsRegion::by_target(std::uint64_t offset, std::uint32_t worker) const {
  auto* const first = reinterpret_cast<std::uint32_t*>(at(offset));
  return {first + std::uint64_t{worker} * header_->target_capacity, header_->target_capacity};
}

std::span<std::uint32_t> StatsRegion::target_flows(std::uint32_t worker) const {
  return by_target(header_->target_flows_offset, worker);
}

RateTable StatsRegion::rates(std::uint32_t worker) const {
  const std::uint32_t listeners = header_->listener_capacity;
  return rate_table_at(at(header_->rates_offset) + abi::rate_table_bytes(listeners) * worker, listeners);
}

std::span<std::uint32_t> StatsRegion::target_troubles(std::uint32_t worker) const {
  return by_target(header_->target_troubles_offset, worker);
}

}  // namespace lb::worker
