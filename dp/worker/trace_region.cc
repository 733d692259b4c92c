#include "dp/worker/trace_region.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <new>

namespace lb::worker {

tl::expected<std::unique_ptr<TraceRegion>, std::string> TraceRegion::create(std::uint32_t workers) {
  const auto failed = [](const char* what) {
    return tl::unexpected(fmt::format("trace region: {}: {}", what, std::strerror(errno)));
  };
  const std::size_t size = sizeof(abi::TraceRegionHeader) + sizeof(abi::TraceRing) * workers;
  const io::Fd fd(::memfd_create("lb-trace", MFD_CLOEXEC));
  if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) return failed("memfd");
  void* const address = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd.get(), 0);
  if (address == MAP_FAILED) return failed("mmap");
  std::unique_ptr<TraceRegion> region(new TraceRegion);
  region->header_ = new (address) abi::TraceRegionHeader{.worker_count = workers};
  region->size_ = size;
  region->read_only_ = io::Fd(::open(fmt::format("/proc/self/fd/{}", fd.get()).c_str(), O_RDONLY | O_CLOEXEC));
  if (!region->read_only_) return failed("opening it read-only");
  return region;
}

TraceRegion::~TraceRegion() {
  if (header_ != nullptr) ::munmap(header_, size_);
}

abi::TraceRing& TraceRegion::ring(std::uint32_t worker) const {
  return reinterpret_cast<abi::TraceRing*>(header_ + 1)[worker];
}

}  // namespace lb::worker
