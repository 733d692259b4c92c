// The control loop's ears: network, probes, lb-dp; and what it shows of itself.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "cp/control/loop.h"
#include "dp/base/notify.h"

namespace lb::cp {
namespace {

using namespace std::chrono_literals;

std::string to_string(abi::Generation generation) {
  return std::to_string(generation.epoch) + "." + std::to_string(generation.n);
}

std::string describe(const Path& path) {
  if (!path.next_hop.resolved) return path.note;
  return format_mac(path.next_hop.mac) + " via " + path.next_hop.interface;
}

bool is_ready(const Path& path) {
  return path.next_hop.resolved || path.local;
}

// Whatever is mapped stays mapped with its SegmentMemory.
SegmentBytes bytes_of(const std::shared_ptr<const SegmentMemory>& memory) {
  return {memory->bytes(), memory, false};
}

}  // namespace

// ---- network ----

void Controller::Loop::watch_network() {
  network_.async_wait(asio::posix::stream_descriptor::wait_read, [this](const auto& error) {
    if (error) return;
    network_changed();
    watch_network();
  });
}

void Controller::Loop::network_changed() {
  mirror_->on_readable();
  look_up_paths();
}

// A slice of addresses at a time, so that nobody waits for a hundred thousand of them.
void Controller::Loop::look_up_paths() {
  const bool more = mirror_->step();
  take_paths();
  if (more) asio::post(io_, [this] { look_up_paths(); });
}

// Of the targets of `config` and of those that may drain when it is in force. Sorted.
std::vector<abi::IpAddress> Controller::Loop::addresses_with(const Config& config) const {
  std::vector<abi::IpAddress> addresses = roster_.addresses();
  for (const TargetGroup& group : config.groups) {
    for (const Target& target : group.targets) addresses.push_back(target.address);
  }
  std::ranges::sort(addresses, AddressOrder());
  addresses.erase(std::unique(addresses.begin(), addresses.end()), addresses.end());
  return addresses;
}

// At once: whoever applied a configuration waits for targets that can be reached.
void Controller::Loop::look_up_all(const Config& config, const std::vector<abi::IpAddress>& addresses) {
  mirror_->set_static(config.static_neighbours);
  mirror_->want(addresses);
  if (std::ranges::any_of(config.groups, [](const auto& group) { return group.mode == abi::ForwardingMode::geneve; })) {
    mirror_->want_routes(true);  // follow_members() ends it
  }
  while (mirror_->step()) {
  }
}

// Targets came or went: their addresses are wanted, and what is known of them reaches new targets at the same address.
void Controller::Loop::follow_members() {
  followed_ = roster_.membership();
  const std::vector<abi::IpAddress> addresses = roster_.addresses();
  mirror_->want(addresses);
  mirror_->want_routes(roster_.wants_routes());
  std::erase_if(paths_, [&](const auto& item) {
    if (std::ranges::binary_search(addresses, item.first, AddressOrder())) return false;
    unready_paths_ -= is_ready(item.second) ? 0 : 1;
    tunnel_probes_.forget_next_hop(item.first);
    return true;
  });
  for (const auto& [address, path] : paths_) roster_.set_path(address, path.next_hop, path.local);
}

void Controller::Loop::take_paths() {
  if (auto routes = mirror_->take_routes()) {
    roster_.set_routes(std::move(*routes));
    changed();
  }
  auto changes = mirror_->take_changes();
  if (changes.empty()) return;
  for (auto& [address, path] : changes) {
    const std::size_t before = paths_.size();
    Path& known = paths_.try_emplace(paths_.end(), address)->second;  // sorted, as they come
    const bool added = paths_.size() != before;
    unready_paths_ -= added || is_ready(known) ? 0 : 1;
    unready_paths_ += is_ready(path) ? 0 : 1;
    if (known.next_hop.resolved && !path.next_hop.resolved) {
      event({unix_ms_now(), "next hop " + format_address(address), "resolved", "unresolved", "", path.note});
    } else if (spdlog::should_log(spdlog::level::debug)) {
      spdlog::debug("next hop {}: {}", format_address(address), describe(path));
    }
    probes_due_ |= known.local != path.local;
    roster_.set_path(address, path.next_hop, path.local);
    tunnel_probes_.set_next_hop(address, path.next_hop);
    known = std::move(path);
  }
  choose_tunnel_sources();
  changed();
}

// Where the configuration names none: this host's address on the way to the first target of each family.
void Controller::Loop::choose_tunnel_sources() {
  std::optional<AddressPrefix> v4;
  std::optional<AddressPrefix> v6;
  for (const auto& [address, path] : paths_) {
    if (!path.next_hop.resolved || path.next_hop.source.is_zero()) continue;
    auto& chosen = address.is_v4() ? v4 : v6;
    if (!chosen) chosen = AddressPrefix{path.next_hop.source, 128};
  }
  roster_.set_default_tunnel_sources(v4, v6);
}

void Controller::Loop::tick() {
  notify_manager("WATCHDOG=1");
  follow_clock();
  mirror_->tick(std::chrono::steady_clock::now());
  look_up_paths();
  watch_pools();
  for (const ListenerRecord& listener : roster_.listeners())
    peaks_.look(listener.counter_index, stats_.listener(listener.counter_index).packets, SteadyTime::clock::now());
  prober_->hasten(health_.troubled([this](std::uint32_t id) { return stats_.target_troubles(id); }));
  tick_timer_.expires_after(1s);
  tick_timer_.async_wait([this](const auto& error) {
    if (!error) tick();
  });
}

void Controller::Loop::watch_pools() {
  if (!data_plane_) return pools_.forget_counts();
  const auto now_ms = std::chrono::duration_cast<std::chrono::milliseconds>(SteadyTime::clock::now().time_since_epoch());
  for (Event& happened : pools_.look(stats_.workers(), stats_.totals(), now_ms.count())) {
    happened.unix_ms = unix_ms_now();
    event(std::move(happened));
  }
}

// Somebody has set the wall clock: what lasts goes on as long as it was to.
void Controller::Loop::follow_clock() {
  const std::int64_t jump = clock_.take_jump();
  if (jump == 0) return;
  roster_.shift_times(jump);
  health_.shift_times(jump);
  if (freeze_.frozen()) freeze_.since_unix_ms += jump;
  event({unix_ms_now(), "clock", "", "set", "",
         std::to_string(jump / 1000) + " s: drains and other delays last as long as before"});
  arm_deadline();
  store_soon();
}

// ---- probes ----

void Controller::Loop::on_probe(const ProbeSpec& spec, const ProbeResult& result) {
  if (freeze_.frozen()) {
    health_.show(spec, result, roster_);
    live_.reset();
  } else if (health_.take(spec, result, roster_, unix_ms_now())) {
    changed();
  }
}

// ---- lb-dp ----

void Controller::Loop::on_hello(const DataPlane& data_plane) {
  data_plane_ = data_plane;
  data_plane_note_.clear();
  StatsView view{{}, data_plane.stats};
  for (std::uint32_t worker = 0; worker < data_plane.stats->workers().size(); ++worker) {
    view.workers.push_back({&data_plane.stats->workers()[worker], data_plane.stats->listeners(worker),
                            data_plane.stats->target_flows(worker), data_plane.stats->target_troubles(worker)});
  }
  stats_.attach(std::move(view), data_plane.instance);
  start_new_listeners();
  std::vector<MirrorPort> ports;
  for (const abi::PortInfo& port : data_plane.ports) ports.push_back({port.name, port.ifindex, port.mac, port.mtu_bytes});
  mirror_->set_ports(std::move(ports));
  take_paths();
  event({unix_ms_now(), "data-plane", "disconnected", "connected", "",
         "pid " + std::to_string(data_plane.pid) + ", " + std::to_string(data_plane.worker_count) + " workers, generation " +
             to_string(data_plane.generation)});
  watch_pools();  // what is counted from now on is news
  // A generation that is not above lb-dp's would be stale: go on in the next epoch (rule 3).
  if (data_plane.generation < latest_ || data_plane.generation == latest_) {
    commit();
    return;
  }
  latest_ = {data_plane.generation.epoch + 1, 0};
  unsent_.reset();
  store_now(Publishing::waits);
  commit(true);
}

void Controller::Loop::on_verdict(abi::Generation generation, abi::Refusal refusal, const std::string& text) {
  if (refusal == abi::Refusal::none) {
    data_plane_note_.clear();
    return;
  }
  data_plane_note_ =
      "refused generation " + to_string(generation) + ": " + std::string(abi::to_string(refusal)) + ": " + text;
  event({unix_ms_now(), "generation " + to_string(generation), "published", "refused", std::string(abi::to_string(refusal)),
         text});
  answer_waiters(generation, "lb-dp " + data_plane_note_);
}

void Controller::Loop::on_active(abi::Generation generation) {
  active_ = generation;
  roster_.activated(generation);
  if (newest_ && newest_->generation == generation) {
    in_force_ = newest_;
    last_apply_seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - latest_at_).count();
  }
  live_.reset();
  answer_waiters(generation, "");
  arm_deadline();
}

