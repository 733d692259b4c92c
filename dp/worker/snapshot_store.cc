#include "dp/worker/snapshot_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <set>
#include <utility>

namespace lb::worker {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRootFile = "root";

std::string segment_file(std::uint64_t id, std::uint64_t checksum) {
  return fmt::format("segment-{:016x}-{:016x}", id, checksum);
}

tl::unexpected<std::string> failed(const std::string& path) {
  return tl::unexpected(path + ": " + std::strerror(errno));
}

// The whole file or nothing, also after a crash.
tl::expected<void, std::string> write_file(const std::string& directory, const std::string& name,
                                           std::span<const std::byte> bytes) {
  const std::string path = directory + "/" + name;
  const std::string temporary = path + ".new";
  const io::Fd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return failed(temporary);
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd.get(), bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return failed(temporary);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  if (::fsync(fd.get()) != 0) return failed(temporary);
  if (::rename(temporary.c_str(), path.c_str()) != 0) return failed(path);
  return {};
}

tl::expected<void, std::string> sync_directory(const std::string& directory) {
  const io::Fd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) return failed(directory);
  return {};
}

}  // namespace

tl::expected<std::unique_ptr<SnapshotStore>, std::string> SnapshotStore::open(const std::string& directory) {
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) return tl::unexpected(directory + ": " + error.message());
  if (::chmod(directory.c_str(), 0700) != 0 || ::access(directory.c_str(), W_OK) != 0) return failed(directory);
  return std::unique_ptr<SnapshotStore>(new SnapshotStore(directory));
}

SnapshotStore::SnapshotStore(std::string directory) : directory_(std::move(directory)), thread_([this] { run(); }) {}

SnapshotStore::~SnapshotStore() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void SnapshotStore::save(StoredGeneration generation) {
  {
    const std::lock_guard lock(mutex_);
    waiting_ = std::move(generation);
  }
  changed_.notify_all();
}

void SnapshotStore::flush() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !waiting_ && !writing_; });
}

void SnapshotStore::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return waiting_ || stop_; });
    if (!waiting_) return;
    const StoredGeneration generation = std::move(*waiting_);
    waiting_.reset();
    writing_ = true;
    lock.unlock();
    if (auto r = write(generation); !r) {
      spdlog::error("the active snapshot could not be stored; after a restart without lb-cp an older one is used: {}",
                    r.error());
    }
    lock.lock();
    writing_ = false;
    changed_.notify_all();
  }
}

tl::expected<void, std::string> SnapshotStore::write(const StoredGeneration& generation) const {
  bool new_names = false;
  for (const auto& [id, segment] : generation.segments) {
    const std::string name = segment_file(id, header_of(segment)->checksum);
    std::error_code ignored;
    if (fs::file_size(directory_ + "/" + name, ignored) == segment.bytes.size()) continue;
    if (auto r = write_file(directory_, name, segment.bytes); !r) return r;
    new_names = true;
  }
  if (new_names) {
    if (auto r = sync_directory(directory_); !r) return r;
  }
  if (auto r = write_file(directory_, kRootFile, generation.root.bytes); !r) return r;
  if (auto r = sync_directory(directory_); !r) return r;
  prune(generation);
  return {};
}

// Removes what the root on disk does not name, left-overs of torn writes included.
void SnapshotStore::prune(const StoredGeneration& generation) const {
  std::set<std::string> wanted{kRootFile};
  for (const auto& [id, segment] : generation.segments) wanted.insert(segment_file(id, header_of(segment)->checksum));
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory_, ignored)) {
    const std::string name = entry.path().filename();
    const bool ours = name.starts_with("segment-") || name == std::string(kRootFile) + ".new";
    if (ours && !wanted.contains(name)) fs::remove(entry.path(), ignored);
  }
}

tl::expected<std::optional<StoredGeneration>, std::string> SnapshotStore::load() const {
  const std::string root_path = directory_ + "/" + kRootFile;
  if (!fs::exists(root_path)) return std::nullopt;
  auto root = read_segment_file(root_path);
  if (!root) return tl::unexpected(root.error());
  if (auto ids = Snapshot::segment_ids(root->bytes); !ids) {
    return tl::unexpected(fmt::format("{}: {}: {}", root_path, abi::to_string(ids.error().refusal), ids.error().text));
  }
  StoredGeneration generation{.root = *root, .segments = {}};
  for (const abi::SegmentEntry& entry : segment_entries(root->bytes)) {
    auto segment = read_segment_file(directory_ + "/" + segment_file(entry.segment_id, entry.checksum));
    if (!segment) return tl::unexpected(segment.error());
    generation.segments.emplace(entry.segment_id, std::move(*segment));
  }
  return generation;
}

}  // namespace lb::worker
