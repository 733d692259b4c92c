// Everyone who is or was part of the configuration: listeners, target groups and targets with their live state, ids and
// drains, and the SnapshotInput that follows. No clock, no I/O: time comes in as a parameter. lb-cp and lb-replay run it.
//
//   apply ──┐
//   health ─┤                                     ┌─▶ snapshot() ─▶ Compiler ─▶ Publisher ─▶ activated()
//   drain ──┼─▶ facts ─▶ settle() ─▶ decide.h ─▶ ─┼─▶ events
//   paths ──┘                                     └─▶ next_deadline()
//
// What leaves the configuration stays as draining until its delay is over and its flows are gone; its id is free again only
// when the workers forward by a generation without it and no flow names it.
//
// Thread: one. Cost: settle() looks only at groups that something happened to, or whose time has come.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "cp/model/live.h"
#include "cp/model/model.h"
#include "cp/snapshot/compile.h"
#include "cp/snapshot/decide.h"
#include "cp/snapshot/id_allocator.h"

namespace lb::cp {

struct TargetRecord {
  TargetKey key;
  std::uint32_t weight = 1;  // configured
  std::string server_id;     // configured, as Target has it
  TargetStatus status;
  Health health = Health::initial;
  StateReason failure = StateReason::none;  // of the last failed probe
  bool not_asked = false;                   // its last probe could not be made here; not saved
  std::int64_t unhealthy_since_unix_ms = 0;
  bool joined_late = false;            // registered while others of its group served: it has a slow start before it
  std::int64_t ramp_from_unix_ms = 0;  // its slow start began then; 0: none
  NextHop next_hop;
  bool local = false;  // its address is this host's
};

// As events name it.
std::string object_of(const TargetKey& key);
// Whether it is drained or removed, and takes no new flows.
bool leaving(const TargetRecord& target);

// A target group that a listener has given up: it stays with weight 0 while its tracked flows may go on.
struct FormerGroup {
  std::string name;
  std::int64_t ends_unix_ms = 0;
};

struct ListenerRecord {
  Listener config;
  std::vector<FormerGroup> former;
  AddressPrefix address;  // of its VIP
  std::uint32_t counter_index = 0;
  bool draining = false;
  std::int64_t drain_ends_unix_ms = 0;
};

struct GroupRecord {
  TargetGroup config;    // as last configured
  bool removed = false;  // no longer configured, kept for its targets
  bool in_use = false;
  bool fail_open = false;
  std::int64_t recovered_unix_ms = 0;
  std::map<TargetKey, TargetRecord> targets;
  // Derived, never saved.
  bool dirty = true;
  bool lingering = false;  // a removed target waits for its last flows
  std::int64_t next_unix_ms = kNever;
  std::size_t input_index = 0;
  std::vector<TargetDecision> decided;  // of the last settle(), same order as targets
};

// What is kept on disk; ids still in use by flows included.
struct RosterMemory {
  std::vector<GroupRecord> groups;
  std::vector<ListenerRecord> listeners;
  std::vector<std::uint32_t> leaving_ids;
  std::vector<std::uint32_t> leaving_counter_pairs;
};

class Roster {
 public:
  // Tracked flows that name a target id, all workers; nullopt: not known now.
  using FlowsOf = std::function<std::optional<std::uint64_t>(std::uint32_t target_id)>;

  Roster() = default;

  // Takes over a desired state that cp/config has validated. Error: out of target ids or listeners; then nothing changed.
  tl::expected<void, std::string> apply(const Config& config, std::int64_t now_unix_ms);
  // What probes say of a target. `failure` is the reason of the last failure. Returns false if there is no such target.
  bool set_health(const TargetKey& key, Health health, StateReason failure, const std::string& detail,
                  std::int64_t now_unix_ms);
  // Its last probe could not be made. Returns whether that is new.
  bool set_not_asked(const TargetKey& key, const std::string& detail);
  // The last probe's own words, for people.
  void set_detail(const TargetKey& key, const std::string& detail);
  // Drains or undrains the targets at address:port, in one group or all. Draining what drains already changes only what
  // `terms` say. Error: no such target.
  tl::expected<std::vector<TargetKey>, std::string> drain(const abi::IpAddress& address, std::uint16_t port,
                                                          const std::optional<std::string>& group, bool drain,
                                                          std::int64_t now_unix_ms, const DrainTerms& terms = {});
  // The way to an address; `local`: it is this host's own.
  void set_path(const abi::IpAddress& address, const NextHop& next_hop, bool local);