void Controller::Loop::on_disconnected(const std::string& reason) {
  if (data_plane_) event({unix_ms_now(), "data-plane", "connected", "disconnected", "", reason});
  data_plane_.reset();
  data_plane_note_ = reason;
  stats_.detach();
  live_.reset();
}

void Controller::Loop::on_late(abi::Generation generation, std::chrono::milliseconds waited) {
  data_plane_note_ = "generation " + to_string(generation) + " is unanswered for " + std::to_string(waited.count()) + " ms";
  event({unix_ms_now(), "generation " + to_string(generation), "published", "late", "", data_plane_note_});
}

void Controller::Loop::start_new_listeners() {
  std::map<std::uint32_t, std::string> owners;
  for (const ListenerRecord& listener : roster_.listeners()) {
    owners[listener.counter_index] = listener.config.name;
    const auto known = counter_owners_.find(listener.counter_index);
    if (known == counter_owners_.end() || known->second != listener.config.name)
      stats_.start_listener(listener.counter_index);
  }
  counter_owners_ = std::move(owners);
}

// ---- what it shows ----

LiveSummary Controller::Loop::summary() const {
  return {.generation = data_plane_ && active_ != abi::Generation{} ? active_ : latest_,
          .data_plane_connected = data_plane_.has_value(),
          .data_plane_note = data_plane_note_,
          .freeze = freeze_,
          .workers = stats_.workers()};
}

