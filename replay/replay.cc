#include "replay/replay.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <utility>

#include "cp/config/load.h"
#include "cp/snapshot/security_table.h"
#include "dp/lb/dispatch.h"
#include "dp/lb/guard_security.h"
#include "dp/net/parse.h"
#include "replay/capture.h"
#include "replay/events.h"
#include "replay/toeplitz.h"
#include "replay/worker.h"

namespace lb::replay {
namespace {

// The workers' clock at the first packet: far enough from 0 that no idle time reaches back before it.
constexpr std::uint64_t kOriginNs = 86'400'000'000'000;

using Errors = std::vector<std::string>;

std::string format(const cp::Violation& violation) {
  std::string text = violation.file;
  if (violation.line != 0) text += ":" + std::to_string(violation.line);
  if (!violation.field.empty()) text += ": " + violation.field;
  return text + ": " + violation.text;
}

std::string read_file(const std::string& file, Errors& errors) {
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream text;
  if (stream) text << stream.rdbuf();
  if (!stream || stream.bad()) errors.push_back(file + ": " + std::strerror(errno));
  return text.str();
}

// Everything that was read before the first packet: an event that applies a configuration has it here already.
struct Script {
  cp::Config config;
  std::vector<Event> events;
  std::vector<cp::Config> event_configs;  // by event; empty for events that apply none
  Errors warnings;
};

std::optional<cp::Config> load_config(const std::string& file, Errors& warnings, Errors& errors) {
  const std::size_t errors_before = errors.size();
  const std::string text = read_file(file, errors);
  if (errors.size() != errors_before) return std::nullopt;
  cp::LoadResult loaded = cp::load(text, file);
  for (const cp::Violation& warning : loaded.warnings) warnings.push_back(format(warning));
  for (const cp::Violation& violation : loaded.violations) errors.push_back(format(violation));
  if (!loaded.violations.empty()) return std::nullopt;
  return std::move(loaded.config);
}

bool has_target(const cp::Config& config, const TargetAddress& wanted) {
  return std::any_of(config.groups.begin(), config.groups.end(), [&](const cp::TargetGroup& group) {
    return std::any_of(group.targets.begin(), group.targets.end(), [&](const cp::Target& target) {
      return TargetAddress{target.address, target.port} == wanted;
    });
  });
}

// An event names a target of the configuration in force at its moment.
void check_event_targets(const Script& script, const Options& options, Errors& errors) {
  const cp::Config* in_force = &script.config;
  for (std::size_t i = 0; i < script.events.size(); ++i) {
    const Event& event = script.events[i];
    if (event.kind == EventKind::apply) {
      in_force = &script.event_configs[i];
    } else if (!has_target(*in_force, {event.address, event.port})) {
      errors.push_back(format({options.events_file, event.line, "",
                               "no target " + cp::format_address_port(event.address, event.port) +
                                   " in the configuration in force at that time"}));
    }
  }
  for (const TargetAddress& target : options.unhealthy) {
    const bool known = has_target(script.config, target) ||
                       std::any_of(script.event_configs.begin(), script.event_configs.end(),
                                   [&](const cp::Config& config) { return has_target(config, target); });
    if (!known) errors.push_back("--unhealthy " + cp::format_address_port(target.first, target.second) + ": no such target");
  }
}

tl::expected<Script, Errors> load_script(const Options& options) {
  Script script;
  Errors errors;
  if (auto config = load_config(options.config_file, script.warnings, errors)) script.config = *std::move(config);
  if (!options.events_file.empty()) {
    auto events = load_events(options.events_file);
    if (events) {
      script.events = *std::move(events);
    } else {
      for (const cp::Violation& violation : events.error()) errors.push_back(format(violation));
    }
  }
  for (const Event& event : script.events) {
    cp::Config& config = script.event_configs.emplace_back();
    if (event.kind != EventKind::apply) continue;
    if (auto loaded = load_config(event.file, script.warnings, errors)) config = *std::move(loaded);
  }
  if (errors.empty()) check_event_targets(script, options, errors);
  if (!errors.empty()) return tl::unexpected(std::move(errors));
  return script;
}

// What is read of a frame before the pipeline has it.
struct Glance {
  std::uint32_t worker = 0;
  std::uint16_t destination_port = 0;
  net::FlowKey key;
};

Glance look_at(std::span<const std::uint8_t> frame, std::uint32_t workers) {
  net::ParsedPacket packet;
  const auto length = static_cast<std::uint32_t>(frame.size());
  const net::ParseResult result = net::parse(frame.data(), length, false, packet).result;
  if (result != net::ParseResult::ok && result != net::ParseResult::other_ip) return {};
  return {rss_worker(rss_hash(packet.key, result == net::ParseResult::ok), workers), packet.key.destination_port,
          packet.key};
}

// Which rule of the listener's security group denied the flow.
std::string refusal(const Snapshot& snapshot, std::uint32_t listener, const net::FlowKey& key) {
  const abi::Listener& guarded = snapshot.listeners()[listener];
  const SecurityAnswer answer = ask_security(snapshot, guarded, key);
  const SecurityView& tables = snapshot.security();
  return std::string(tables.name(tables.groups[guarded.security_group].name)) + ": " +
         (answer.rule == abi::kNoIndex ? "no rule speaks of this client, default deny"
                                       : cp::rule_text(tables.rules[answer.rule]));
}

class Replay {
 public:
  Replay(const Options& options, const Script& script, CaptureWriter& writer)
      : options_(options),
        script_(script),
        output_(writer),
        tables_(options.workers),
        notes_(options.workers),
        world_(options.mtu_bytes, options.unhealthy, [this](std::uint32_t id) { return flows_of(id); }),
        held_(options.workers),
        translations_(options.workers, std::vector<abi::Translation>(translation_capacity())),
        snat_(std::vector<std::span<abi::Translation>>(translations_.begin(), translations_.end())) {
    WorkerOptions worker_options{.flows = options.flows_per_worker,
                                 .target_capacity = target_capacity(),
                                 .listener_capacity = listener_capacity(),
                                 .secret = options.secret,
                                 .snat = &snat_};
    target_flows_.resize(options.workers);
    worker_options.target_flows = target_flows_;
    for (; worker_options.index < options.workers; ++worker_options.index) {
      workers_.push_back(std::make_unique<Worker>(worker_options, output_, tables_, notes_));
    }
    for (const auto& worker : workers_) flow_tables_.push_back(worker->flows());
    for (const auto& worker : workers_) worker->meet(flow_tables_);
  }

