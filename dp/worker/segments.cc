#include "dp/worker/segments.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace lb::worker {
namespace {

constexpr int kAllSeals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

struct Mapping {
  Mapping(void* a, std::size_t n) : address(a), size(n) {}
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { ::munmap(address, size); }
  void* address;
  std::size_t size;
};

SegmentBytes owned(void* address, std::size_t size) {
  return {.bytes = {static_cast<const std::byte*>(address), size}, .owner = std::make_shared<Mapping>(address, size)};
}

bool plausible(off_t size) {
  return size >= static_cast<off_t>(sizeof(abi::SegmentHeader)) && static_cast<std::uint64_t>(size) <= abi::kMaxSegmentBytes;
}

}  // namespace

tl::expected<SegmentBytes, SnapshotError> map_sealed(const io::Fd& fd) {
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0) {
    return tl::unexpected(SnapshotError{abi::Refusal::not_sealed, fmt::format("not a memfd ({})", std::strerror(errno))});
  }
  if ((seals & kAllSeals) != kAllSeals) {
    return tl::unexpected(
        SnapshotError{abi::Refusal::not_sealed, fmt::format("seals are {:#x}, must include {:#x}", seals, kAllSeals)});
  }
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return tl::unexpected(SnapshotError{abi::Refusal::system, std::strerror(errno)});
  if (!plausible(info.st_size)) {
    return tl::unexpected(SnapshotError{abi::Refusal::size, fmt::format("a segment cannot have {} bytes", info.st_size)});
  }
  const auto size = static_cast<std::size_t>(info.st_size);
  void* const address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd.get(), 0);
  if (address == MAP_FAILED) return tl::unexpected(SnapshotError{abi::Refusal::system, std::strerror(errno)});
  return owned(address, size);
}

tl::expected<SegmentBytes, std::string> read_segment_file(const std::string& path) {
  const io::Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  struct stat info {};
  if (!fd || ::fstat(fd.get(), &info) != 0) return tl::unexpected(path + ": " + std::strerror(errno));
  if (!plausible(info.st_size)) return tl::unexpected(fmt::format("{}: a segment cannot have {} bytes", path, info.st_size));
  const auto size = static_cast<std::size_t>(info.st_size);
  void* const address = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) return tl::unexpected(path + ": " + std::strerror(errno));
  SegmentBytes segment = owned(address, size);
  for (std::size_t done = 0; done < size;) {
    const ssize_t n = ::read(fd.get(), static_cast<char*>(address) + done, size - done);
    if (n <= 0) return tl::unexpected(path + ": " + (n == 0 ? "became shorter while it was read" : std::strerror(errno)));
    done += static_cast<std::size_t>(n);
  }
  ::mprotect(address, size, PROT_READ);
  return segment;
}

const abi::SegmentHeader* header_of(const SegmentBytes& segment) {
  if (segment.bytes.size() < sizeof(abi::SegmentHeader)) return nullptr;
  return reinterpret_cast<const abi::SegmentHeader*>(segment.bytes.data());
}

std::span<const abi::SegmentEntry> segment_entries(std::span<const std::byte> root) {
  const auto* header = reinterpret_cast<const abi::Root*>(root.data());
  return {reinterpret_cast<const abi::SegmentEntry*>(root.data() + header->segments.offset), header->segments.count};
}

}  // namespace lb::worker
