// What a change of configuration would do, before it is made: slots that get another target, and what becomes of the flows
// that are tracked now. Compares the snapshot in force with the one that would follow; takes no part in either.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "cp/model/live.h"
#include "cp/model/model.h"
#include "cp/snapshot/compile.h"
#include "cp/snapshot/roster.h"

namespace lb {
class Snapshot;
}

namespace lb::cp::explain {

// Of the flows tracked on a target now.
enum class Fate : std::uint8_t {
  stay,   // on their target
  move,   // picked anew with their next packet
  drain,  // on their target until a deadline
  reset,  // answered with a reset
};
std::string_view to_string(Fate fate);

struct PlannedTarget {
  TargetKey key;
  std::string change;  // add | remove | change | empty
  double share_before = 0;
  double share_after = 0;
  std::uint32_t slots_gained = 0;
  std::uint32_t slots_lost = 0;
  std::uint64_t flows = 0;
  Fate fate = Fate::stay;
  std::int64_t drain_ms = 0;  // fate drain
  std::string then;           // fate drain: leave | reset | rehash
};

struct FlowFates {
  std::uint64_t stay = 0;
  std::uint64_t move = 0;
  std::uint64_t drain = 0;
  std::uint64_t reset = 0;
};

struct PlannedGroup {
  std::string name;
  std::string change;  // add | remove | change
  std::uint32_t slots_before = 0;
  std::uint32_t slots_after = 0;
  std::uint32_t slots_moved = 0;  // of those after: have another target than before, or had none
  FlowFates flows;
  std::vector<PlannedTarget> targets;
};

struct Plan {
  std::vector<Violation> warnings;
  std::vector<Change> changes;
  std::vector<PlannedGroup> groups;  // those that change
  FlowFates flows;                   // of all groups
  bool flows_known = false;
  std::uint64_t snapshot_bytes_before = 0;
  std::uint64_t snapshot_bytes_after = 0;
  std::uint64_t sent_bytes = 0;  // about: the root and the tables that differ
  std::vector<std::string> notes;
};

// What is, and what would be. `after` is a copy of the roster to which the configuration has been applied and that has not
// been settled yet.
struct PlanInput {
  std::optional<CompiledSnapshot> before;
  Roster roster;
  Roster after;
  abi::Generation generation;
  std::int64_t now_unix_ms = 0;
  std::function<std::optional<std::uint64_t>(std::uint32_t target_id)> flows_of;
  bool flows_known = false;
};

// Targets that are new are taken to become healthy. Compiles with a compiler of its own, away from the control loop.
// Error: why it could not be compiled. Thread: any.
tl::expected<Plan, std::string> make_plan(PlanInput input);

// The snapshot itself, for `why`. Next hops of new targets are not known.
tl::expected<std::shared_ptr<const lb::Snapshot>, std::string> snapshot_after(PlanInput input);

}  // namespace lb::cp::explain
