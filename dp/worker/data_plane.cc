#include "dp/worker/data_plane.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <rte_cycles.h>
#include <rte_launch.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <thread>
#include <utility>

#include "dp/base/notify.h"
#include "dp/io/bpf_dir.h"
#include "dp/io/eal.h"
#include "dp/io/interface.h"
#include "dp/worker/confine.h"
#include "dp/worker/hand_over.h"

namespace lb::worker {
namespace {

constexpr int kMovingPollMs = 1;
constexpr int kIdlePollMs = 1000;
constexpr std::uint64_t kSecondNs = 1'000'000'000;
constexpr std::uint64_t kMillisecondNs = 1'000'000;

std::uint64_t now_ns() {
  return static_cast<std::uint64_t>(std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count());
}

io::Steered steered_by(const Snapshot& snapshot) {
  io::Steered steered;
  for (const abi::Vip& vip : snapshot.vips()) {
    if (vip.prefix_length == 128) {
      steered.addresses.push_back(vip.address);
    } else {
      steered.prefixes.push_back({vip.prefix_length, vip.address});
    }
  }
  for (const abi::IpAddress& address : snapshot.snat_addresses()) steered.addresses.push_back(address);
  for (const abi::VipCell& cell : snapshot.return_table()) {
    if (cell.kind != abi::VipCellKind::empty) steered.returns.push_back({cell.address, cell.port, cell.protocol});
  }
  if (!snapshot.gateway_listeners().empty()) {
    for (const abi::TunnelSource& source : {snapshot.root().tunnel_source_v4, snapshot.root().tunnel_source_v6}) {
      if (source.present != 0)
        steered.tunnel_ends.push_back({source.prefix_length, abi::masked(source.prefix, source.prefix_length)});
    }
    for (const abi::Port& port : snapshot.ports()) {
      if (port.gateway != abi::kNoIndex) steered.whole_interfaces.emplace_back(port.name);
    }
  }
  std::sort(steered.tunnel_ends.begin(), steered.tunnel_ends.end());
  std::sort(steered.whole_interfaces.begin(), steered.whole_interfaces.end());
  std::sort(steered.returns.begin(), steered.returns.end());
  std::sort(steered.addresses.begin(), steered.addresses.end());
  steered.addresses.erase(std::unique(steered.addresses.begin(), steered.addresses.end()), steered.addresses.end());
  std::sort(steered.prefixes.begin(), steered.prefixes.end());
  return steered;
}

// How long the manager is to bear silence from now on; nothing where it has no watchdog.
std::string patience_wanted(std::chrono::microseconds silence) {
  return watchdog_ms() == 0 ? "" : fmt::format("WATCHDOG=1\nWATCHDOG_USEC={}", silence.count());
}

// The manager follows our work to whoever goes on with it, or hears that we end.
void end_notified(int signal_fd) {
  signalfd_siginfo signal{};
  const bool whole = ::read(signal_fd, &signal, sizeof(signal)) == static_cast<ssize_t>(sizeof(signal));
  if (!whole || signal.ssi_signo != static_cast<std::uint32_t>(kHandOverSignal)) return notify_manager("STOPPING=1");
  spdlog::info("process {} takes over", signal.ssi_pid);
  notify_manager(fmt::format("MAINPID={}\n{}", signal.ssi_pid, patience_wanted(kHandOverSilence)));
}

}  // namespace

DataPlane::DataPlane(const io::DpConfig& config)
    : config_(config),
      generations_(static_cast<std::uint32_t>(config.workers.size())),
      fragment_notes_(config.workers.size()),
      heartbeats_(config.workers.size()) {}

DataPlane::~DataPlane() {
  stop_workers();
  workers_.clear();
  ports_.reset();
  store_.reset();
  flows_.reset();
  lock_ = io::Fd{};  // somebody may be waiting for it
  if (eal_started_) io::stop_eal();
}

tl::expected<void, std::string> DataPlane::prepare() {
  if (auto r = io::start_eal(config_); !r) return r;
  eal_started_ = true;
  auto ports = io::Ports::open(config_);
  if (!ports) return tl::unexpected(ports.error());
  ports_ = std::move(*ports);
  return {};
}

tl::expected<void, std::string> DataPlane::start() {
  if (auto r = attach_steering(); !r) return r;
  if (auto r = ports_->start(config_); !r) return r;
  const auto workers = static_cast<std::uint32_t>(config_.workers.size());
  auto stats = StatsRegion::create(workers, config_.capacity.listeners, config_.capacity.targets, rte_get_tsc_hz());
  if (!stats) return tl::unexpected(stats.error());
  stats_ = std::move(*stats);
  std::vector<abi::MacAddress> port_macs;
  for (const auto& port : ports_->list()) port_macs.push_back(port.info.mac);
  FlowRegionOptions options = flow_region_options(config_);
  options.ports = std::move(port_macs);
  auto flows = FlowRegion::open(options);
  if (!flows) return tl::unexpected(flows.error());
  flows_ = std::move(*flows);
  auto trace = TraceRegion::create(workers);
  if (!trace) return tl::unexpected(trace.error());
  trace_ = std::move(*trace);
  auto store = SnapshotStore::open(config_.state_dir);
  if (!store) return tl::unexpected(store.error());
  store_ = std::move(*store);
  for (std::uint32_t w = 0; w < workers; ++w) {
    workers_.push_back(std::make_unique<Worker>(w, config_, *ports_, *stats_, *trace_, generations_));
  }
  return {};
}

// Before anything is touched that another lb-dp may be using.
tl::expected<void, std::string> DataPlane::lock(std::chrono::milliseconds patience) {
  constexpr std::chrono::milliseconds kPause{1};
  std::error_code ignored;
  std::filesystem::create_directories(config_.state_dir, ignored);
  lock_ = io::Fd(::open(config_.state_dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!lock_) return tl::unexpected(config_.state_dir + ": " + std::strerror(errno));
  const auto end = std::chrono::steady_clock::now() + patience;
  while (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (std::chrono::steady_clock::now() >= end) return tl::unexpected(config_.state_dir + ": another lb-dp uses it");
    std::this_thread::sleep_for(kPause);
  }
  return {};
}

tl::expected<void, std::string> DataPlane::attach_steering() {
  std::string directory;
  for (const io::PortConfig& port : config_.ports) {
    if (port.driver != io::Driver::af_xdp) continue;
    if (directory.empty()) {
      auto made = io::ensure_bpf_directory(config_.bpf_dir);
      if (!made) return tl::unexpected(made.error());
      directory = *made;
    }
    auto steering = io::Steering::attach(port.interface, directory);
    if (!steering) return tl::unexpected(steering.error());
    spdlog::info("steering of {}: {}, {} VIPs", port.interface, steering->taken_over() ? "taken over" : "attached",
                 steering->steered().addresses.size() + steering->steered().prefixes.size());
    steering_.push_back(std::move(*steering));
  }
  return {};
}

std::uint64_t DataPlane::dropped_without_socket() const {
  std::uint64_t dropped = 0;
  for (const io::Steering& steering : steering_) dropped += steering.stats().dropped_no_socket;
  return dropped;
}

void DataPlane::launch_workers() {
  launched_ = true;
  for (std::uint32_t w = 0; w < workers_.size(); ++w) {
    rte_eal_remote_launch(
        [](void* worker) {
          static_cast<Worker*>(worker)->run();
          return 0;
        },
        workers_[w].get(), w);
  }
}

void DataPlane::stop_workers() {
  for (const auto& worker : workers_) worker->stop();
  if (launched_) rte_eal_mp_wait_lcore();
}

// Nothing that needs privilege comes after this.
tl::expected<void, std::string> DataPlane::confine() {
  const auto user = become(config_.sandbox.user, config_.sandbox.user_required, config_.state_dir, config_.control_socket);
  if (!user) return tl::unexpected("sandbox.user: " + user.error());
  if (!*user && ::geteuid() == 0) spdlog::warn("there is no user '{}': lb-dp goes on as root", config_.sandbox.user);
  if (!config_.sandbox.seccomp) {
    spdlog::warn("sandbox.seccomp is off");
    return {};
  }
  const auto filtered = filter_system_calls();
  if (!filtered) return tl::unexpected("sandbox.seccomp: " + filtered.error());
  spdlog::info("confined: user {}, system calls {}", ::geteuid(), *filtered ? "filtered" : "not filtered in this build");
  return {};
}

tl::expected<void, std::string> DataPlane::serve(int signal_fd, const Hooks& hooks) {
  SnapshotReader reader(*this, store_.get());
  reader.restore();  // first: the first packet is forwarded already
  launch_workers();
  if (hooks.on_work) hooks.on_work();
  if (auto r = reader.listen(config_.control_socket); !r) return r;
  if (auto r = confine(); !r) return r;
  spdlog::info("{} is ready: {} workers, {} ports, control socket {}", config_.name, workers_.size(), ports_->list().size(),
               config_.control_socket);
  notify_manager("READY=1\n" + patience_wanted(std::chrono::milliseconds(watchdog_ms())));
  if (hooks.on_ready) hooks.on_ready();
  watchdog_ns_ = watchdog_ms() * kMillisecondNs;
  const int idle_poll_ms = watchdog_ns_ == 0 ? kIdlePollMs : std::min<int>(kIdlePollMs, static_cast<int>(watchdog_ms() / 4));
  while (true) {
    const auto control = reader.poll_fds();
    std::array<pollfd, 3> fds{control[0], control[1], pollfd{.fd = signal_fd, .events = POLLIN, .revents = 0}};
    if (::poll(fds.data(), fds.size(), reader.moving() ? kMovingPollMs : idle_poll_ms) < 0 && errno != EINTR) {
      return tl::unexpected(std::string("poll: ") + std::strerror(errno));
    }
    if (fds[2].revents != 0) {
      end_notified(signal_fd);
      return {};
    }
    feed_watchdog();
    reader.on_ready({fds[0], fds[1]});
    reader.on_tick();
    if (reader.moving()) report_laggard();
    flows_->touch();
    if (now_ns() - addresses_read_ns_ >= kSecondNs) refresh_own_addresses();
  }
}

// The manager is told that all is well only if every worker has gone round since it was told last: a worker that hangs takes
// lb-dp with it, and the next one begins with its flow table.
void DataPlane::feed_watchdog() {
  if (watchdog_ns_ == 0) return;
  const std::uint64_t now = now_ns();
  if (now < fed_at_ns_ + watchdog_ns_ / 4) return;
  bool all_moved = true;
  for (std::uint32_t w = 0; w < workers_.size(); ++w) {
    all_moved = std::atomic_ref(stats_->worker(w).heartbeat).load(std::memory_order_relaxed) != heartbeats_[w] && all_moved;
  }
  if (!all_moved) return;
  for (std::uint32_t w = 0; w < workers_.size(); ++w) {
    heartbeats_[w] = std::atomic_ref(stats_->worker(w).heartbeat).load(std::memory_order_relaxed);
  }
  fed_at_ns_ = now;
  notify_manager("WATCHDOG=1");
}

void DataPlane::describe(abi::Hello& hello) const {
  hello.worker_count = static_cast<std::uint32_t>(config_.workers.size());
  hello.target_capacity = config_.capacity.targets;
  hello.listener_capacity = config_.capacity.listeners;
  hello.port_count = static_cast<std::uint32_t>(ports_->list().size());
  for (std::size_t i = 0; i < ports_->list().size(); ++i) hello.ports[i] = ports_->list()[i].info;
}

std::array<int, 3> DataPlane::region_fds() const {
  return {stats_->read_only_fd(), flows_->read_only_fd(), trace_->read_only_fd()};
}

void DataPlane::trace(const abi::TraceOrder& order) {
  trace_->orders().set(order);
}

tl::expected<io::PortMap, SnapshotError> DataPlane::map_ports(const Snapshot& snapshot) const {
  io::PortMap map;
  std::vector<bool> named(ports_->list().size(), false);
  std::uint8_t next = 0;
  for (const abi::Port& port : snapshot.ports()) {
    const std::string_view name(port.name, ::strnlen(port.name, sizeof(port.name)));
    std::size_t own = 0;
    while (own < named.size() && name != ports_->list()[own].info.name) ++own;
    if (own == named.size()) {
      return tl::unexpected(SnapshotError{abi::Refusal::unknown_port, fmt::format("there is no port '{}' here", name)});
    }
    named[own] = true;
    map.in_snapshot[own] = next;
    map.own[next++] = static_cast<std::uint8_t>(own);
  }
  for (std::size_t own = 0; own < named.size(); ++own) {
    if (named[own]) continue;
    map.in_snapshot[own] = next;
    map.own[next++] = static_cast<std::uint8_t>(own);
  }
  return map;
}

tl::expected<void, SnapshotError> DataPlane::check_capacity(const Snapshot& snapshot) const {
  if (snapshot.targets().size() > config_.capacity.targets) {
    return tl::unexpected(SnapshotError{
        abi::Refusal::capacity,
        fmt::format("{} target ids, capacity.targets is {}", snapshot.targets().size(), config_.capacity.targets)});
  }
  for (const abi::Listener& listener : snapshot.listeners()) {
    if (listener.counter_index < config_.capacity.listeners) continue;
    return tl::unexpected(
        SnapshotError{abi::Refusal::capacity,
                      fmt::format("listener '{}' has counter {}, capacity.listeners is {}", snapshot.name(listener.name),
                                  listener.counter_index, config_.capacity.listeners)});
  }
  return {};
}

tl::expected<void, SnapshotError> DataPlane::learn_snat_addresses(const Snapshot& snapshot) {
  if (snat_ == nullptr) {
    std::vector<std::span<abi::Translation>> slots;
    for (std::uint32_t w = 0; w < flows_->workers(); ++w) slots.push_back(flows_->translations(w));
    snat_ = std::make_unique<SnatBook>(slots);
  }
  if (snat_->learn(snapshot.snat_addresses())) return {};
  return tl::unexpected(
      SnapshotError{abi::Refusal::capacity,
                    fmt::format("more than {} different SNAT addresses since lb-dp has started", abi::kMaxSnatAddresses)});
}

tl::expected<void, SnapshotError> DataPlane::accept(std::shared_ptr<const Snapshot> snapshot) {
  auto ports = map_ports(*snapshot);
  if (!ports) return tl::unexpected(ports.error());
  if (auto r = check_capacity(*snapshot); !r) return r;
  if (auto r = learn_snat_addresses(*snapshot); !r) return r;
  const io::Steered steered = steered_by(*snapshot);
  refresh_own_addresses();  // before the first source is steered
  for (const io::Steering& steering : steering_) {
    if (auto r = steering.add(steered); !r) return tl::unexpected(SnapshotError{abi::Refusal::system, r.error()});
  }
  if (!flows_attached_) {
    const Reattached reattached = flows_->reattach(*snapshot);
    const std::uint64_t translations = snat_->rebuild();
    spdlog::info("flow region {}: {}, {} flows kept, {} dropped, {} translations kept", flows_->path(),
                 flows_->taken_over() ? "taken over" : "new", reattached.kept, reattached.dropped, translations);
    for (const auto& worker : workers_) {
      worker->attach_flows(*flows_, fragment_notes_, *snat_);
      flow_tables_.push_back(worker->flows());
    }
    for (const auto& worker : workers_) worker->meet(flow_tables_);
    flows_attached_ = true;
  }
  flows_->record(*snapshot);
  generations_.begin(std::make_unique<ActiveGeneration>(ActiveGeneration{.snapshot = std::move(snapshot), .ports = *ports}));
  steering_to_prune_ = true;
  moving_since_ns_ = now_ns();
  next_report_ns_ = moving_since_ns_ + kSecondNs;
  return {};
}

bool DataPlane::settled() {
  if (!generations_.settled()) return false;
  if (!steering_to_prune_) return true;
  steering_to_prune_ = false;
  const io::Steered steered = steered_by(*generations_.in_force()->snapshot);
  for (const io::Steering& steering : steering_) {
    if (auto r = steering.keep_only(steered); !r) spdlog::error("{}", r.error());
  }
  return true;
}

// A new address of this host is known to the steering programs within a second.
void DataPlane::refresh_own_addresses() {
  addresses_read_ns_ = now_ns();
  if (steering_.empty()) return;
  const std::vector<abi::IpAddress> addresses = io::own_addresses();
  for (const io::Steering& steering : steering_) {
    if (auto r = steering.set_own_addresses(addresses); !r) spdlog::error("{}", r.error());
  }
}

// A worker that does not move keeps the old generation alive; that is reported and nothing is freed.
void DataPlane::report_laggard() {
  const std::uint64_t now = now_ns();
  if (now < next_report_ns_) return;
  next_report_ns_ = now + kSecondNs;
  const std::uint32_t worker = generations_.laggard();
  spdlog::error("worker {} has not taken the new generation up for {} ms; the old one stays alive until it does", worker,
                (now - moving_since_ns_) / 1'000'000);
}

}  // namespace lb::worker