  tl::expected<void, std::string> start() {
    if (auto applied = world_.apply(script_.config, 0); !applied)
      return tl::unexpected(options_.config_file + ": " + applied.error());
    return settle(0);
  }

  // One packet in; take_lines() has its line of JSON, unless it is held.
  tl::expected<void, std::string> packet(const CapturedFrame& frame) {
    if (first_ns_ == std::nullopt) first_ns_ = frame.at_ns;
    const std::uint64_t elapsed_ns = frame.at_ns > *first_ns_ ? frame.at_ns - *first_ns_ : 0;
    if (auto advanced = advance(std::max(now_ns_, elapsed_ns)); !advanced)
      return tl::unexpected(std::move(advanced.error()));
    const Glance glance = look_at(frame.bytes, options_.workers);
    output_.start_packet(frame.at_ns);
    const Outcome outcome = workers_[glance.worker]->process(*world_.snapshot(), frame.bytes, kOriginNs + now_ns_);
    lines_.push_back(verdict_line(outcome, glance));
    if (outcome.verdict == Verdict::held) held_[glance.worker].push_back(packets_ - 1);
    finish_held();
    return {};
  }

  // What is held at the end waits in vain.
  tl::expected<void, std::string> finish() {
    if (lines_.empty()) return {};
    return advance(now_ns_ + kHoldNs);
  }

  // The lines of JSON that are complete, in order: a held packet's comes when it ends, and those behind it wait.
  std::string take_lines() {
    std::string text;
    for (; !lines_.empty() && !lines_.front()["verdict"].is_null(); lines_.pop_front()) text += lines_.front().dump() + '\n';
    return text;
  }

  [[nodiscard]] std::array<std::uint64_t, abi::kCounterCount> counters() const {
    std::array<std::uint64_t, abi::kCounterCount> sum{};
    for (std::size_t i = 0; i < sum.size(); ++i) {
      for (const auto& worker : workers_) sum[i] += worker->counter(i);
    }
    return sum;
  }

 private:
  // Lets time pass up to `to_ns`: what falls due on the way happens at its own moment, in order.
  tl::expected<void, std::string> advance(std::uint64_t to_ns) {
    for (;;) {
      std::uint64_t next_ns = to_ns + 1;
      if (next_event_ < script_.events.size())
        next_ns = std::min(next_ns, std::max(now_ns_, script_.events[next_event_].at_ns));
      if (const auto deadline_ns = world_.deadline_ns()) next_ns = std::min(next_ns, std::max(now_ns_, *deadline_ns));
      if (next_ns > to_ns) break;
      set_time(next_ns);
      while (next_event_ < script_.events.size() && script_.events[next_event_].at_ns <= now_ns_) {
        if (auto done = happen(next_event_++); !done) return done;
      }
      if (auto settled = settle(now_ns_); !settled) return settled;
    }
    set_time(to_ns);
    return {};
  }

