// Inside of the Controller: what its thread owns. Private to cp/control.
#pragma once

// A standard header comes before asio, whose allocator is another where libstdc++'s configuration is not known yet: all
// files must agree on it.
// clang-format off
#include <cstddef>
// clang-format on

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <asio/thread_pool.hpp>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "cp/control/clock.h"
#include "cp/control/controller.h"
#include "cp/control/event_log.h"
#include "cp/control/health_book.h"
#include "cp/control/history.h"
#include "cp/control/pool_watch.h"
#include "cp/control/slot_shares.h"
#include "cp/control/state_file.h"
#include "cp/control/tunnel_probes.h"
#include "cp/health/prober.h"
#include "cp/net/route_mirror.h"
#include "cp/snapshot/compile.h"
#include "cp/snapshot/publish.h"
#include "cp/snapshot/roster.h"
#include "cp/stats/peak_rates.h"
#include "cp/stats/stats_reader.h"
#include "dp/lb/snapshot.h"

namespace lb::cp {

// Where a change of configuration comes from, and on which terms.
struct Controller::Applying {
  std::string file;   // for messages
  std::string cause;  // for the history: "apply", "SIGHUP", …
  ApplyOptions options;
  std::optional<std::uint64_t> if_number;  // refuse as kOvertaken if another configuration is in force
};
inline constexpr std::string_view kOvertaken = "the configuration has changed meanwhile";

class Controller::Loop {
 public:
  Loop(ControllerOptions options, StateFile store, std::unique_ptr<RouteMirror> mirror);
  ~Loop();

  // Before start(): takes over the state on disk and the configuration.
  tl::expected<void, std::string> begin();
  void start();
  void stop();

  // Runs `work` on the control thread and waits for what it returns.
  template <typename Work>
  auto call(Work work) -> decltype(work()) {
    // Shared: the control thread may still be inside it when the caller has its result.
    auto task = std::make_shared<std::packaged_task<decltype(work())()>>(std::move(work));
    auto result = task->get_future();
    asio::post(io_, [task] { (*task)(); });
    return result.get();
  }

  // How an apply ended, for the caller that waits.
  struct Waiter {
    abi::Generation generation;
    std::promise<std::string> done;  // "": every worker forwards by it; else why not
  };

  // On the control thread, through call().
  struct Applied {
    std::vector<Violation> violations;
    std::vector<Change> changes;
    abi::Generation generation;
    std::shared_ptr<Waiter> waiter;
    std::string refused;  // not empty: nothing was changed
  };
  Applied apply(const Config& config, const std::string& text, const Applying& how);
  std::pair<Config, std::uint64_t> current_config() const { return {roster_.config(), record_.number}; }
  std::vector<ConfigRecord> history() const { return {history_.rbegin(), history_.rend()}; }
  std::future<tl::expected<ConfigText, std::string>> config_text(std::uint64_t number);
  tl::expected<explain::PlanInput, std::string> plan_input(const Config& config) const;
  const EventLog& events() const { return events_; }  // any thread
  std::vector<Change> diff(const Config& config) const;
  Drained drain(const AddressPort& target, const std::optional<std::string>& group, bool drain, const DrainTerms& terms);
  bool freeze_health(bool frozen, const std::string& note);
  // The rings to read, and their session. One trace at a time; renew_trace() at least every kTraceTime.
  tl::expected<explain::TraceFeed, std::string> start_trace(const abi::TraceOrder& order);
  bool renew_trace(std::uint64_t session);  // false: lb-dp has gone or is another
  void end_trace(std::uint64_t session);
  std::future<void> when_stored();  // ready once the disk has what was changed before this call, or has refused it
  std::shared_ptr<const LiveState> live();
  LiveSummary summary() const;
  std::vector<LiveTarget> targets(const std::vector<TargetKey>& keys);
  MetricsInput metrics();
  explain::Context explain_context();
  std::string give_up(const std::shared_ptr<Waiter>& waiter);
  void reload();

 private:
  // loop.cc: events, changes, generations
  void event(Event event);  // logs and keeps it
  void keep(Event event);
  void take_events();
  void changed();  // a generation may be due: at once, or kCoalesce after the one before
  void commit(bool force = false);
  void publish_when_stored();
  void arm_deadline();
  void plan_probes();
  void store_soon();
  enum class Publishing : std::uint8_t { goes_on, waits };  // for the store to be durable
  void store_now(Publishing publishing);
  void store_if_due();
  void append_unsaved();
  void stored(const tl::expected<void, std::string>& result, Publishing publishing);
  [[nodiscard]] SavedState saved_state() const;
  void answer_waiters(abi::Generation generation, const std::string& why);
  bool paths_ready() const;
  using Step = std::function<tl::expected<void, std::string>()>;
  tl::expected<void, std::string> prepare(const Config& config, Roster& roster, const Step& first);
  LiveTarget show(const GroupRecord& group, const TargetRecord& target, const SlotShares::Group* shares) const;
  std::optional<std::uint64_t> flows_of(std::uint32_t id) const { return stats_.target_flows(id); }

