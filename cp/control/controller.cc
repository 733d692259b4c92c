#include "cp/control/controller.h"

#include <algorithm>
#include <utility>

#include "cp/config/diff.h"
#include "cp/config/edit.h"
#include "cp/config/load.h"
#include "cp/config/render.h"
#include "cp/control/loop.h"

namespace lb::cp {

std::string to_text(const std::vector<Violation>& violations) {
  std::string text;
  for (const Violation& violation : violations) {
    text += violation.file + ":" + std::to_string(violation.line) + ": " + violation.field +
            (violation.field.empty() ? "" : ": ") + violation.text + "\n";
  }
  return text;
}

Controller::Controller(std::unique_ptr<Loop> loop) : loop_(std::move(loop)) {}
Controller::~Controller() {
  stop();
}

tl::expected<std::unique_ptr<Controller>, std::string> Controller::open(ControllerOptions options) {
  auto store = StateFile::open(options.state_directory);
  if (!store) return tl::unexpected(store.error());
  auto mirror = RouteMirror::open();
  if (!mirror) return tl::unexpected("netlink: " + mirror.error());
  auto loop = std::make_unique<Loop>(std::move(options), std::move(*store), std::move(*mirror));
  if (auto begun = loop->begin(); !begun) return tl::unexpected(begun.error());
  return std::unique_ptr<Controller>(new Controller(std::move(loop)));
}

void Controller::start() {
  loop_->start();
}
void Controller::stop() {
  loop_->stop();
}
void Controller::reload() {
  loop_->call([this] { loop_->reload(); });
}
MetricsInput Controller::metrics() {
  return loop_->call([this] { return loop_->metrics(); });
}

ApplyOutcome Controller::apply(const std::string& text, const std::string& file, const ApplyOptions& options) {
  return apply_text(text, {.file = file, .cause = "apply", .options = options});
}

ApplyOutcome Controller::apply_text(const std::string& text, const Applying& how) {
  LoadResult loaded = load(text, how.file);
  ApplyOutcome outcome{.violations = std::move(loaded.violations), .warnings = std::move(loaded.warnings)};
  if (!loaded.config) return outcome;
  Loop::Applied applied = loop_->call([&] { return loop_->apply(*loaded.config, text, how); });
  outcome.refused = std::move(applied.refused);
  outcome.violations = std::move(applied.violations);
  outcome.changes = std::move(applied.changes);
  outcome.generation = applied.generation;
  if (!applied.waiter) return outcome;
  auto done = applied.waiter->done.get_future();
  if (done.wait_for(how.options.timeout) == std::future_status::ready) {
    outcome.note = done.get();
    outcome.active = outcome.note.empty();
  } else {
    outcome.note = loop_->call([&] { return loop_->give_up(applied.waiter); });
  }
  return outcome;
}

ApplyOutcome Controller::edit(const Edit& change, const ApplyOptions& options) {
  constexpr int kAttempts = 10;
  Applying how{.file = describe(change), .cause = describe(change), .options = options};
  how.options.force = true;  // what goes is what the operator has named
  for (int attempt = 1;; ++attempt) {
    const auto [config, number] = loop_->call([this] { return loop_->current_config(); });
    auto edited = cp::edit(config, change);
    if (!edited) {
      ApplyOutcome outcome;
      edited.error().file = how.file;
      outcome.violations.push_back(std::move(edited.error()));
      return outcome;
    }
    // Who changes the configuration between these lines is not to be undone: look at it again.
    how.if_number = attempt < kAttempts ? std::optional(number) : std::nullopt;
    ApplyOutcome outcome = apply_text(cp::render(*edited), how);
    if (outcome.refused == kOvertaken) continue;
    for (auto* remarks : {&outcome.violations, &outcome.warnings}) {
      for (Violation& remark : *remarks) remark.line = 0;  // nobody has seen the file
    }
    return outcome;
  }
}

std::vector<ConfigRecord> Controller::history() {
  return loop_->call([this] { return loop_->history(); });
}

tl::expected<ConfigText, std::string> Controller::config_text(std::uint64_t number) {
  return loop_->call([&] { return loop_->config_text(number); }).get();
}

tl::expected<ApplyOutcome, std::string> Controller::rollback(std::uint64_t number, const ApplyOptions& options) {
  auto entry = config_text(number);
  if (!entry) return tl::unexpected(entry.error());
  return apply_text(entry->text,
                    {.file = entry->record.file, .cause = "rollback to " + std::to_string(number), .options = options});
}

ApplyOutcome Controller::diff(const std::string& text, const std::string& file) {
  LoadResult loaded = load(text, file);
  ApplyOutcome outcome{.violations = std::move(loaded.violations), .warnings = std::move(loaded.warnings)};
  if (loaded.config) outcome.changes = loop_->call([&] { return loop_->diff(*loaded.config); });
  return outcome;
}

std::shared_ptr<const LiveState> Controller::live() {
  return loop_->call([this] { return loop_->live(); });
}

LiveSummary Controller::summary() {
  return loop_->call([this] { return loop_->summary(); });
}

std::vector<LiveTarget> Controller::targets(const std::vector<TargetKey>& keys) {
  return loop_->call([&] { return loop_->targets(keys); });
}

EventsSince Controller::events_since(std::uint64_t instance, std::uint64_t sequence, std::chrono::milliseconds wait) {
  return loop_->events().since(instance, sequence, wait);
}

tl::expected<explain::Plan, ApplyOutcome> Controller::plan(const std::string& text, const std::string& file) {
  LoadResult loaded = load(text, file);
  if (!loaded.config) return tl::unexpected(ApplyOutcome{std::move(loaded.violations), std::move(loaded.warnings)});
  auto input = loop_->call([&] { return loop_->plan_input(*loaded.config); });
  auto plan = input ? explain::make_plan(std::move(*input)) : tl::unexpected(input.error());
  if (!plan) return tl::unexpected(ApplyOutcome{{{file, 0, "", plan.error()}}, std::move(loaded.warnings)});
  plan->warnings = std::move(loaded.warnings);
  plan->changes = diff(text, file).changes;
  return std::move(*plan);
}

// Whoever has the answer may pull the plug: a restart still knows of the drain.
Drained Controller::drain(const AddressPort& target, const std::optional<std::string>& group, const DrainTerms& terms) {
  auto touched = loop_->call([&] { return loop_->drain(target, group, true, terms); });
  if (touched) loop_->call([this] { return loop_->when_stored(); }).wait();
  return touched;
}

Drained Controller::undrain(const AddressPort& target, const std::optional<std::string>& group) {
  auto touched = loop_->call([&] { return loop_->drain(target, group, false, {}); });
  if (touched) loop_->call([this] { return loop_->when_stored(); }).wait();
  return touched;
}

bool Controller::freeze_health(bool frozen, const std::string& note) {
  const bool before = loop_->call([&] { return loop_->freeze_health(frozen, note); });
  if (before != frozen) loop_->call([this] { return loop_->when_stored(); }).wait();
  return before;
}

explain::Context Controller::explain_context() {
  return loop_->call([this] { return loop_->explain_context(); });
}

tl::expected<ExplainedConfig, std::string> Controller::explain_by(const HistoryPoint& point) {
  std::uint64_t number = point.number;
  if (point.generation) {
    const std::vector<ConfigRecord> records = history();
    const auto at =
        std::ranges::find_if(records, [&](const ConfigRecord& record) { return record.generation <= *point.generation; });
    if (at == records.end()) return tl::unexpected<std::string>("no configuration as old as that is kept");
    number = at->number;
  }
  auto entry = config_text(number);
  if (!entry) return tl::unexpected(entry.error());
  const LoadResult loaded = load(entry->text, entry->record.file);
  if (!loaded.config) return tl::unexpected(to_text(loaded.violations));
  auto input = loop_->call([&] { return loop_->plan_input(*loaded.config); });
  if (!input) return tl::unexpected(input.error());
  auto snapshot = explain::snapshot_after(std::move(*input));
  if (!snapshot) return tl::unexpected(snapshot.error());
  ExplainedConfig explained{explain_context(), entry->record};
  explained.context.snapshot = std::move(*snapshot);
  return explained;
}

// Reads the rings on the caller's thread; the control loop only tells lb-dp.
class Controller::LoopTracing final : public Tracing {
 public:
  LoopTracing(Loop& loop, std::uint64_t session, explain::TraceFeed feed)
      : loop_(loop), session_(session), feed_(std::move(feed)), renewed_(std::chrono::steady_clock::now()) {}
  LoopTracing(const LoopTracing&) = delete;
  LoopTracing& operator=(const LoopTracing&) = delete;
  ~LoopTracing() override {
    loop_.call([this] { loop_.end_trace(session_); });
  }

  tl::expected<explain::TraceFeed::Batch, std::string> read() override {
    const auto now = std::chrono::steady_clock::now();
    if (now - renewed_ >= std::chrono::seconds(1)) {
      renewed_ = now;
      if (!loop_.call([this] { return loop_.renew_trace(session_); })) return tl::unexpected(std::string("lb-dp has gone"));
    }
    return feed_.read();
  }

 private:
  Loop& loop_;
  const std::uint64_t session_;
  explain::TraceFeed feed_;
  std::chrono::steady_clock::time_point renewed_;
};

tl::expected<std::unique_ptr<Tracing>, std::string> Controller::start_trace(const abi::TraceOrder& order) {
  auto started = loop_->call([&] { return loop_->start_trace(order); });
  if (!started) return tl::unexpected(started.error());
  const std::uint64_t session = started->session();
  return std::make_unique<LoopTracing>(*loop_, session, std::move(*started));
}

std::string Controller::render(const Config& config) {
  return cp::render(config, Secrets::hidden);
}

}  // namespace lb::cp
