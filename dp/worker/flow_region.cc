#include "dp/worker/flow_region.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <new>
#include <sstream>

#include "dp/abi/fingerprint.h"

namespace lb::worker {
namespace {

// Last-seen ticks wrap after 4.5 h; entries that nobody looked at for longer than this cannot be dated.
constexpr std::uint64_t kMaxAbsenceNs = 3600ULL * 1'000'000'000;

std::uint64_t unix_ns() {
  return static_cast<std::uint64_t>(std::chrono::nanoseconds(std::chrono::system_clock::now().time_since_epoch()).count());
}

constexpr std::uint64_t aligned(std::uint64_t n, std::uint64_t to) {
  return (n + to - 1) / to * to;
}

abi::FlowRegionHeader wanted_header(const FlowRegionOptions& options) {
  abi::FlowRegionHeader header;
  header.magic = abi::kFlowRegionMagic;
  header.version = abi::kRegionVersion;
  header.worker_count = options.workers;
  header.layout_fingerprint = abi::region_fingerprint();
  header.lines_per_worker = FlowTable::lines_for(options.flows_per_worker);
  header.target_capacity = options.target_capacity;
  header.directory_offset = aligned(sizeof(header), abi::kCacheLineBytes);
  header.lines_offset = aligned(header.directory_offset + 8 * header.target_capacity, 4096);
  header.size_bytes = header.lines_offset + sizeof(abi::FlowLine) * header.lines_per_worker * header.worker_count;
  return header;
}

// Why an existing region cannot be taken over; empty if it can.
std::string misfit(const abi::FlowRegionHeader& found, const abi::FlowRegionHeader& wanted) {
  if (found.magic != wanted.magic) return "not a flow region, or one that was left half-way through a start";
  if (found.version != wanted.version) return fmt::format("version {} instead of {}", found.version, wanted.version);
  if (found.layout_fingerprint != wanted.layout_fingerprint) return "written by a build with another memory layout";
  if (found.worker_count != wanted.worker_count)
    return fmt::format("{} workers instead of {}", found.worker_count, wanted.worker_count);
  if (found.lines_per_worker != wanted.lines_per_worker) {
    return fmt::format("{} lines per worker instead of {}", found.lines_per_worker, wanted.lines_per_worker);
  }
  if (found.target_capacity != wanted.target_capacity) {
    return fmt::format("for {} targets instead of {}", found.target_capacity, wanted.target_capacity);
  }
  if (found.size_bytes != wanted.size_bytes || found.directory_offset != wanted.directory_offset ||
      found.lines_offset != wanted.lines_offset) {
    return "size or offsets differ";
  }
  const std::uint64_t now = unix_ns();
  if (found.written_at_unix_ns > now || now - found.written_at_unix_ns > kMaxAbsenceNs)
    return "last used more than an hour ago";
  return {};
}

std::vector<std::string> hugetlbfs_mounts() {
  std::vector<std::string> mounts;
  std::ifstream in("/proc/mounts");
  for (std::string line; std::getline(in, line);) {
    std::istringstream fields(line);
    std::string device;
    std::string directory;
    std::string type;
    fields >> device >> directory >> type;
    if (type == "hugetlbfs") mounts.push_back(directory);
  }
  return mounts;
}

std::vector<std::string> candidates(const FlowRegionOptions& options) {
  if (!options.path.empty()) return {options.path};
  const std::string file = "/lb-" + options.name + ".flows";
  std::vector<std::string> paths;
  for (const std::string& mount : hugetlbfs_mounts()) paths.push_back(mount + file);
  paths.push_back("/dev/shm" + file);
  // Flows of an earlier run come before better memory.
  std::stable_partition(paths.begin(), paths.end(),
                        [](const std::string& path) { return ::access(path.c_str(), F_OK) == 0; });
  return paths;
}

bool reusable(const io::Fd& fd, std::uint64_t file_bytes, const abi::FlowRegionHeader& wanted, const std::string& path) {
  struct stat info {};
  std::string why = "the file's size differs";
  if (::fstat(fd.get(), &info) == 0 && static_cast<std::uint64_t>(info.st_size) == file_bytes) {
    void* const address = ::mmap(nullptr, file_bytes, PROT_READ, MAP_SHARED, fd.get(), 0);
    if (address != MAP_FAILED) {
      why = misfit(*static_cast<const abi::FlowRegionHeader*>(address), wanted);
      ::munmap(address, file_bytes);
    }
  }
  if (!why.empty()) spdlog::warn("flow region {} is not taken over: {}; flows start afresh", path, why);
  return why.empty();
}

}  // namespace

tl::expected<std::unique_ptr<FlowRegion>, std::string> FlowRegion::open_at(const std::string& path,
                                                                           const abi::FlowRegionHeader& wanted) {
  const auto failed = [&](const char* what) {
    return tl::unexpected(fmt::format("{}: {}: {}", path, what, std::strerror(errno)));
  };
  std::unique_ptr<FlowRegion> region(new FlowRegion);
  region->path_ = path;
  region->fd_ = io::Fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  struct statfs fs {};
  if (!region->fd_ || ::fstatfs(region->fd_.get(), &fs) != 0) return failed("open");
  if (::flock(region->fd_.get(), LOCK_EX | LOCK_NB) != 0)
    return tl::unexpected(path + ": another lb-dp uses this flow region");
  region->mapped_bytes_ = aligned(wanted.size_bytes, static_cast<std::uint64_t>(fs.f_bsize));

  struct stat info {};
  const bool existed = ::fstat(region->fd_.get(), &info) == 0 && info.st_size != 0;
  region->taken_over_ = existed && reusable(region->fd_, region->mapped_bytes_, wanted, path);
  if (!region->taken_over_) {
    // A new file, not the old one emptied: somebody may still have that mapped.
    if (existed) {
      ::unlink(path.c_str());
      region->fd_ = io::Fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
      if (!region->fd_ || ::flock(region->fd_.get(), LOCK_EX | LOCK_NB) != 0) return failed("create");
    }
    ::fchmod(region->fd_.get(), 0600);
    // Reserves every page now: later there would be a SIGBUS instead of an error.
    if (const int error = ::posix_fallocate(region->fd_.get(), 0, static_cast<off_t>(region->mapped_bytes_)); error != 0) {
      ::unlink(path.c_str());
      errno = error;
      return failed("reserving memory");
    }
  }
  void* const address =
      ::mmap(nullptr, region->mapped_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, region->fd_.get(), 0);
  if (address == MAP_FAILED) return failed("mmap");
  region->header_ = static_cast<abi::FlowRegionHeader*>(address);
  if (!region->taken_over_) {
    new (address) abi::FlowRegionHeader(wanted);
    if (::getrandom(region->header_->node_secret.data(), region->header_->node_secret.size(), 0) !=
        static_cast<ssize_t>(region->header_->node_secret.size())) {
      return failed("getrandom");
    }
  }
  region->touch();
  region->read_only_ = io::Fd(::open(fmt::format("/proc/self/fd/{}", region->fd_.get()).c_str(), O_RDONLY | O_CLOEXEC));
  if (!region->read_only_) return failed("opening it read-only");
  return region;
}

tl::expected<std::unique_ptr<FlowRegion>, std::string> FlowRegion::open(const FlowRegionOptions& options) {
  const abi::FlowRegionHeader wanted = wanted_header(options);
  std::string errors;
  for (const std::string& path : candidates(options)) {
    auto region = open_at(path, wanted);
    if (region) return region;
    errors += (errors.empty() ? "" : "; ") + region.error();
  }
  return tl::unexpected(fmt::format("flow region of {} MiB: {}", wanted.size_bytes >> 20, errors));
}

FlowRegion::~FlowRegion() {
  if (header_ != nullptr) ::munmap(header_, mapped_bytes_);
}

std::span<std::uint64_t> FlowRegion::directory() const {
  auto* const bytes = reinterpret_cast<std::byte*>(header_);
  return {reinterpret_cast<std::uint64_t*>(bytes + header_->directory_offset), header_->target_capacity};
}

std::span<abi::FlowLine> FlowRegion::lines(std::uint32_t worker) const {
  auto* const first = reinterpret_cast<abi::FlowLine*>(reinterpret_cast<std::byte*>(header_) + header_->lines_offset);
  return {first + worker * header_->lines_per_worker, header_->lines_per_worker};
}

Reattached FlowRegion::reattach(const Snapshot& snapshot) {
  Reattached total;
  if (!taken_over_) return total;
  header_->magic = 0;
  for (std::uint32_t worker = 0; worker < header_->worker_count; ++worker) {
    const Reattached one = lb::reattach(lines(worker), directory(), snapshot);
    total.kept += one.kept;
    total.dropped += one.dropped;
  }
  std::ranges::fill(directory(), 0);
  record(snapshot);
  header_->magic = abi::kFlowRegionMagic;
  return total;
}

void FlowRegion::record(const Snapshot& snapshot) {
  const std::span<std::uint64_t> identities = directory();
  const std::span<const abi::Target> targets = snapshot.targets();
  for (std::size_t id = 0; id < std::min(targets.size(), identities.size()); ++id) {
    if ((targets[id].flags & abi::kTargetLive) != 0) identities[id] = targets[id].identity;
  }
}

void FlowRegion::touch() {
  header_->written_at_unix_ns = unix_ns();
}

}  // namespace lb::worker