  // loop_config.cc: which configuration, and which ones before
  void open_history(const SavedState* state);
  [[nodiscard]] std::string refusal(const std::vector<Change>& changes, const Applying& how) const;
  void take_config(const std::string& text, const Applying& how, std::size_t changes);
  void keep_in_history();

  // loop_io.cc: network, lb-dp
  void watch_network();
  void network_changed();
  void look_up_paths();
  void watch_pools();
  [[nodiscard]] std::vector<abi::IpAddress> addresses_with(const Config& config) const;
  void look_up_all(const Config& config, const std::vector<abi::IpAddress>& addresses);
  void follow_members();
  void take_paths();
  void choose_tunnel_sources();
  void tick();
  void on_probe(const ProbeSpec& spec, const ProbeResult& result);
  void on_hello(const DataPlane& data_plane);
  void on_verdict(abi::Generation generation, abi::Refusal refusal, const std::string& text);
  void on_active(abi::Generation generation);
  void on_disconnected(const std::string& reason);
  void on_late(abi::Generation generation, std::chrono::milliseconds waited);
  void start_new_listeners();

  using SteadyTime = std::chrono::steady_clock::time_point;

  [[nodiscard]] std::int64_t unix_ms_now() const { return clock_.now_unix_ms(); }
  void follow_clock();

  Clock clock_;
  ControllerOptions options_;
  StateFile store_;
  std::unique_ptr<RouteMirror> mirror_;
  asio::io_context io_;
  asio::thread_pool disk_{1};  // writes the state file, in order
  asio::posix::stream_descriptor network_{io_};
  asio::steady_timer commit_timer_{io_};
  asio::steady_timer deadline_timer_{io_};
  asio::steady_timer store_timer_{io_};
  asio::steady_timer tick_timer_{io_};
  std::thread thread_;

  Roster roster_;
  HealthBook health_;
  Compiler compiler_;
  StatsReader stats_;
  PeakRates peaks_;
  std::string config_text_;
  std::string config_file_;
  HealthFreeze freeze_;
  ConfigRecord record_;               // of the configuration in force; number 0: there is none
  std::deque<ConfigRecord> history_;  // oldest first, at most kMaxHistory; the last one is record_
  const HistoryFolder history_folder_;
  std::string history_error_;
  std::map<abi::IpAddress, Path, AddressOrder> paths_;
  std::size_t unready_paths_ = 0;  // of paths_: next hop not resolved, and not this host itself
  std::uint64_t followed_ = 0;     // Roster::membership() that the mirror and the probes know
  EventLog events_;
  std::map<std::uint32_t, std::string> counter_owners_;  // listener by counter index
  bool probes_due_ = true;                               // the set of probes is to be planned anew

  abi::Generation latest_;  // last one compiled
  SteadyTime latest_at_;
  std::optional<CompiledSnapshot> newest_;    // compiled last, not accepted yet or the same as in_force_
  std::optional<CompiledSnapshot> unsent_;    // waits for the state to be on disk
  std::optional<CompiledSnapshot> in_force_;  // every worker forwards by it
  abi::Generation active_;
  double last_apply_seconds_ = 0;
  PoolWatch pools_;
  bool commit_scheduled_ = false;
  SteadyTime committed_at_;  // the last generation
  SteadyTime::duration commit_cost_{};
  bool first_published_ = false;
  SteadyTime started_at_;
  std::vector<std::shared_ptr<Waiter>> waiters_;

  bool store_scheduled_ = false;
  unsigned awaited_stores_ = 0;        // that publishing waits for
  std::set<TargetKey> unsaved_;        // targets that the journal is to have
  SteadyTime::duration store_cost_{};  // of the last whole state, to copy and to write
  bool store_due_ = false;  // unsaved_, as soon as the disk is done with the one before and the change is compiled
  std::uint64_t begun_stores_ = 0;
  std::uint64_t ended_stores_ = 0;
  std::multimap<std::uint64_t, std::promise<void>> stored_waiters_;  // by the store they wait for
  std::string store_error_;

  std::optional<DataPlane> data_plane_;  // present while connected
  std::string data_plane_note_ = "not connected yet";
  abi::TraceOrder trace_order_;        // packets_per_second 0: nothing is traced
  std::uint64_t traced_instance_ = 0;  // of lb-dp

  SlotShares shares_;
  std::shared_ptr<const LiveState> live_;
  SteadyTime live_at_;
  std::chrono::steady_clock::duration live_cost_{};
  std::map<std::uint64_t, SegmentBytes> verified_segments_;
  std::shared_ptr<const lb::Snapshot> explained_;

  TunnelProbes tunnel_probes_;
  std::unique_ptr<Prober> prober_;  // after what its callback touches
  std::unique_ptr<Publisher> publisher_;
};

}  // namespace lb::cp
