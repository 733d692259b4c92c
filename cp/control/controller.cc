#include "cp/control/controller.h"

#include <utility>

#include "cp/config/diff.h"
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

ApplyOutcome Controller::apply(const std::string& text, const std::string& file, std::chrono::milliseconds timeout) {
  LoadResult loaded = load(text, file);
  ApplyOutcome outcome{.violations = std::move(loaded.violations), .warnings = std::move(loaded.warnings)};
  if (!loaded.config) return outcome;
  Loop::Applied applied = loop_->call([&] { return loop_->apply(*loaded.config, text, file); });
  outcome.violations = std::move(applied.violations);
  outcome.changes = std::move(applied.changes);
  outcome.generation = applied.generation;
  if (!applied.waiter) return outcome;
  auto done = applied.waiter->done.get_future();
  if (done.wait_for(timeout) == std::future_status::ready) {
    outcome.note = done.get();
    outcome.active = outcome.note.empty();
  } else {
    outcome.note = loop_->call([&] { return loop_->give_up(applied.waiter); });
  }
  return outcome;
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

tl::expected<std::vector<TargetKey>, std::string> Controller::drain(const abi::IpAddress& address, std::uint16_t port,
                                                                    const std::optional<std::string>& group, bool drain) {
  return loop_->call([&] { return loop_->drain(address, port, group, drain); });
}

explain::Context Controller::explain_context() {
  return loop_->call([this] { return loop_->explain_context(); });
}

std::string Controller::render(const Config& config) {
  return cp::render(config);
}

}  // namespace lb::cp
