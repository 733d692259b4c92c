#include "cp/control/loop.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <tuple>
#include <utility>

#include "cp/config/diff.h"
#include "cp/config/load.h"

namespace lb::cp {
namespace {

using namespace std::chrono_literals;

constexpr auto kCoalesce = 3ms;      // after a generation, or as long as that took: changes within it make one
constexpr auto kStoreDelay = 500ms;  // changes of health reach the disk within it, or later where that costs much:
constexpr auto kStoreShare = 20;     // … one part of so many of the time is for that
constexpr auto kMostStoreDelay = 10s;
constexpr auto kFirstPathsLimit = 1000ms;  // the first generation waits that long for next hops
constexpr std::int64_t kLongestSleepMs = 60'000;
constexpr std::size_t kMaxLoggedTogether = 100;  // of what happens at one time, one line each; the rest is counted

std::string to_string(abi::Generation generation) {
  return std::to_string(generation.epoch) + "." + std::to_string(generation.n);
}

}  // namespace

Controller::Loop::Loop(ControllerOptions options, StateFile store, std::unique_ptr<RouteMirror> mirror)
    : options_(std::move(options)),
      store_(std::move(store)),
      mirror_(std::move(mirror)),
      history_folder_(options_.state_directory) {}

Controller::Loop::~Loop() {
  stop();
  network_.release();  // the mirror's
}

tl::expected<void, std::string> Controller::Loop::begin() {
  StateFile::Loaded loaded = store_.load();
  for (const std::string& error : loaded.errors) event({unix_ms_now(), "state", "", "corrupt", "", error});
  std::string text;
  std::string file;
  if (loaded.state) {
    latest_.epoch = loaded.state->epoch;
    text = loaded.state->config_text;
    file = loaded.state->config_file;
  }
  if (!options_.config_file.empty()) {
    std::ifstream stream(options_.config_file);
    if (!stream) return tl::unexpected(options_.config_file + ": cannot be read");
    std::ostringstream all;
    all << stream.rdbuf();
    text = all.str();
    file = options_.config_file;
  }
  Config config;
  if (!text.empty() || !options_.config_file.empty()) {  // a file that is empty is refused as any other that is wrong
    LoadResult result = load(text, file);
    if (!result.config) return tl::unexpected(to_text(result.violations));
    for (const Violation& warning : result.warnings)
      spdlog::warn("{}:{}: {}: {}", warning.file, warning.line, warning.field, warning.text);
    config = std::move(*result.config);
  }
  if (loaded.state) {
    roster_.restore(std::move(loaded.state->roster));
    stats_.restore_listener_starts(loaded.state->stats_instance, std::move(loaded.state->listener_starts));
    freeze_ = loaded.state->freeze;
    if (freeze_.frozen()) event({unix_ms_now(), "health", "", "frozen", "", freeze_.note});
  }
  for (const ListenerRecord& listener : roster_.listeners()) counter_owners_[listener.counter_index] = listener.config.name;
  if (auto applied = roster_.apply(config, unix_ms_now()); !applied) return tl::unexpected(applied.error());
  ++latest_.epoch;
  latest_.n = 0;
  open_history(loaded.state ? &*loaded.state : nullptr);
  if (!text.empty() && text != config_text_) {
    const Config before = load(config_text_, "").config.value_or(Config());
    take_config(text, {.file = file, .cause = "start"}, cp::diff(before, config).size());
    keep_in_history();
  }
  return {};
}

void Controller::Loop::start() {
  started_at_ = std::chrono::steady_clock::now();
  prober_ = std::make_unique<Prober>(
      [this](const ProbeSpec& spec, const ProbeResult& result) {
        asio::post(io_, [this, spec, result] { on_probe(spec, result); });
      },
      &tunnel_probes_);
  publisher_ = std::make_unique<Publisher>(
      io_, PublisherOptions{.socket_path = options_.data_plane_socket},
      PublisherCallbacks{
          .on_hello = [this](const DataPlane& data_plane) { on_hello(data_plane); },
          .on_verdict = [this](abi::Generation generation, abi::Refusal refusal,
                               const std::string& text) { on_verdict(generation, refusal, text); },
          .on_active = [this](abi::Generation generation) { on_active(generation); },
          .on_disconnected = [this](const std::string& reason) { on_disconnected(reason); },
          .on_late = [this](abi::Generation generation, std::chrono::milliseconds waited) { on_late(generation, waited); }});
  thread_ = std::thread([this] {
    network_.assign(mirror_->fd());
    watch_network();
    store_now(Publishing::waits);                                                          // the epoch
    prepare(roster_.config(), roster_, [] { return tl::expected<void, std::string>(); });  // commit() says what is wrong
    follow_members();
    take_paths();
    tick();
    changed();
    io_.run();
  });
}

void Controller::Loop::stop() {
  if (!thread_.joinable()) return;
  call([this] {
    publisher_.reset();
    prober_.reset();
    for (const auto& waiter : std::exchange(waiters_, {})) waiter->done.set_value("lb-cp ends");
    io_.stop();  // here, so that no timer and no answer finds what has just gone
  });
  thread_.join();
  disk_.join();
  if (auto saved = store_.save(encode_state(saved_state())); !saved) spdlog::error("state: {}", saved.error());
}

// ---- events ----

void Controller::Loop::event(Event event) {
  spdlog::info("{}: {} -> {}{}{}{}{}", event.object, event.old_state.empty() ? "-" : event.old_state, event.new_state,
               event.reason.empty() ? "" : " ", event.reason, event.detail.empty() ? "" : ": ", event.detail);
  keep(std::move(event));
}

void Controller::Loop::keep(Event event) {
  events_.add(std::move(event));
  live_.reset();
}

void Controller::Loop::take_events() {
  std::vector<Event> items = roster_.take_events();
  const std::size_t logged = std::min(items.size(), kMaxLoggedTogether);
  std::map<std::tuple<std::string_view, std::string_view, std::string_view>, std::size_t> more;
  for (std::size_t i = logged; i < items.size(); ++i) {
    const std::string_view object = items[i].object;
    ++more[{object.substr(0, object.find(' ')), items[i].old_state, items[i].new_state}];
  }
  std::vector<std::string> lines;  // "target initial -> healthy"
  for (const auto& [what, count] : more) {
    const auto& [object, before, after] = what;
    lines.push_back(fmt::format("{} more: {} {} -> {}", count, object, before.empty() ? "-" : before, after));
  }
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i < logged) {
      event(std::move(items[i]));
    } else if (i + kMaxEvents >= items.size()) {
      keep(std::move(items[i]));
    }
  }
  for (const std::string& line : lines) spdlog::info("and {}", line);
}

