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
#include <optional>
#include <sstream>

#include "dp/abi/fingerprint.h"
#include "dp/lb/translations.h"
#include "dp/lb/ways_back.h"

namespace lb::worker {
namespace {

constexpr std::uint32_t kMaxWorkers = 64;  // of an earlier run; more than any dp.yaml may have
// Last-seen ticks wrap after 4.5 h; entries that nobody looked at for longer than this cannot be dated.
constexpr std::uint64_t kMaxAbsenceNs = 3600ULL * 1'000'000'000;

std::uint64_t unix_ns() {
  return static_cast<std::uint64_t>(std::chrono::nanoseconds(std::chrono::system_clock::now().time_since_epoch()).count());
}

constexpr std::uint64_t aligned(std::uint64_t n, std::uint64_t to) {
  return (n + to - 1) / to * to;
}

std::uint64_t region_bytes(const abi::FlowRegionHeader& header, std::uint32_t workers) {
  return header.lines_offset + (sizeof(abi::FlowLine) * header.lines_per_worker +
                                sizeof(abi::Translation) * header.translations_per_worker + sizeof(abi::NatWays)) *
                                   workers;
}

std::uint64_t ways_offset(const abi::FlowRegionHeader& header, std::uint32_t workers) {
  return header.lines_offset +
         (sizeof(abi::FlowLine) * header.lines_per_worker + sizeof(abi::Translation) * header.translations_per_worker) *
             workers;
}

std::uint64_t translations_offset(const abi::FlowRegionHeader& header, std::uint32_t workers) {
  return header.lines_offset + sizeof(abi::FlowLine) * header.lines_per_worker * workers;
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
  header.translations_per_worker = options.translations_per_worker;
  header.translations_offset = translations_offset(header, header.worker_count);
  header.ways_offset = ways_offset(header, header.worker_count);
  header.size_bytes = region_bytes(header, header.worker_count);
  return header;
}

// Why an existing region cannot be taken over; empty if it can.
std::string misfit(const abi::FlowRegionHeader& found, const abi::FlowRegionHeader& wanted) {
  if (found.magic != wanted.magic) return "not a flow region, or one that was left half-way through a start";
  if (found.version != wanted.version) return fmt::format("version {} instead of {}", found.version, wanted.version);
  if (found.layout_fingerprint != wanted.layout_fingerprint) return "written by a build with another memory layout";
  if (found.worker_count == 0 || found.worker_count > kMaxWorkers) return fmt::format("{} workers", found.worker_count);
  if (found.lines_per_worker != wanted.lines_per_worker) {
    return fmt::format("{} lines per worker instead of {}", found.lines_per_worker, wanted.lines_per_worker);
  }
  if (found.translations_per_worker != wanted.translations_per_worker) {
    return fmt::format("{} translations per worker instead of {}", found.translations_per_worker,
                       wanted.translations_per_worker);
  }
  if (found.target_capacity != wanted.target_capacity) {
    return fmt::format("for {} targets instead of {}", found.target_capacity, wanted.target_capacity);
  }
  if (found.size_bytes != region_bytes(wanted, found.worker_count) || found.directory_offset != wanted.directory_offset ||
      found.lines_offset != wanted.lines_offset ||
      found.translations_offset != translations_offset(found, found.worker_count) ||
      found.ways_offset != ways_offset(found, found.worker_count)) {
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

// The header of an earlier run's file, if all about it fits but perhaps the number of workers.
std::optional<abi::FlowRegionHeader> earlier_header(const io::Fd& fd, std::uint64_t block,
                                                    const abi::FlowRegionHeader& wanted, const std::string& path) {
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0 || info.st_size == 0) return std::nullopt;
  abi::FlowRegionHeader found;
  std::string why = "too short for a flow region";
  if (::pread(fd.get(), &found, sizeof(found), 0) == static_cast<ssize_t>(sizeof(found))) {
    why = misfit(found, wanted);
    if (why.empty() && static_cast<std::uint64_t>(info.st_size) != aligned(found.size_bytes, block))
      why = "the file's size differs";
  }
  if (why.empty()) return found;
  spdlog::warn("flow region {} is not taken over: {}; flows start afresh", path, why);
  return std::nullopt;
}

}  // namespace

tl::expected<void, std::string> FlowRegion::create(const std::string& path) {
  ::unlink(path.c_str());
  fd_ = io::Fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  // Reserves every page now: later there would be a SIGBUS instead of an error.
  int error = !fd_ || ::flock(fd_.get(), LOCK_EX | LOCK_NB) != 0 ? errno : 0;
  if (error == 0) error = ::posix_fallocate(fd_.get(), 0, static_cast<off_t>(mapped_bytes_));
  if (error == 0) return {};
  ::unlink(path.c_str());
  return tl::unexpected(fmt::format("{}: reserving memory: {}", path, std::strerror(error)));
}

tl::expected<void, std::string> FlowRegion::map() {
  void* const address = ::mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd_.get(), 0);
  if (address == MAP_FAILED) return tl::unexpected(fmt::format("{}: mmap: {}", path_, std::strerror(errno)));
  header_ = static_cast<abi::FlowRegionHeader*>(address);
  return {};
}

// The flows of another number of workers, in a file beside the old one that takes its name when it is whole: a crash on the
// way leaves the old one.
tl::expected<void, std::string> FlowRegion::move_in(const FlowRegion& old, const abi::FlowRegionHeader& wanted) {
  const std::string beside = path_ + ".new";
  if (auto r = create(beside); !r) return r;
  if (auto r = map(); !r) return r;
  new (header_) abi::FlowRegionHeader(wanted);
  header_->node_secret = old.header_->node_secret;
  header_->written_at_unix_ns = old.header_->written_at_unix_ns;
  std::ranges::copy(old.directory(), directory().begin());
  std::vector<std::span<const abi::FlowLine>> from;
  std::vector<std::span<abi::FlowLine>> to;
  for (std::uint32_t w = 0; w < old.header_->worker_count; ++w) from.emplace_back(old.lines(w));
  for (std::uint32_t w = 0; w < wanted.worker_count; ++w) to.push_back(lines(w));
  const Rehomed moved = rehome(from, to);
  std::vector<std::span<const abi::Translation>> translations_from;
  std::vector<std::span<abi::Translation>> translations_to;
  for (std::uint32_t w = 0; w < old.header_->worker_count; ++w) translations_from.emplace_back(old.translations(w));
  for (std::uint32_t w = 0; w < wanted.worker_count; ++w) translations_to.push_back(translations(w));
  const std::uint64_t homeless = rehome_translations(translations_from, translations_to);
  std::vector<const abi::NatWays*> ways_from;
  std::vector<abi::NatWays*> ways_to;
  for (std::uint32_t w = 0; w < old.header_->worker_count; ++w) ways_from.push_back(&old.ways(w));
  for (std::uint32_t w = 0; w < wanted.worker_count; ++w) ways_to.push_back(&ways(w));
  merge_ways(ways_from, ways_to);
  if (::rename(beside.c_str(), path_.c_str()) != 0)
    return tl::unexpected(fmt::format("{}: rename: {}", beside, std::strerror(errno)));
  spdlog::info(
      "flow region {}: {} workers instead of {}: {} flows moved, {} further copies, {} without room, {} "
      "translations without room",
      path_, wanted.worker_count, old.header_->worker_count, moved.kept, moved.copies, moved.no_room, homeless);
  return {};
}

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
  const auto block = static_cast<std::uint64_t>(fs.f_bsize);

