// All of lb-dp below main(): made in the order that start needs, taken down in the reverse.
//
//   lock → EAL, buffers → steering (AF_XDP programs) → ports → stats region → flow region → stored snapshot → workers →
//   control socket
//
// EAL and buffers can come before the lock, while another lb-dp still forwards: hand_over.h.
//
// Thread: the main thread; workers run on their own and share with it what is said to be shared at each member.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "dp/io/config.h"
#include "dp/io/fd.h"
#include "dp/io/ports.h"
#include "dp/io/steering.h"
#include "dp/lb/translations.h"
#include "dp/worker/flow_region.h"
#include "dp/worker/generation_switch.h"
#include "dp/worker/snapshot_reader.h"
#include "dp/worker/stats_region.h"
#include "dp/worker/trace_region.h"
#include "dp/worker/worker.h"

namespace lb::worker {

class DataPlane final : public GenerationSink {
 public:
  explicit DataPlane(const io::DpConfig& config);
  ~DataPlane() override;  // stops the workers, closes the ports; steering, flows and stored snapshot stay
  DataPlane(const DataPlane&) = delete;
  DataPlane& operator=(const DataPlane&) = delete;

  // One lb-dp at a time. `patience`: how long to wait for another one that is about to end. Errors in words, of all three.
  tl::expected<void, std::string> lock(std::chrono::milliseconds patience);

  // EAL and buffers: for AF_XDP ports nothing that only one lb-dp may have at a time.
  tl::expected<void, std::string> prepare();

  // Everything else but the control socket.
  tl::expected<void, std::string> start();

  // Takes the stored generation into force, sets the workers going (`on_work` is called then), listens for lb-cp and
  // serves (`on_ready`) until a signal comes from `signal_fd`, a signalfd; kHandOverSignal: its sender goes on with our
  // work.
  struct Hooks {
    std::function<void()> on_work;
    std::function<void()> on_ready;
  };
  tl::expected<void, std::string> serve(int signal_fd, const Hooks& hooks);

  // Frames for this lb-dp that the kernel has dropped for want of a socket, since steering was first attached.
  [[nodiscard]] std::uint64_t dropped_without_socket() const;

  void describe(abi::Hello& hello) const override;
  [[nodiscard]] std::array<int, 3> region_fds() const override;
  void trace(const abi::TraceOrder& order) override;
  tl::expected<void, SnapshotError> accept(std::shared_ptr<const Snapshot> snapshot) override;
  bool settled() override;

 private:
  tl::expected<void, std::string> attach_steering();
  tl::expected<io::PortMap, SnapshotError> map_ports(const Snapshot& snapshot) const;
  tl::expected<void, SnapshotError> learn_snat_addresses(const Snapshot& snapshot);
  tl::expected<void, SnapshotError> check_capacity(const Snapshot& snapshot) const;
  void launch_workers();
  void stop_workers();
  void report_laggard();
  tl::expected<void, std::string> confine();
  void feed_watchdog();
  void refresh_own_addresses();

  const io::DpConfig& config_;
  io::Fd lock_;  // on state_dir: one lb-dp at a time
  std::vector<io::Steering> steering_;
  bool eal_started_ = false;
  std::unique_ptr<io::Ports> ports_;
  std::unique_ptr<StatsRegion> stats_;
  std::unique_ptr<FlowRegion> flows_;
  std::unique_ptr<TraceRegion> trace_;
  bool flows_attached_ = false;
  std::unique_ptr<SnatBook> snat_;       // on the region's translations
  std::vector<FlowTable*> flow_tables_;  // by worker; what workers look into for replies that landed elsewhere
  std::unique_ptr<SnapshotStore> store_;
  GenerationSwitch<ActiveGeneration> generations_;
  std::vector<FragmentNotes> fragment_notes_;  // by worker: written by it, read by all
  std::vector<std::unique_ptr<Worker>> workers_;
  bool launched_ = false;
  bool steering_to_prune_ = false;  // a generation has begun and the VIPs of older ones are still steered
  std::uint64_t addresses_read_ns_ = 0;
  std::uint64_t moving_since_ns_ = 0;
  std::uint64_t next_report_ns_ = 0;
  std::vector<std::uint64_t> heartbeats_;  // of the workers, when the service manager was last told that they move
  std::uint64_t fed_at_ns_ = 0;
  std::uint64_t watchdog_ns_ = 0;  // the manager's patience; 0: it has no watchdog
};

}  // namespace lb::worker