// ---- generations ----

void Controller::Loop::changed() {
  if (commit_scheduled_) return;
  commit_scheduled_ = true;
  commit_timer_.expires_at(
      std::max(std::chrono::steady_clock::now(), committed_at_ + std::max<SteadyTime::duration>(kCoalesce, commit_cost_)));
  commit_timer_.async_wait([this](const auto& error) {
    commit_scheduled_ = false;
    if (!error) commit();
  });
}

bool Controller::Loop::paths_ready() const {
  return paths_.size() == roster_.address_count() && unready_paths_ == 0;
}

// Decides, and compiles what follows. The first generation waits a moment for the kernel to find next hops: lb-dp goes on
// forwarding by the one it has meanwhile.
void Controller::Loop::commit(bool force) {
  if (!first_published_ && !paths_ready() && std::chrono::steady_clock::now() < started_at_ + kFirstPathsLimit) {
    commit_timer_.expires_after(10ms);
    commit_scheduled_ = true;
    commit_timer_.async_wait([this, force](const auto& error) {
      commit_scheduled_ = false;
      if (!error) commit(force);
    });
    return;
  }
  const auto begin = std::chrono::steady_clock::now();
  const bool due = roster_.settle(unix_ms_now(), [this](std::uint32_t id) { return flows_of(id); });
  take_events();
  if (probes_due_) plan_probes();
  if (followed_ != roster_.membership()) follow_members();
  arm_deadline();
  if (!due && !force) return;
  live_.reset();
  const abi::Generation generation{latest_.epoch, latest_.n + 1};
  auto compiled = compiler_.compile(roster_.snapshot(generation));
  committed_at_ = std::chrono::steady_clock::now();
  commit_cost_ = committed_at_ - begin;
  if (!compiled) {
    data_plane_note_ = "not compiled: " + compiled.error();
    event({unix_ms_now(), "generation " + to_string(generation), "", "refused", "", compiled.error()});
    return;
  }
  latest_ = generation;
  latest_at_ = std::chrono::steady_clock::now();
  first_published_ = true;
  newest_ = *compiled;
  unsent_ = std::move(*compiled);
  store_soon();
  publish_when_stored();
}