  if (const auto earlier = earlier_header(region->fd_, block, wanted, path)) {
    region->mapped_bytes_ = aligned(earlier->size_bytes, block);
    if (auto r = region->map(); !r) return tl::unexpected(r.error());
    region->taken_over_ = true;
    if (earlier->worker_count != wanted.worker_count) {
      std::unique_ptr<FlowRegion> moved(new FlowRegion);
      moved->path_ = path;
      moved->mapped_bytes_ = aligned(wanted.size_bytes, block);
      auto r = moved->move_in(*region, wanted);
      if (!r) spdlog::warn("flow region {} is not taken over: {}; flows start afresh", path, r.error());
      moved->taken_over_ = static_cast<bool>(r);
      region = std::move(moved);
    }
  }
  if (!region->taken_over_) {
    // A new file, not the old one emptied: somebody may still have that mapped.
    region = std::unique_ptr<FlowRegion>(new FlowRegion);
    region->path_ = path;
    region->mapped_bytes_ = aligned(wanted.size_bytes, block);
    if (auto r = region->create(path); !r) return tl::unexpected(r.error());
    if (auto r = region->map(); !r) return tl::unexpected(r.error());
    new (region->header_) abi::FlowRegionHeader(wanted);
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

std::string FlowRegion::misfit_of_present(const FlowRegionOptions& options) {
  const std::string path = candidates(options).front();
  const io::Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  abi::FlowRegionHeader found;
  if (!fd || ::pread(fd.get(), &found, sizeof(found), 0) != static_cast<ssize_t>(sizeof(found)))
    return path + ": there is no flow region";
  const std::string why = misfit(found, wanted_header(options));
  return why.empty() ? "" : path + ": " + why;
}

FlowRegionOptions flow_region_options(const io::DpConfig& config) {
  return {.name = config.name,
          .path = config.flow_table.path,
          .workers = static_cast<std::uint32_t>(config.workers.size()),
          .flows_per_worker = config.flow_table.flows_per_worker,
          .translations_per_worker = config.flow_table.translations_per_worker,
          .target_capacity = config.capacity.targets,
          .ports = {}};
}

tl::expected<std::unique_ptr<FlowRegion>, std::string> FlowRegion::open(const FlowRegionOptions& options) {
  const abi::FlowRegionHeader wanted = wanted_header(options);
  std::string errors;
  for (const std::string& path : candidates(options)) {
    auto region = open_at(path, wanted);
    if (region) {
      for (std::uint32_t w = 0; w < options.workers; ++w) shut_strange_ways((*region)->ways(w), options.ports);
      return region;
    }
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

std::span<abi::Translation> FlowRegion::translations(std::uint32_t worker) const {
  auto* const bytes = reinterpret_cast<std::byte*>(header_);
  auto* const first = reinterpret_cast<abi::Translation*>(bytes + header_->translations_offset);
  return {first + worker * header_->translations_per_worker, header_->translations_per_worker};
}

abi::NatWays& FlowRegion::ways(std::uint32_t worker) const {
  auto* const first = reinterpret_cast<abi::NatWays*>(reinterpret_cast<std::byte*>(header_) + header_->ways_offset);
  return first[worker];
}

Reattached FlowRegion::reattach(const Snapshot& snapshot) {
  Reattached total;
  if (!taken_over_) return total;
  header_->magic = 0;
  for (std::uint32_t worker = 0; worker < header_->worker_count; ++worker) {
    const Reattached one = lb::reattach(lines(worker), directory(), snapshot);
    total.kept += one.kept;
    total.dropped += one.dropped;
    lb::reattach(translations(worker), directory(), snapshot);
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
