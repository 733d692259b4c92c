// The last active generation on disk, so that lb-dp forwards right after its start without lb-cp.
//
//   <state_dir>/segment-<id>-<checksum>   written once each, never changed
//   <state_dir>/root                      replaced by rename after all of its segments are on disk
//
// Every file is written under another name, synced, and renamed; the directory is synced. A crash at any moment leaves the
// old root with all of its segments or the new one. What is read back is verified like bytes from anybody (Snapshot::open).
// Writing is done by a thread of its own: acknowledging a generation never waits for the disk. Only the newest generation
// waiting is written.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <tl/expected.hpp>

#include "dp/worker/segments.h"

namespace lb::worker {

// A generation's bytes: the root and the segments it names.
struct StoredGeneration {
  SegmentBytes root;
  SegmentsById segments;
};

class SnapshotStore {
 public:
  // Makes the directory (0700) if needed. Errors in words.
  static tl::expected<std::unique_ptr<SnapshotStore>, std::string> open(const std::string& directory);
  SnapshotStore(const SnapshotStore&) = delete;
  SnapshotStore& operator=(const SnapshotStore&) = delete;
  ~SnapshotStore();  // after what waits has been written

  // Takes the generation over and returns at once.
  void save(StoredGeneration generation);

  // Waits until everything saved so far is on disk (or has failed, which is logged).
  void flush();

  // Root and segments found on disk, unverified but for the root; nullopt if nothing was ever stored. Errors in words.
  tl::expected<std::optional<StoredGeneration>, std::string> load() const;

 private:
  explicit SnapshotStore(std::string directory);
  void run();
  tl::expected<void, std::string> write(const StoredGeneration& generation) const;
  void prune(const StoredGeneration& generation) const;

  std::string directory_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<StoredGeneration> waiting_;
  bool writing_ = false;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace lb::worker