  // The workers know a snapshot's SNAT addresses before they have the snapshot.
  tl::expected<void, std::string> settle(std::uint64_t at_ns) {
    if (auto settled = world_.settle(at_ns); !settled) return settled;
    if (snat_.learn(world_.snapshot()->snat_addresses())) return {};
    return tl::unexpected("more than " + std::to_string(abi::kMaxSnatAddresses) + " different SNAT addresses");
  }

  void set_time(std::uint64_t at_ns) {
    now_ns_ = at_ns;
    for (const auto& worker : workers_) worker->age(*world_.snapshot(), kOriginNs + now_ns_);
    finish_held();
  }

  tl::expected<void, std::string> happen(std::size_t index) {
    const Event& event = script_.events[index];
    const TargetAddress target{event.address, event.port};
    tl::expected<void, std::string> done;
    switch (event.kind) {
      case EventKind::apply: done = world_.apply(script_.event_configs[index], now_ns_); break;
      case EventKind::drain: done = world_.drain(target, true, now_ns_); break;
      case EventKind::undrain: done = world_.drain(target, false, now_ns_); break;
      case EventKind::healthy: world_.set_healthy(target, true, now_ns_); break;
      case EventKind::unhealthy: world_.set_healthy(target, false, now_ns_); break;
    }
    if (!done) return tl::unexpected(format({options_.events_file, event.line, "", done.error()}));
    return {};
  }

  nlohmann::ordered_json verdict_line(const Outcome& outcome, const Glance& glance) {
    static constexpr std::array kFlow = {"none", "hit", "new"};
    const Snapshot& snapshot = *world_.snapshot();
    nlohmann::ordered_json line;
    line["n"] = packets_++;
    line["verdict"] = outcome.verdict == Verdict::tx ? "tx" : outcome.verdict == Verdict::punt ? "punt" : "drop";
    if (outcome.verdict == Verdict::held) line["verdict"] = nullptr;
    line["reason"] = nullptr;
    if (outcome.reason != abi::DropReason::none) line["reason"] = abi::to_string(outcome.reason);
    line["listener"] = nullptr;
    if (outcome.listener != abi::kNoIndex) line["listener"] = snapshot.name(snapshot.listeners()[outcome.listener].name);
    line["target_group"] = nullptr;
    if (outcome.group != abi::kNoIndex) line["target_group"] = snapshot.name(snapshot.groups()[outcome.group].name);
    line["target"] = nullptr;
    if (outcome.target != abi::kNoIndex) {
      line["target"] = target_name(outcome.target, outcome.listener, glance.destination_port);
    }
    line["flow"] = kFlow[static_cast<std::size_t>(outcome.flow)];
    line["worker"] = glance.worker;
    line["out_len"] = nullptr;
    if (outcome.out_length != 0) line["out_len"] = outcome.out_length;
    line["out"] = output_.frames();
    if (outcome.reason == abi::DropReason::security_group) line["rule"] = refusal(snapshot, outcome.listener, glance.key);
    return line;
  }

  // A target without a port of its own gets the packet on the port the client asked for.
  std::string target_name(std::uint32_t id, std::uint32_t listener, std::uint16_t asked_port) const {
    const Snapshot& snapshot = *world_.snapshot();
    const abi::Target& target = snapshot.targets()[id];
    if (asked_port == 0 && listener != abi::kNoIndex) asked_port = snapshot.listeners()[listener].first_port;
    return cp::format_address_port(target.address, target.port != 0 ? target.port : asked_port);
  }

  // Held packets that have ended get their line's verdict.
  void finish_held() {
    const Snapshot& snapshot = *world_.snapshot();
    for (const auto& worker : workers_) {
      for (const HeldEnd& end : worker->take_held_ends()) {
        nlohmann::ordered_json& line = lines_[held_[end.worker][end.number] - (packets_ - lines_.size())];
        line["verdict"] = end.reason == abi::DropReason::none ? "tx" : "drop";
        if (end.reason != abi::DropReason::none) line["reason"] = abi::to_string(end.reason);
        if (end.listener != abi::kNoIndex) line["listener"] = snapshot.name(snapshot.listeners()[end.listener].name);
        if (end.target != abi::kNoIndex) {
          line["target_group"] = snapshot.name(snapshot.groups()[snapshot.targets()[end.target].group].name);
          line["target"] = target_name(end.target, end.listener, 0);
          line["flow"] = "hit";
        }
        if (end.reason != abi::DropReason::none) continue;
        line["out_len"] = end.out_length;
        line["out"] = {end.frame};
      }
    }
  }