void Controller::Loop::publish_when_stored() {
  if (awaited_stores_ != 0 || !unsent_) return;
  publisher_->publish(std::move(*unsent_));
  unsent_.reset();
}

void Controller::Loop::arm_deadline() {
  const std::int64_t now = unix_ms_now();
  const auto next = roster_.next_deadline(now);
  if (!next) {
    deadline_timer_.cancel();
    return;
  }
  deadline_timer_.expires_after(std::chrono::milliseconds(std::clamp<std::int64_t>(*next - now, 1, kLongestSleepMs)));
  deadline_timer_.async_wait([this](const auto& error) {
    if (!error) commit();
  });
}

void Controller::Loop::plan_probes() {
  probes_due_ = false;
  prober_->set_probes(health_.plan(roster_));
}

void Controller::Loop::answer_waiters(abi::Generation generation, const std::string& why) {
  std::erase_if(waiters_, [&](const auto& waiter) {
    if (waiter->generation > generation) return false;
    waiter->done.set_value(why);
    return true;
  });
}

// ---- the state on disk ----

SavedState Controller::Loop::saved_state() const {
  return {config_text_, config_file_, latest_.epoch, roster_.memory(), stats_.instance(), stats_.listener_starts(),
          record_,      freeze_};
}

void Controller::Loop::store_soon() {
  if (store_scheduled_) return;
  store_scheduled_ = true;
  store_timer_.expires_after(std::clamp<SteadyTime::duration>(store_cost_ * kStoreShare, kStoreDelay, kMostStoreDelay));
  store_timer_.async_wait([this](const auto& error) {
    if (!error) store_now(Publishing::goes_on);
  });
}

void Controller::Loop::store_now(Publishing publishing) {
  store_timer_.cancel();
  store_scheduled_ = false;
  awaited_stores_ += publishing == Publishing::waits ? 1 : 0;
  ++begun_stores_;
  unsaved_.clear();
  const auto begin = std::chrono::steady_clock::now();
  asio::post(disk_, [this, publishing, begin, state = saved_state()] {
    auto result = store_.save(encode_state(state));
    const SteadyTime::duration cost = std::chrono::steady_clock::now() - begin;
    asio::post(io_, [this, publishing, cost, result = std::move(result)] {
      store_cost_ = cost;
      stored(result, publishing);
    });
  });
}

// What many operators change while the disk is busy is stored together.
void Controller::Loop::store_if_due() {
  if (!store_due_ || begun_stores_ != ended_stores_) return;
  store_due_ = false;
  if (unsaved_.empty()) return;  // a whole state had it
  if (store_.can_append()) {     // the disk's thread has nothing to do
    append_unsaved();
  } else {
    store_now(Publishing::goes_on);
  }
}

void Controller::Loop::append_unsaved() {
  std::vector<const TargetRecord*> targets;
  for (const TargetKey& key : unsaved_) {
    if (const TargetRecord* target = roster_.find(key)) targets.push_back(target);
  }
  unsaved_.clear();
  ++begun_stores_;
  asio::post(disk_, [this, change = encode_change(targets)] {
    auto result = store_.append(change);
    asio::post(io_, [this, result = std::move(result)] {
      if (!result) store_soon();
      stored(result, Publishing::goes_on);
    });
  });
}

void Controller::Loop::stored(const tl::expected<void, std::string>& result, Publishing publishing) {
  awaited_stores_ -= publishing == Publishing::waits ? 1 : 0;
  ++ended_stores_;
  const auto waited = stored_waiters_.upper_bound(ended_stores_);
  for (auto at = stored_waiters_.begin(); at != waited; ++at) at->second.set_value();
  stored_waiters_.erase(stored_waiters_.begin(), waited);
  store_if_due();
  const std::string error = result ? "" : result.error();
  if (error != store_error_) event({unix_ms_now(), "state", "", result ? "stored" : "not stored", "", error});
  store_error_ = error;
  publish_when_stored();  // traffic matters more than the disk
}

// ---- operations ----

