// The control loop's memory of configurations: which one is in force, since when and why, and the ones before it.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <utility>

#include "cp/config/load.h"
#include "cp/config/removal.h"
#include "cp/control/loop.h"

namespace lb::cp {
namespace {

std::string to_string(abi::Generation generation) {
  return std::to_string(generation.epoch) + "." + std::to_string(generation.n);
}

}  // namespace

// Before start(). The state is the truth: a crash may have kept its configuration out of the history.
void Controller::Loop::open_history(const SavedState* state) {
  HistoryFolder::Loaded loaded = history_folder_.load();
  for (const std::string& error : loaded.errors) event({unix_ms_now(), "history", "", "corrupt", "", error});
  history_.assign(loaded.records.begin(), loaded.records.end());
  while (history_.size() > kMaxHistory) history_.pop_front();
  if (state == nullptr || state->config_text.empty()) {
    record_.number = history_.empty() ? 0 : history_.back().number;
    return;
  }
  config_text_ = state->config_text;
  config_file_ = state->config_file;
  record_ = state->record;
  if (!history_.empty() && history_.back().number == record_.number && record_.number != 0) return;
  // Written by an lb-cp that kept no history, or the state before the last one had to be used.
  if (record_.number == 0 || (!history_.empty() && history_.back().number > record_.number)) {
    record_ = {.number = history_.empty() ? 1 : history_.back().number + 1,
               .unix_ms = unix_ms_now(),
               .generation = {latest_.epoch, 1},
               .cause = "start",
               .file = config_file_};
  }
  keep_in_history();
}

// Why the terms do not allow it; empty if they do.
std::string Controller::Loop::refusal(const std::vector<Change>& changes, const Applying& how) const {
  if (how.if_number && *how.if_number != record_.number) return std::string(kOvertaken);
  if (const auto& expected = how.options.if_generation; expected) {
    const abi::Generation latest = std::max(latest_, record_.generation);
    if (*expected > latest) {
      return "there is no generation " + to_string(*expected) + " yet; the latest one is " + to_string(latest);
    }
    if (record_.generation > *expected) {
      return "configuration " + std::to_string(record_.number) + " (" + record_.cause +
             (record_.file.empty() ? "" : ", " + record_.file) + ") came into force with generation " +
             to_string(record_.generation) + ", after " + to_string(*expected);
    }
  }
  if (!how.options.force) {
    if (auto much = removes_too_much(roster_.config(), changes)) return *much;
  }
  return "";
}

void Controller::Loop::take_config(const std::string& text, const Applying& how, std::size_t changes) {
  config_text_ = text;
  config_file_ = how.file;
  // Configurations that become one generation, before the first one is compiled, are still told apart by their numbers.
  if (changes != 0 && record_.generation > latest_) latest_ = record_.generation;
  record_ = {.number = record_.number + 1,
             .unix_ms = unix_ms_now(),
             .generation = {latest_.epoch, latest_.n + 1},
             .cause = how.cause,
             .file = how.file == how.cause ? "" : how.file,
             .changes = changes};
  event({unix_ms_now(), "config", "", "applied", how.cause,
         how.file + ": " + std::to_string(changes) + " changes, number " + std::to_string(record_.number)});
}

// Behind whatever the disk has to do: the history is not what traffic waits for.
void Controller::Loop::keep_in_history() {
  if (history_.empty() || history_.back().number < record_.number) history_.push_back(record_);
  while (history_.size() > kMaxHistory) history_.pop_front();
  asio::post(disk_, [this, record = record_, text = config_text_] {
    auto result = history_folder_.save(record, text);
    asio::post(io_, [this, result = std::move(result)] {
      const std::string error = result ? "" : result.error();
      if (error != history_error_) event({unix_ms_now(), "history", "", result ? "stored" : "not stored", "", error});
      history_error_ = error;
    });
  });
}

std::future<tl::expected<ConfigText, std::string>> Controller::Loop::config_text(std::uint64_t number) {
  using Result = tl::expected<ConfigText, std::string>;
  std::promise<Result> promise;
  auto future = promise.get_future();
  const auto known = std::ranges::find(history_, number, &ConfigRecord::number);
  if (config_text_.empty() || (number != 0 && known == history_.end())) {
    promise.set_value(tl::unexpected(history_.empty() ? "no configuration was applied yet"
                                                      : "no configuration " + std::to_string(number) + "; the history has " +
                                                            std::to_string(history_.front().number) + " to " +
                                                            std::to_string(history_.back().number)));
  } else if (number == 0 || number == record_.number) {
    promise.set_value(ConfigText{record_, config_text_});
  } else {
    // On the disk's thread, behind its being written.
    asio::post(disk_, [this, number, promise = std::move(promise)]() mutable {
      auto entry = history_folder_.read(number);
      promise.set_value(entry ? Result(ConfigText{std::move(entry->record), std::move(entry->text)})
                              : tl::unexpected(entry.error()));
    });
  }
  return future;
}

tl::expected<explain::PlanInput, std::string> Controller::Loop::plan_input(const Config& config) const {
  explain::PlanInput input{.before = newest_, .roster = roster_, .after = roster_};
  input.now_unix_ms = unix_ms_now();
  input.generation = {latest_.epoch, latest_.n + 1};
  input.flows_known = data_plane_.has_value();
  if (auto possible = input.after.apply(config, input.now_unix_ms); !possible) return tl::unexpected(possible.error());
  std::unordered_map<std::uint32_t, std::uint64_t> flows;
  for (const auto& [name, group] : roster_.groups()) {
    for (const auto& [key, target] : group.targets) {
      if (const auto known = flows_of(target.status.id)) flows[target.status.id] = *known;
    }
  }
  input.flows_of = [flows = std::move(flows)](std::uint32_t id) -> std::optional<std::uint64_t> {
    const auto at = flows.find(id);
    return at == flows.end() ? std::nullopt : std::optional(at->second);
  };
  return input;
}

void Controller::Loop::reload() {
  if (options_.config_file.empty()) {
    spdlog::warn("SIGHUP: there is no configuration file to read; use lbctl apply");
    return;
  }
  std::ifstream stream(options_.config_file);
  std::ostringstream text;
  if (stream) text << stream.rdbuf();
  LoadResult result = load(text.str(), options_.config_file);
  if (!stream) result.violations.push_back({options_.config_file, 0, "", "cannot be read"});
  for (const Violation& warning : result.warnings)
    spdlog::warn("{}:{}: {}: {}", warning.file, warning.line, warning.field, warning.text);
  std::string refused;
  if (result.violations.empty()) {
    Applied applied = apply(*result.config, text.str(), {.file = options_.config_file, .cause = "SIGHUP"});
    result.violations = std::move(applied.violations);
    refused = std::move(applied.refused);
  }
  if (!refused.empty()) {
    spdlog::error("SIGHUP: nothing was changed: {}; lbctl apply --force does it", refused);
    event({unix_ms_now(), "config", "", "refused", "SIGHUP", options_.config_file + ": " + refused});
  } else if (!result.violations.empty()) {
    spdlog::error("SIGHUP: nothing was changed\n{}", to_text(result.violations));
    event({unix_ms_now(), "config", "", "refused", "SIGHUP",
           options_.config_file + ": " + std::to_string(result.violations.size()) + " violations"});
  }
}

}  // namespace lb::cp
