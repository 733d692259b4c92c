// The flow region (dp/abi/region.h): the workers' flow tables in a file that outlives lb-dp, on hugetlbfs where pages are
// free, else in /dev/shm; never on a disk. It holds the node secret, so its mode is 0600.
//
// At start an existing file is taken over if everything about it fits (magic, version, layout, size, lines, targets, age);
// else the log says what does not, and a fresh one with a new secret replaces it. Flows of another number of workers move
// into a new file, which needs the memory of both for that moment. Writer: lb-dp's main thread
// (header, directory), workers (their lines).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "dp/abi/region.h"
#include "dp/io/config.h"
#include "dp/io/fd.h"
#include "dp/lb/flow_table.h"
#include "dp/lb/snapshot.h"

namespace lb::worker {

struct FlowRegionOptions {
  std::string name;  // of the instance; the file is lb-<name>.flows
  std::string path;  // this file and no other; empty: the first place that works
  std::uint32_t workers = 1;
  std::uint64_t flows_per_worker = 0;
  std::uint64_t translations_per_worker = 0;
  std::uint32_t target_capacity = 0;
  std::vector<abi::MacAddress> ports;  // their MACs, by lb-dp's own index
};

// As dp.yaml has it, but for `ports`.
FlowRegionOptions flow_region_options(const io::DpConfig& config);

class FlowRegion {
 public:
  // Errors in words: in use by another lb-dp, no memory anywhere, no permission.
  static tl::expected<std::unique_ptr<FlowRegion>, std::string> open(const FlowRegionOptions& options);
  FlowRegion(const FlowRegion&) = delete;
  FlowRegion& operator=(const FlowRegion&) = delete;
  ~FlowRegion();

  // Why open() would not take over the flows of the lb-dp that runs with these options now; empty: it would.
  static std::string misfit_of_present(const FlowRegionOptions& options);

  // Translates the entries of an earlier run to the target ids of `snapshot` (by identity) and drops those whose target is
  // gone; for a fresh region nothing. Before any FlowTable is made on the lines. A crash on the way leaves a file that the
  // next start does not take over.
  Reattached reattach(const Snapshot& snapshot);

  // Notes under which identities entries may be written from now on. Before the generation becomes active: no entry names an
  // id that is given to another target.
  void record(const Snapshot& snapshot);

  // The time up to which the entries are good: every second or so.
  void touch();

  [[nodiscard]] std::uint32_t workers() const { return header_->worker_count; }
  [[nodiscard]] std::span<abi::FlowLine> lines(std::uint32_t worker) const;
  [[nodiscard]] std::span<abi::Translation> translations(std::uint32_t worker) const;
  [[nodiscard]] abi::NatWays& ways(std::uint32_t worker) const;
  [[nodiscard]] const NodeSecret& secret() const { return header_->node_secret; }
  [[nodiscard]] int read_only_fd() const { return read_only_.get(); }
  [[nodiscard]] bool taken_over() const { return taken_over_; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  FlowRegion() = default;
  static tl::expected<std::unique_ptr<FlowRegion>, std::string> open_at(const std::string& path,
                                                                        const abi::FlowRegionHeader& wanted);
  tl::expected<void, std::string> create(const std::string& path);
  tl::expected<void, std::string> map();
  tl::expected<void, std::string> move_in(const FlowRegion& old, const abi::FlowRegionHeader& wanted);
  [[nodiscard]] std::span<std::uint64_t> directory() const;

  std::string path_;
  io::Fd fd_;  // holds the lock
  io::Fd read_only_;
  abi::FlowRegionHeader* header_ = nullptr;
  std::uint64_t mapped_bytes_ = 0;
  bool taken_over_ = false;
};

}  // namespace lb::worker
