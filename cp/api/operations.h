// What the API asks of the control loop. Implemented by cp/control; every call is safe from any thread and blocks until the
// controller's thread has done it.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "cp/explain/plan.h"
#include "cp/explain/trace.h"
#include "cp/explain/why.h"
#include "cp/model/edit.h"
#include "cp/model/live.h"

namespace lb::cp {

struct ApplyOutcome {
  std::vector<Violation> violations;  // not empty: nothing was changed
  std::vector<Violation> warnings;
  std::vector<Change> changes;
  abi::Generation generation;
  bool active = false;
  std::string note;
  std::string refused;  // not empty: nothing was changed, because of ApplyOptions
};

// Of everything that changes the configuration.
struct ApplyOptions {
  std::chrono::milliseconds timeout{0};  // how long to wait for the workers
  bool force = false;                    // also where more than 10 % of the VIPs or targets would go (cp/config/removal.h)
  std::optional<abi::Generation> if_generation;  // refuse if a configuration came into force after this generation
};

using Drained = tl::expected<std::vector<TargetKey>, std::string>;

struct ConfigText {
  ConfigRecord record;
  std::string text;  // as it was applied
};

// A configuration of the history: by its number, or the one in force at a generation.
struct HistoryPoint {
  std::uint64_t number = 0;  // looked at where there is no generation
  std::optional<abi::Generation> generation;
};
struct ExplainedConfig {
  explain::Context context;
  ConfigRecord record;
};

// A trace that goes on while this lives. Thread: one.
class Tracing {
 public:
  virtual ~Tracing() = default;
  // What has been written down since it was asked last, with the snapshot in force. Error: it has ended: lb-dp went away.
  // Asked at least every second, else the workers take it for abandoned.
  virtual tl::expected<explain::TraceFeed::Batch, std::string> read() = 0;
};

class Operations {
 public:
  virtual ~Operations() = default;
  // Parses, validates, stores, compiles and publishes; waits for the workers.
  virtual ApplyOutcome apply(const std::string& text, const std::string& file, const ApplyOptions& options) = 0;
  // One change of the configuration in force, then as apply. Whatever else changes it meanwhile is kept.
  virtual ApplyOutcome edit(const Edit& change, const ApplyOptions& options) = 0;
  // The last configurations, newest first; the first one is in force.
  virtual std::vector<ConfigRecord> history() = 0;
  // One of them. number 0: the one in force. Error: there is no such number, or its file is broken.
  virtual tl::expected<ConfigText, std::string> config_text(std::uint64_t number) = 0;
  // As apply, with an earlier configuration. Error: as config_text.
  virtual tl::expected<ApplyOutcome, std::string> rollback(std::uint64_t number, const ApplyOptions& options) = 0;
  // As apply, but changes nothing.
  virtual ApplyOutcome diff(const std::string& text, const std::string& file) = 0;
  virtual std::shared_ptr<const LiveState> live() = 0;
  virtual LiveSummary summary() = 0;
  // Some targets of it, without a picture of all. Those that have gone are left out.
  virtual std::vector<LiveTarget> targets(const std::vector<TargetKey>& keys) = 0;
  // Events after `sequence` of the log `instance`; waits up to `wait` where there are none (EventLog::since).
  virtual EventsSince events_since(std::uint64_t instance, std::uint64_t sequence, std::chrono::milliseconds wait) = 0;
  // What applying a configuration would do to slots and flows. Error: the violations.
  virtual tl::expected<explain::Plan, ApplyOutcome> plan(const std::string& text, const std::string& file) = 0;
  // Drains the targets at address:port, in one group or (nullopt) in all. Error: no such target.
  virtual Drained drain(const AddressPort& target, const std::optional<std::string>& group, const DrainTerms& terms) = 0;
  virtual Drained undrain(const AddressPort& target, const std::optional<std::string>& group) = 0;
  // Frozen: what probes say is shown, but changes no target's health, and so no weight, until it is ended. Kept across
  // restarts. What it was before.
  virtual bool freeze_health(bool frozen, const std::string& note) = 0;
  // The snapshot in force and the workers' flow tables, for `why`.
  virtual explain::Context explain_context() = 0;
  // The same flow tables under an earlier configuration, if it were put in force now: health is today's. Error: it is not
  // kept.
  virtual tl::expected<ExplainedConfig, std::string> explain_by(const HistoryPoint& point) = 0;
  // Has lb-dp write down the packets that `order` names (session and until_ns are the callee's), until the Tracing ends. One
  // at a time. Error: somebody traces already, or lb-dp is away.
  virtual tl::expected<std::unique_ptr<Tracing>, std::string> start_trace(const abi::TraceOrder& order) = 0;
  // A configuration, or the part of one that is to be shown, as YAML with defaults filled in (cp/config/render).
  virtual std::string render(const Config& config) = 0;  // for people: secrets are hidden
};

}  // namespace lb::cp
