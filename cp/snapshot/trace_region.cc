#include "cp/snapshot/trace_region.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

namespace lb::cp {
namespace {

tl::unexpected<std::string> refuse(const std::string& text) {
  return tl::unexpected("trace region: " + text);
}

}  // namespace

tl::expected<std::shared_ptr<const TraceRegion>, std::string> TraceRegion::map(int fd) {
  struct stat status {};
  if (fstat(fd, &status) != 0) return refuse(std::strerror(errno));
  const auto size = static_cast<std::size_t>(status.st_size);
  abi::TraceRegionHeader header;
  if (size < sizeof header) return refuse("has only " + std::to_string(size) + " bytes");
  void* mapped = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) return refuse(std::string("mmap: ") + std::strerror(errno));
  std::shared_ptr<TraceRegion> region(new TraceRegion());
  region->bytes_ = {static_cast<const std::byte*>(mapped), size};
  std::memcpy(&header, mapped, sizeof header);
  if (header.magic != abi::kTraceMagic) return refuse("wrong magic");
  if (header.version != abi::kTraceVersion) return refuse("version " + std::to_string(header.version) + " of the layout");
  if (header.record_bytes != sizeof(abi::TraceRecord) || header.ring_bytes != sizeof(abi::TraceRing))
    return refuse("written by a build with another memory layout");
  if (header.worker_count == 0 || header.worker_count > (size - sizeof header) / sizeof(abi::TraceRing))
    return refuse("a ring leaves it");
  region->rings_ = {reinterpret_cast<const abi::TraceRing*>(region->bytes_.data() + sizeof header), header.worker_count};
  return region;
}

TraceRegion::~TraceRegion() {
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace lb::cp