  // Tunnel sources for a configuration that names none.
  void set_default_tunnel_sources(const std::optional<AddressPrefix>& v4, const std::optional<AddressPrefix>& v6);

  // The kernel's ways, sorted by prefix, each once; of use while wants_routes(): there is a geneve group.
  void set_routes(std::vector<Route> routes);
  [[nodiscard]] bool wants_routes() const;

  // The clock that times were given by has been set: all of them move along, so that what lasts, lasts as long as before.
  void shift_times(std::int64_t ms);

  // Decides anew whatever changed or became due. True: the snapshot differs from the last one settled.
  bool settle(std::int64_t now_unix_ms, const FlowsOf& flows_of);
  // When settle() has something to do without anything happening. nullopt: never.
  [[nodiscard]] std::optional<std::int64_t> next_deadline(std::int64_t now_unix_ms) const;
  // The outcome of the last settle(), numbered. Valid until the next call of anything.
  const SnapshotInput& snapshot(abi::Generation generation);
  // Every worker forwards by `generation`: ids that only older ones knew are free once their flows are gone.
  void activated(abi::Generation generation);
  std::vector<Event> take_events();

  [[nodiscard]] const Config& config() const { return config_; }
  [[nodiscard]] const std::map<std::string, GroupRecord>& groups() const { return groups_; }
  [[nodiscard]] const std::vector<ListenerRecord>& listeners() const { return listeners_; }
  [[nodiscard]] const TargetRecord* find(const TargetKey& key) const;
  // Every address a next hop is wanted for.
  [[nodiscard]] std::vector<abi::IpAddress> addresses() const;
  [[nodiscard]] std::size_t address_count() const { return by_address_.size(); }
  // Grows whenever a target comes or goes: addresses() and whom set_path() reaches may be others.
  [[nodiscard]] std::uint64_t membership() const { return membership_; }

  [[nodiscard]] RosterMemory memory() const;
  // Before the first apply() of a process: what was kept. Ids that clash are given anew.
  void restore(RosterMemory memory);

 private:
  struct Leaving {
    std::uint32_t id = 0;
    abi::Generation without;  // first generation that does not know it; {0,0}: not compiled yet
  };

  void apply_groups(const Config& config, std::int64_t now_unix_ms);
  void apply_listeners(const Config& config, std::int64_t now_unix_ms);
  void add_target(GroupRecord& group, const TargetKey& key, const Target& wanted, bool others_serve,
                  std::int64_t now_unix_ms);
  void remove_target(const GroupRecord& group, TargetRecord& target, std::int64_t now_unix_ms);
  void refresh_use();
  bool settle_group(GroupRecord& group, std::int64_t now_unix_ms, const FlowsOf& flows_of);
  [[nodiscard]] bool is_vip(const abi::IpAddress& address) const;
  bool settle_listeners(std::int64_t now_unix_ms);
  void remove_finished(GroupRecord& group, std::int64_t now_unix_ms, const FlowsOf& flows_of);
  [[nodiscard]] std::int64_t drain_end(const ListenerRecord& listener, std::int64_t now_unix_ms) const;
  void rebuild_groups();
  void rebuild_listeners();
  void release_finished_ids(const FlowsOf& flows_of);
  void note(std::int64_t now_unix_ms, std::string object, std::string_view old_state, std::string_view new_state,
            std::string_view reason, std::string detail);

  Config config_;
  std::map<std::string, GroupRecord> groups_;
  std::vector<ListenerRecord> listeners_;
  std::optional<AddressPrefix> default_tunnel_source_v4_;
  std::optional<AddressPrefix> default_tunnel_source_v6_;
  std::vector<Route> routes_;
  std::set<abi::IpAddress> vip_addresses_;  // those that are no prefix
  std::vector<AddressPrefix> vip_prefixes_;
  std::map<abi::IpAddress, std::set<TargetKey>> by_address_;
  IdAllocator target_ids_{abi::kMaxTargets};
  IdAllocator counter_pairs_{abi::kMaxListeners /
                             2};  // a listener owns two counter indexes: 2n, and 2n + 1 for its second protocol
  std::vector<Leaving> leaving_ids_;
  std::vector<Leaving> leaving_counter_pairs_;
  abi::Generation active_;
  SnapshotInput input_;
  std::uint64_t membership_ = 0;
  bool reshaped_ = true;           // groups or targets came or went: input_.groups is to be rebuilt
  bool listeners_changed_ = true;  // input_.listeners is to be rebuilt
  std::vector<Event> events_;
};

}  // namespace lb::cp
