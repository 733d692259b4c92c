// A control loop that only remembers what it was asked and shows one fixed world.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "cp/api/operations.h"
#include "dp/abi/counters.h"

namespace lb::cp::api_test {

inline abi::IpAddress address(const char* text) {
  return parse_address(text).value();
}

inline LiveTarget live_target(const std::string& group, const char* ip, abi::TargetState state, StateReason reason) {
  LiveTarget target;
  target.key = {group, address(ip), 80};
  target.weight = 1;
  target.status.state = state;
  target.status.reason = reason;
  target.share = 0.5;
  return target;
}

// VIPs web (IPv4) and web6 (IPv6); listeners web-80, web6-any; groups blue (three targets) and green (one, IPv6).
inline LiveState example_state() {
  auto config = std::make_shared<Config>();
  config->seed = 1;
  config->vips = {{"web", address("192.0.2.10")}, {"web6", address("2001:db8::10")}};
  Listener web80{.name = "web-80", .vip = "web", .first_port = 80, .last_port = 80, .groups = {{"blue", 1}, {"green", 3}}};
  Listener any{.name = "web6-any",
               .vip = "web6",
               .protocol = ListenerProtocol::tcp_udp,
               .first_port = 0,
               .last_port = 65535,
               .groups = {{"green", 1}}};
  config->listeners = {web80, any};
  TargetGroup blue{.name = "blue", .port = 80};
  blue.targets = {{address("10.77.2.2"), 80, 1}, {address("10.77.2.3"), 80, 1}, {address("10.77.2.4"), 80, 1}};
  TargetGroup green{.name = "green", .port = 80, .mode = abi::ForwardingMode::l2dsr};
  green.targets = {{address("2001:db8:77::2"), 80, 1}};
  config->groups = {blue, green};

  LiveState live;
  live.config = config;
  live.generation = {3, 7};
  live.data_plane_connected = true;
  live.listeners = {{.name = "web-80", .config = web80, .counters = {123'456'789'012ULL, 99'000'000'000'000ULL, 1234, 5}},
                    {.name = "web6-any", .draining = true, .config = any, .counters = {7, 8, 9, 10}}};
  LiveGroup live_blue{.name = "blue", .table_hash = 0xabcdef, .targets = {}};
  live_blue.targets = {
      live_target("blue", "10.77.2.2", abi::TargetState::healthy, StateReason::none),
      live_target("blue", "10.77.2.3", abi::TargetState::unhealthy, StateReason::timeout),
      live_target("blue", "10.77.2.4", abi::TargetState::draining, StateReason::deregistration_in_progress)};
  live_blue.targets[0].status.flows = 41;
  live_blue.targets[0].next_hop = {.resolved = true, .interface = "lb1", .mac = {2, 0, 0, 0, 0, 0x70}};
  live_blue.targets[1].status.detail = "connect: timed \x1b[2Jout \xff after 2 s";
  live_blue.targets[2].status.drain_ends_unix_ms = 1;  // long over
  LiveGroup live_green{.name = "green", .fail_open = true, .targets = {}};
  live_green.targets = {
      live_target("green", "2001:db8:77::2", abi::TargetState::initial, StateReason::initial_health_checking)};
  live.groups = {live_blue, live_green};
  LiveWorker worker{.worker = 0, .lcore = 1, .generation = {3, 7}, .flows = 41, .flow_capacity = 1'000'000, .busy = 0.25};
  worker.counters.resize(abi::kCounterCount);
  worker.counters[static_cast<std::size_t>(abi::Counter::rx_packets)] = 18'446'744'073'709'551'615ULL;
  worker.counters[static_cast<std::size_t>(abi::Counter::drop_no_listener)] = 12;
  worker.counters[static_cast<std::size_t>(abi::Counter::drop_truncated)] = 3;
  live.workers = {worker};
  live.events = {{1'795'226'400'000, "target blue 10.77.2.3:80", "healthy", "unhealthy", "Timeout", "no answer", 2},
                 {1'795'226'300'000, "listener web-80", "", "active", "", "", 1}};
  return live;
}

class FakeOperations : public Operations {
 public:
  ApplyOutcome apply(const std::string& text, const std::string& file, const ApplyOptions& options) override {
    const std::lock_guard lock(mutex);
    applied_text = text;
    applied_file = file;
    applied_options = options;
    return outcome;
  }
  ApplyOutcome edit(const Edit& change, const ApplyOptions& options) override {
    const std::lock_guard lock(mutex);
    edited = change;
    applied_options = options;
    return outcome;
  }
  std::vector<ConfigRecord> history() override { return records; }
  tl::expected<ConfigText, std::string> config_text(std::uint64_t number) override {
    for (const ConfigRecord& record : records) {
      if (number == 0 || record.number == number) return ConfigText{record, "text " + std::to_string(record.number) + "\n"};
    }
    return tl::unexpected("no configuration " + std::to_string(number));
  }
  tl::expected<ApplyOutcome, std::string> rollback(std::uint64_t number, const ApplyOptions& options) override {
    const auto text = config_text(number);
    if (!text) return tl::unexpected(text.error());
    return apply(text->text, text->record.file, options);
  }
  ApplyOutcome diff(const std::string& text, const std::string& file) override {
    const std::lock_guard lock(mutex);
    applied_text = text;
    applied_file = file;
    return outcome;
  }
  std::shared_ptr<const LiveState> live() override {
    const std::lock_guard lock(mutex);
    if (broken) throw std::runtime_error("state is broken");
    return std::make_shared<const LiveState>(state);
  }
  LiveSummary summary() override {
    const std::lock_guard lock(mutex);
    if (broken) throw std::runtime_error("state is broken");
    return state;
  }
  std::vector<LiveTarget> targets(const std::vector<TargetKey>& keys) override {
    const std::lock_guard lock(mutex);
    std::vector<LiveTarget> found;
    for (const LiveGroup& group : state.groups) {
      std::ranges::copy_if(group.targets, std::back_inserter(found),
                           [&](const LiveTarget& target) { return std::ranges::find(keys, target.key) != keys.end(); });
    }
    return found;
  }
  EventsSince events_since(std::uint64_t instance, std::uint64_t sequence, std::chrono::milliseconds) override {
    const std::lock_guard lock(mutex);
    EventsSince found{.instance = 77, .lost = 0, .events = {}};
    for (auto event = state.events.rbegin(); event != state.events.rend(); ++event) {
      if (instance != 77 || event->sequence > sequence) found.events.push_back(*event);
    }
    return found;
  }
  tl::expected<explain::Plan, ApplyOutcome> plan(const std::string& text, const std::string&) override {
    if (text != planned_text) return tl::unexpected(outcome);
    return planned;
  }
  Drained drain(const AddressPort& target, const std::optional<std::string>& group, const DrainTerms& terms) override {
    drain_terms = terms;
    return set_drained(target.address, target.port, group, true);
  }
  Drained undrain(const AddressPort& target, const std::optional<std::string>& group) override {
    return set_drained(target.address, target.port, group, false);
  }
  bool freeze_health(bool frozen, const std::string& note) override {
    const std::lock_guard lock(mutex);
    const bool before = state.freeze.frozen();
    if (frozen != before) state.freeze = frozen ? HealthFreeze{1'795'226'400'000, note} : HealthFreeze{};
    return before;
  }
  Drained set_drained(const abi::IpAddress& ip, std::uint16_t port, const std::optional<std::string>& group, bool drain) {
    const std::lock_guard lock(mutex);
    std::vector<TargetKey> keys;
    for (LiveGroup& live_group : state.groups) {
      for (LiveTarget& target : live_group.targets) {
        if (target.key.address != ip || target.key.port != port || (group && *group != live_group.name)) continue;
        target.status.state = drain ? abi::TargetState::draining : abi::TargetState::initial;
        keys.push_back(target.key);
      }
    }
    if (keys.empty())
      return tl::unexpected("no target " + format_address_port(ip, port) + " in group " + group.value_or("?"));
    return keys;
  }
  explain::Context explain_context() override { return context; }
  tl::expected<std::unique_ptr<Tracing>, std::string> start_trace(const abi::TraceOrder& order) override {
    struct Fixed final : Tracing {
      explain::TraceFeed::Batch batch;
      int left = 1;
      bool goes_on = false;
      tl::expected<explain::TraceFeed::Batch, std::string> read() override {
        if (left-- > 0) return batch;
        if (!goes_on) return tl::unexpected<std::string>("lb-dp has gone");
        return explain::TraceFeed::Batch{.limited = batch.limited};
      }
    };
    trace_order = order;
    if (!trace_error.empty()) return tl::unexpected(trace_error);
    auto tracing = std::make_unique<Fixed>();
    tracing->batch = traced;
    tracing->goes_on = trace_goes_on;
    return tracing;
  }
  tl::expected<ExplainedConfig, std::string> explain_by(const HistoryPoint& point) override {
    for (const ConfigRecord& record : records) {
      if (point.generation ? record.generation <= *point.generation : record.number == point.number)
        return ExplainedConfig{earlier_context, record};
    }
    return tl::unexpected<std::string>("no such configuration");
  }
  std::string render(const Config& config) override {
    std::string text;
    for (const Vip& vip : config.vips) text += "vip " + vip.name + "\n";
    for (const Listener& listener : config.listeners) text += "listener " + listener.name + "\n";
    for (const TargetGroup& group : config.groups) {
      text += "target-group " + group.name + " with " + std::to_string(group.targets.size()) + "\n";
    }
    return text;
  }

  std::mutex mutex;
  LiveState state = example_state();
  ApplyOutcome outcome;
  explain::Context context;
  explain::Context earlier_context;
  bool broken = false;
  std::string applied_text;
  std::string applied_file;
  ApplyOptions applied_options;
  std::string planned_text;
  explain::Plan planned;
  std::optional<Edit> edited;
  DrainTerms drain_terms;
  abi::TraceOrder trace_order;
  std::string trace_error;
  bool trace_goes_on = false;
  explain::TraceFeed::Batch traced;
  std::vector<ConfigRecord> records{
      {.number = 8,
       .unix_ms = 1'795'226'400'000,
       .generation = {3, 7},
       .cause = "target add blue 10.77.2.4:80",
       .changes = 1},
      {.number = 7, .unix_ms = 1'795'226'300'000, .generation = {3, 2}, .cause = "apply", .file = "lb.yaml", .changes = 9}};
};

// A directory of its own, removed at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    path_ = (std::filesystem::temp_directory_path() / "lb-api-XXXXXX").string();
    if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace lb::cp::api_test
