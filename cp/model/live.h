// A consistent picture of lb-cp at one moment, taken on the controller's thread and read anywhere.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cp/model/model.h"

namespace lb::cp {

struct Event {
  std::int64_t unix_ms = 0;
  std::string object;  // "target blue 10.77.2.2:80", "listener web-80", "data-plane"
  std::string old_state;
  std::string new_state;
  std::string reason;
  std::string detail;
  std::uint64_t sequence = 0;  // from 1 in the order of events; given by the log
};

// What a reader of events has not seen yet.
struct EventsSince {
  std::uint64_t instance = 0;  // of the log; another one begins to count anew
  std::uint64_t lost = 0;      // came and went between what the reader has and the first of these
  std::vector<Event> events;   // oldest first
};

struct LiveTarget {
  TargetKey key;
  std::uint32_t weight = 0;  // configured
  TargetStatus status;
  NextHop next_hop;
  double share = 0;                                        // of its group's slots, 0-1
  abi::TrackedFlows drain_then = abi::TrackedFlows::keep;  // while it drains: what becomes of its flows at the end
};

struct LiveGroup {
  std::string name;
  bool fail_open = false;
  std::uint64_t table_hash = 0;
  std::vector<LiveTarget> targets;  // sorted by key, removed ones that still drain included
};

struct ListenerCounters {
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;
  std::uint64_t new_flows = 0;
  std::uint64_t dropped_packets = 0;
};

struct LiveListener {
  std::string name;
  bool draining = false;  // removed from the config, kept for its tracked flows
  Listener config;
  ListenerCounters counters;
};

struct LiveWorker {
  std::uint32_t worker = 0;
  std::uint32_t lcore = 0;
  abi::Generation generation;
  std::uint64_t flows = 0;
  std::uint64_t flow_capacity = 0;
  std::uint64_t in_flight = 0;      // packets held
  std::uint64_t snat_ports = 0;     // fullnat: in use
  std::uint64_t snat_capacity = 0;  // of so many
  double busy = 0;
  std::vector<std::uint64_t> counters;  // by abi::Counter
};

// `lbctl freeze`: health changes nothing meanwhile.
struct HealthFreeze {
  std::int64_t since_unix_ms = 0;  // 0: it is not frozen
  std::string note;                // the operator's words
  [[nodiscard]] bool frozen() const { return since_unix_ms != 0; }
  bool operator==(const HealthFreeze&) const = default;
};

// What costs little to say, however many targets there are.
struct LiveSummary {
  abi::Generation generation;  // last one accepted by lb-dp, or last compiled while it is away
  bool data_plane_connected = false;
  std::string data_plane_note;  // why not, or what it refused last
  HealthFreeze freeze;
  std::vector<LiveWorker> workers;
};

struct LiveState : LiveSummary {
  std::shared_ptr<const Config> config;
  std::vector<LiveListener> listeners;
  std::vector<LiveGroup> groups;  // sorted by name
  std::deque<Event> events;       // newest first, at most 1,000
};

// A configuration that was in force once, or is.
struct ConfigRecord {
  std::uint64_t number = 0;  // from 1, one more for each; 0: there is none
  std::int64_t unix_ms = 0;
  abi::Generation generation;  // the first one that followed from it
  std::string cause;           // "apply", "SIGHUP", "start", "rollback to 3", "target add …"
  std::string file;            // its name, for messages
  std::uint64_t changes = 0;   // against the one before it
  bool operator==(const ConfigRecord&) const = default;
};

// One violation of a configuration file.
struct Violation {
  std::string file;
  std::uint32_t line = 0;  // from 1; 0: the file as a whole
  std::string field;
  std::string text;
};

// One difference between two configurations.
struct Change {
  std::string kind;    // add | remove | change
  std::string object;  // "vip web", "listener web-80", "target-group blue", "target blue 10.77.2.2:80"
  std::string field;
  std::string old_value;
  std::string new_value;
};

}  // namespace lb::cp
