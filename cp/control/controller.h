// The control loop of lb-cp: one thread that owns the desired state and the live state, and everything that changes them.
//
//   lbctl ─▶ ApiServer ─▶ Operations ─┐
//   Prober ─▶ HealthBook ─────────────┤                                                        ┌─▶ state file
//   RouteMirror (netlink) ────────────┼─▶ Roster ─▶ (a few ms, coalesced) ─▶ settle ─▶ compile ─┴─▶ Publisher ─▶ lb-dp
//   Publisher (lb-dp's Hello, Active) ┤                                                                  │
//   timers, SIGHUP ───────────────────┘                                       waiting apply() ◀── Active ┘
//
// A change that gives out ids or alters the configuration is on disk before lb-dp hears of it; changes of health follow
// within half a second.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <tl/expected.hpp>

#include "cp/api/operations.h"
#include "cp/model/live.h"
#include "cp/stats/metrics.h"

namespace lb::cp {

struct ControllerOptions {
  std::string config_file;  // applied at start and on SIGHUP; empty: the state's
  std::string state_directory = "/var/lib/lb/cp";
  std::string data_plane_socket = "/run/lb/dp.sock";
};

class Controller final : public Operations {
 public:
  // Opens the state, the network and the configuration. Error: text for people, several lines when the configuration has
  // violations (FILE:LINE: FIELD: TEXT).
  static tl::expected<std::unique_ptr<Controller>, std::string> open(ControllerOptions options);
  ~Controller() override;  // as stop()

  // Runs the control loop on a thread of its own.
  void start();
  // Stores the state and ends the loop. Whoever calls the Operations is gone before. Idempotent.
  void stop();
  // Reads the configuration file again; violations are logged and change nothing. Any thread.
  void reload();
  // For one scrape. Any thread.
  MetricsInput metrics();

  ApplyOutcome apply(const std::string& text, const std::string& file, const ApplyOptions& options) override;
  ApplyOutcome edit(const Edit& change, const ApplyOptions& options) override;
  std::vector<ConfigRecord> history() override;
  tl::expected<ConfigText, std::string> config_text(std::uint64_t number) override;
  tl::expected<ApplyOutcome, std::string> rollback(std::uint64_t number, const ApplyOptions& options) override;
  ApplyOutcome diff(const std::string& text, const std::string& file) override;
  std::shared_ptr<const LiveState> live() override;
  LiveSummary summary() override;
  std::vector<LiveTarget> targets(const std::vector<TargetKey>& keys) override;
  EventsSince events_since(std::uint64_t instance, std::uint64_t sequence, std::chrono::milliseconds wait) override;
  tl::expected<explain::Plan, ApplyOutcome> plan(const std::string& text, const std::string& file) override;
  Drained drain(const AddressPort& target, const std::optional<std::string>& group, const DrainTerms& terms) override;
  Drained undrain(const AddressPort& target, const std::optional<std::string>& group) override;
  bool freeze_health(bool frozen, const std::string& note) override;
  explain::Context explain_context() override;
  tl::expected<std::unique_ptr<Tracing>, std::string> start_trace(const abi::TraceOrder& order) override;
  tl::expected<ExplainedConfig, std::string> explain_by(const HistoryPoint& point) override;
  std::string render(const Config& config) override;

 private:
  class Loop;
  struct Applying;
  class LoopTracing;
  ApplyOutcome apply_text(const std::string& text, const Applying& how);
  explicit Controller(std::unique_ptr<Loop> loop);
  std::unique_ptr<Loop> loop_;
};

// "FILE:LINE: FIELD: TEXT\n" each.
std::string to_text(const std::vector<Violation>& violations);

}  // namespace lb::cp