  std::optional<std::uint64_t> flows_of(std::uint32_t target_id) const {
    std::uint64_t flows = 0;
    for (const auto& worker : workers_) flows += worker->flows_of(target_id);
    return flows;
  }

  // Ids are dense and reused at most once their flows are gone, so all targets ever configured are enough.
  [[nodiscard]] std::uint32_t target_capacity() const {
    std::size_t targets = 0;
    for_each_config([&](const cp::Config& config) {
      for (const cp::TargetGroup& group : config.groups) targets += group.targets.size();
    });
    return static_cast<std::uint32_t>(targets);
  }

  [[nodiscard]] std::uint32_t listener_capacity() const {
    std::size_t listeners = 0;
    for_each_config([&](const cp::Config& config) { listeners += 2 * config.listeners.size(); });  // TCP_UDP counts as two
    return static_cast<std::uint32_t>(listeners);
  }

  // As many as lb-dp has by default, where a target group needs them.
  [[nodiscard]] std::size_t translation_capacity() const {
    std::size_t capacity = 2;
    for_each_config([&](const cp::Config& config) {
      for (const cp::TargetGroup& group : config.groups) capacity = group.snat_addresses.empty() ? capacity : 65536;
    });
    return capacity;
  }

  void for_each_config(const auto& visit) const {
    visit(script_.config);
    for (const cp::Config& config : script_.event_configs) visit(config);
  }

  const Options& options_;
  const Script& script_;
  Output output_;
  std::vector<std::span<const abi::FlowLine>> tables_;  // by worker
  std::vector<FragmentNotes> notes_;                    // by worker
  World world_;
  std::vector<const std::uint32_t*> target_flows_;  // by worker
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<FlowTable*> flow_tables_;  // by worker
  std::optional<std::uint64_t> first_ns_;
  std::uint64_t now_ns_ = 0;  // since the first packet
  std::uint64_t packets_ = 0;
  std::deque<nlohmann::ordered_json> lines_;      // of the last packets, not yet taken; verdict null: held
  std::vector<std::vector<std::uint64_t>> held_;  // by worker: which packets it has held
  std::size_t next_event_ = 0;
  std::vector<std::vector<abi::Translation>> translations_;  // by worker
  SnatBook snat_;
};

tl::expected<void, std::string> run_packets(Replay& replay, CaptureReader& reader, std::ostream* verdicts) {
  for (;;) {
    auto frame = reader.next();
    if (!frame) return tl::unexpected(std::move(frame.error()));
    if (!*frame) break;
    auto done = replay.packet(**frame);
    if (!done) return done;
    const std::string lines = replay.take_lines();
    if (verdicts != nullptr) *verdicts << lines;
  }
  auto done = replay.finish();
  const std::string lines = replay.take_lines();
  if (verdicts != nullptr) *verdicts << lines;
  return done;
}

}  // namespace

tl::expected<Result, Errors> run(const Options& options) {
  if (const auto& kernel = chosen_kernel(); !kernel) return tl::unexpected(Errors{kernel.error()});
  auto script = load_script(options);
  if (!script) return tl::unexpected(std::move(script.error()));
  auto reader = CaptureReader::open(options.in_file);
  if (!reader) return tl::unexpected(Errors{reader.error()});
  auto writer = CaptureWriter::open(options.out_file, reader->nanoseconds());
  if (!writer) return tl::unexpected(Errors{writer.error()});
  std::ofstream verdicts;
  if (!options.json_file.empty()) {
    verdicts.open(options.json_file, std::ios::binary | std::ios::trunc);
    if (!verdicts) return tl::unexpected(Errors{options.json_file + ": " + std::strerror(errno)});
  }

  Replay replay(options, *script, *writer);
  if (auto started = replay.start(); !started) return tl::unexpected(Errors{started.error()});
  Errors errors;
  if (auto ran = run_packets(replay, *reader, options.json_file.empty() ? nullptr : &verdicts); !ran)
    errors.push_back(ran.error());
  if (auto closed = writer->close(); !closed) errors.push_back(closed.error());
  if (!options.json_file.empty() && !verdicts.flush()) errors.push_back(options.json_file + ": " + std::strerror(errno));
  if (!errors.empty()) return tl::unexpected(std::move(errors));
  return Result{replay.counters(), std::move(script->warnings)};
}

void print_summary(const Result& result, std::ostream& out) {
  for (std::size_t i = 0; i < abi::kCounterCount; ++i) {
    const abi::CounterInfo& info = abi::kCounters[i];
    out << (info.is_drop ? "drop_" : "") << info.name << ' ' << result.counters[i] << ' ' << info.unit << "  # " << info.help
        << '\n';
  }
}

}  // namespace lb::replay