// Whether `roster` compiles after the `first` step. That is found out, and tables are built, while the kernel is asked for
// the ways to the targets of `config`: commit() finds both done.
tl::expected<void, std::string> Controller::Loop::prepare(const Config& config, Roster& roster, const Step& first) {
  const std::vector<abi::IpAddress> addresses = addresses_with(config);  // before `roster` moves: it may be roster_
  auto compiling = std::async(std::launch::async, [&] {
    return first().and_then([&]() -> tl::expected<void, std::string> {
      roster.settle(unix_ms_now(), [this](std::uint32_t id) { return flows_of(id); });
      auto compiled = compiler_.compile(roster.snapshot({latest_.epoch, latest_.n + 1}));
      if (!compiled) return tl::unexpected(compiled.error());
      return {};
    });
  });
  look_up_all(config, addresses);
  return compiling.get();
}

Controller::Loop::Applied Controller::Loop::apply(const Config& config, const std::string& text, const Applying& how) {
  Applied applied;
  applied.changes = cp::diff(roster_.config(), config);
  applied.refused = refusal(applied.changes, how);
  if (!applied.refused.empty()) return applied;
  if (!applied.changes.empty() || config != roster_.config()) {
    // Nothing is kept of a configuration that cannot be compiled: try before it counts.
    Roster trial;
    const auto possible = prepare(config, trial, [&] {
      trial = roster_;
      return trial.apply(config, unix_ms_now());
    });
    if (!possible) {
      look_up_all(roster_.config(), roster_.addresses());
      applied.violations.push_back({how.file, 0, "", possible.error()});
      return applied;
    }
    roster_ = std::move(trial);
    take_config(text, how, applied.changes.size());
    store_now(Publishing::waits);
    keep_in_history();
    follow_members();
    take_paths();
    start_new_listeners();
    probes_due_ = true;
    commit(true);
  } else if (text != config_text_) {  // other comments or another order: no new generation, but what export gives back
    take_config(text, how, 0);
    store_now(Publishing::goes_on);
    keep_in_history();
  }
  applied.generation = latest_;
  applied.waiter = std::make_shared<Waiter>();
  applied.waiter->generation = latest_;
  if (latest_ != abi::Generation{latest_.epoch, 0} && active_ >= latest_ && data_plane_) {
    applied.waiter->done.set_value("");
  } else {
    waiters_.push_back(applied.waiter);
  }
  return applied;
}

std::vector<Change> Controller::Loop::diff(const Config& config) const {
  return cp::diff(roster_.config(), config);
}

// The caller has waited long enough; why is nothing there yet?
std::string Controller::Loop::give_up(const std::shared_ptr<Waiter>& waiter) {
  std::erase(waiters_, waiter);
  if (!data_plane_) return "lb-dp: " + data_plane_note_ + "; the configuration is kept and published when lb-dp is there";
  return "lb-dp has not taken generation " + to_string(waiter->generation) + " yet" +
         (data_plane_note_.empty() ? "" : ": " + data_plane_note_);
}

Drained Controller::Loop::drain(const AddressPort& target, const std::optional<std::string>& group, bool drain,
                                const DrainTerms& terms) {
  auto touched = roster_.drain(target.address, target.port, group, drain, unix_ms_now(), terms);
  if (!touched) return touched;
  unsaved_.insert(touched->begin(), touched->end());
  changed();
  // Behind the generation, if it is made at once, and with what others have asked for by then.
  if (!std::exchange(store_due_, true)) asio::post(io_, [this] { store_if_due(); });
  return touched;
}

bool Controller::Loop::freeze_health(bool frozen, const std::string& note) {
  const bool before = freeze_.frozen();
  if (before == frozen) return before;
  event({unix_ms_now(), "health", before ? "frozen" : "", frozen ? "frozen" : "unfrozen", "", frozen ? note : freeze_.note});
  freeze_ = frozen ? HealthFreeze{unix_ms_now(), note} : HealthFreeze{};
  store_now(Publishing::goes_on);
  return before;
}

std::future<void> Controller::Loop::when_stored() {
  std::promise<void> promise;
  auto future = promise.get_future();
  const std::uint64_t wanted = begun_stores_ + (store_due_ ? 1 : 0);
  if (wanted <= ended_stores_) {
    promise.set_value();
  } else {
    stored_waiters_.emplace(wanted, std::move(promise));
  }
  return future;
}

}  // namespace lb::cp
