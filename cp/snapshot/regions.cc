#include "cp/snapshot/regions.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "dp/abi/fingerprint.h"

namespace lb::cp {
namespace {

tl::unexpected<std::string> refuse(const char* region, const std::string& text) {
  return tl::unexpected(std::string(region) + ": " + text);
}

tl::expected<std::span<const std::byte>, std::string> map_readonly(int fd, std::size_t least_bytes, const char* region) {
  struct stat status {};
  if (fstat(fd, &status) != 0) return refuse(region, std::strerror(errno));
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size < least_bytes) return refuse(region, "has only " + std::to_string(size) + " bytes");
  void* mapped = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) return refuse(region, std::string("mmap: ") + std::strerror(errno));
  return std::span(static_cast<const std::byte*>(mapped), size);
}

void unmap(std::span<const std::byte> bytes) {
  if (!bytes.empty()) munmap(const_cast<std::byte*>(bytes.data()), bytes.size());
}

// `count` elements of `size` bytes at `offset` lie behind the header and inside `total` bytes, on a cache line.
bool inside(std::uint64_t offset, std::uint64_t count, std::uint64_t size, std::uint64_t header, std::uint64_t total) {
  return offset % abi::kCacheLineBytes == 0 && offset >= header && offset <= total && count <= (total - offset) / size;
}

// What both headers have in common. `size_bytes` may be less than is mapped (whole pages of hugetlbfs), not more.
template <typename Header>
std::string common_fault(const Header& header, std::uint64_t magic, std::size_t mapped) {
  if (header.magic != magic) return "wrong magic";
  if (header.version != abi::kRegionVersion) return "version " + std::to_string(header.version) + " of the layout";
  if (header.layout_fingerprint != abi::region_fingerprint()) return "written by a build with another memory layout";
  if (header.size_bytes > mapped) return "its header says more bytes than it has";
  return header.worker_count == 0 || header.worker_count > 1024 ? "worker count out of range" : "";
}

}  // namespace

tl::expected<std::shared_ptr<const StatsRegion>, std::string> StatsRegion::map(int fd) {
  auto bytes = map_readonly(fd, sizeof(abi::StatsRegionHeader), "stats region");
  if (!bytes) return tl::unexpected(bytes.error());
  std::shared_ptr<StatsRegion> region(new StatsRegion());
  region->bytes_ = *bytes;
  abi::StatsRegionHeader& header = region->header_;
  std::memcpy(&header, bytes->data(), sizeof header);
  if (const std::string fault = common_fault(header, abi::kStatsMagic, bytes->size()); !fault.empty()) {
    return refuse("stats region", fault);
  }
  const std::uint64_t workers = header.worker_count;
  if (!inside(header.workers_offset, workers, sizeof(abi::WorkerStats), sizeof header, header.size_bytes) ||
      !inside(header.listeners_offset, workers * header.listener_capacity, sizeof(abi::ListenerStats), sizeof header,
              header.size_bytes) ||
      !inside(header.target_flows_offset, workers * header.target_capacity, sizeof(std::uint32_t), sizeof header,
              header.size_bytes) ||
      !inside(header.target_troubles_offset, workers * header.target_capacity, sizeof(std::uint32_t), sizeof header,
              header.size_bytes) ||
      !inside(header.rates_offset, workers, abi::rate_table_bytes(header.listener_capacity), sizeof header,
              header.size_bytes) ||
      header.rates_offset % sizeof(abi::RateMeter) != 0) {
    return refuse("stats region", "a table leaves it");
  }
  const std::byte* base = bytes->data();
  region->workers_ = {reinterpret_cast<const abi::WorkerStats*>(base + header.workers_offset), workers};
  region->listeners_ = {reinterpret_cast<const abi::ListenerStats*>(base + header.listeners_offset),
                        workers * header.listener_capacity};
  region->target_flows_ = {reinterpret_cast<const std::uint32_t*>(base + header.target_flows_offset),
                           workers * header.target_capacity};
  region->target_troubles_ = {reinterpret_cast<const std::uint32_t*>(base + header.target_troubles_offset),
                              workers * header.target_capacity};
  return region;
}

abi::RateView StatsRegion::rates(std::uint32_t worker) const {
  const std::size_t bytes = abi::rate_table_bytes(header_.listener_capacity);
  const std::byte* const at = bytes_.data() + header_.rates_offset + bytes * worker;
  return {{reinterpret_cast<const abi::RateLine*>(at), abi::kRateLines},
          {reinterpret_cast<const abi::RateMeter*>(at + abi::kRateMetersAt), abi::kRateMeters},
          {reinterpret_cast<const abi::RateMeter*>(at + abi::kRateListenersAt), header_.listener_capacity}};
}

StatsRegion::~StatsRegion() {
  unmap(bytes_);
}

tl::expected<std::shared_ptr<const FlowRegion>, std::string> FlowRegion::map(int fd) {
  auto bytes = map_readonly(fd, sizeof(abi::FlowRegionHeader), "flow region");
  if (!bytes) return tl::unexpected(bytes.error());
  std::shared_ptr<FlowRegion> region(new FlowRegion());
  region->bytes_ = *bytes;
  abi::FlowRegionHeader& header = region->header_;
  std::memcpy(&header, bytes->data(), sizeof header);
  if (const std::string fault = common_fault(header, abi::kFlowRegionMagic, bytes->size()); !fault.empty()) {
    return refuse("flow region", fault);
  }
  const std::uint64_t lines = header.lines_per_worker;
  if (lines == 0 || lines > header.size_bytes / sizeof(abi::FlowLine) ||
      !inside(header.lines_offset, lines * header.worker_count, sizeof(abi::FlowLine), sizeof header, header.size_bytes)) {
    return refuse("flow region", "a flow table leaves it");
  }
  const auto* first = reinterpret_cast<const abi::FlowLine*>(bytes->data() + header.lines_offset);
  for (std::uint32_t worker = 0; worker < header.worker_count; ++worker) {
    region->tables_.emplace_back(first + worker * lines, lines);
  }
  const std::uint64_t slots = header.translations_per_worker;
  if (slots > header.size_bytes / sizeof(abi::Translation) ||
      !inside(header.translations_offset, slots * header.worker_count, sizeof(abi::Translation), sizeof header,
              header.size_bytes)) {
    return refuse("flow region", "a table of translations leaves it");
  }
  const auto* first_slot = reinterpret_cast<const abi::Translation*>(bytes->data() + header.translations_offset);
  for (std::uint32_t worker = 0; worker < header.worker_count; ++worker) {
    region->translations_.emplace_back(first_slot + worker * slots, slots);
  }
  return region;
}

FlowRegion::~FlowRegion() {
  unmap(bytes_);
}

}  // namespace lb::cp
