#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "cp/snapshot/compile.h"

namespace lb::cp {

SegmentMemory::~SegmentMemory() {
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  if (fd_ >= 0) close(fd_);
}

tl::expected<std::shared_ptr<const SegmentMemory>, std::string> seal(std::span<const std::byte> bytes, std::uint64_t id) {
  const auto failed = [id](const char* what) {
    return tl::unexpected("segment " + std::to_string(id) + ": " + what + ": " + std::strerror(errno));
  };
  std::shared_ptr<SegmentMemory> memory(new SegmentMemory());
  memory->id_ = id;
  memory->fd_ = memfd_create("lb-segment", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (memory->fd_ < 0) return failed("memfd_create");
  // write() fills fresh pages without clearing or mapping them first.
  for (std::size_t at = 0; at < bytes.size();) {
    const ssize_t written = write(memory->fd_, bytes.data() + at, bytes.size() - at);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return failed("write");
    at += static_cast<std::size_t>(written);
  }
  if (fcntl(memory->fd_, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return failed("F_ADD_SEALS");
  void* mapped = mmap(nullptr, bytes.size(), PROT_READ, MAP_SHARED, memory->fd_, 0);
  if (mapped == MAP_FAILED) return failed("mmap");
  memory->bytes_ = {static_cast<const std::byte*>(mapped), bytes.size()};
  return memory;
}

}  // namespace lb::cp