std::shared_ptr<const LiveState> Controller::Loop::live() {
  const auto now = std::chrono::steady_clock::now();
  // Many readers of a large state share one picture of it: never more than a fifth of the thread's time goes there.
  if (live_ && now < live_at_ + 5 * live_cost_) return live_;
  auto live = std::make_shared<LiveState>();
  static_cast<LiveSummary&>(*live) = summary();
  live->config = std::make_shared<const Config>(roster_.config());
  for (const ListenerRecord& listener : roster_.listeners()) {
    live->listeners.push_back(
        {listener.config.name, listener.draining, listener.config, stats_.listener(listener.counter_index)});
  }
  if (newest_) shares_.update(*newest_);
  for (const auto& [name, group] : roster_.groups()) {
    LiveGroup& row = live->groups.emplace_back();
    row.name = name;
    row.fail_open = group.fail_open;
    const SlotShares::Group* shares = shares_.find(name);
    if (shares != nullptr) row.table_hash = shares->table_hash;
    row.targets.reserve(group.targets.size());
    for (const auto& [key, target] : group.targets) row.targets.push_back(show(group, target, shares));
  }
  live->events = events_.newest_first();
  live_ = std::move(live);
  live_at_ = std::chrono::steady_clock::now();
  live_cost_ = live_at_ - now;
  return live_;
}

LiveTarget Controller::Loop::show(const GroupRecord& group, const TargetRecord& target,
                                  const SlotShares::Group* shares) const {
  LiveTarget shown{target.key, target.weight, target.status, target.next_hop, 0};
  shown.status.flows = flows_of(target.status.id).value_or(0);
  shown.drain_then = target.status.drain_then.value_or(group.config.after_deregistration);
  if (shares == nullptr) return shown;
  const auto share = shares->share.find(target.status.id);
  if (share != shares->share.end()) shown.share = share->second;
  return shown;
}

std::vector<LiveTarget> Controller::Loop::targets(const std::vector<TargetKey>& keys) {
  if (newest_) shares_.update(*newest_);
  std::vector<LiveTarget> found;
  for (const TargetKey& key : keys) {
    const TargetRecord* target = roster_.find(key);
    if (target != nullptr) found.push_back(show(roster_.groups().at(key.group), *target, shares_.find(key.group)));
  }
  return found;
}

MetricsInput Controller::Loop::metrics() {
  MetricsInput input{
      .live = live(), .totals = stats_.totals(), .last_apply_seconds = last_apply_seconds_, .probes = health_.counts()};
  for (const ListenerRecord& listener : roster_.listeners()) {
    if (!listener.draining) input.peak_rates[listener.config.name] = peaks_.peak(listener.counter_index);
  }
  return input;
}

explain::Context Controller::Loop::explain_context() {
  explain::Context context;
  const std::optional<CompiledSnapshot>& shown = in_force_ ? in_force_ : newest_;
  if (shown) {
    if (!explained_ || explained_->generation() != shown->generation) {
      // Segments that are shared with the one before have been verified.
      std::map<std::uint64_t, SegmentBytes> segments;
      for (const auto& segment : shown->segments) {
        const auto known = verified_segments_.find(segment->id());
        segments.emplace(segment->id(), known != verified_segments_.end() ? known->second : bytes_of(segment));
      }
      verified_segments_ = std::move(segments);
      auto opened = lb::Snapshot::open(bytes_of(shown->root), [this](std::uint64_t id) -> SegmentBytes* {
        const auto at = verified_segments_.find(id);
        return at == verified_segments_.end() ? nullptr : &at->second;
      });
      if (opened) {
        explained_ = std::move(*opened);
      } else {
        spdlog::error("generation {} does not verify: {}", to_string(shown->generation), opened.error().text);
      }
    }
    context.snapshot = explained_;
  }
  if (data_plane_) {
    context.worker_tables = data_plane_->flows->tables();
    context.translations = data_plane_->flows->translations();
    context.secret = data_plane_->flows->node_secret();
    context.owner = data_plane_->flows;
    for (std::uint32_t worker = 0; worker < data_plane_->stats->workers().size(); ++worker)
      context.rates.push_back(data_plane_->stats->rates(worker));
    context.stats = data_plane_->stats;
  }
  return context;
}

}  // namespace lb::cp
