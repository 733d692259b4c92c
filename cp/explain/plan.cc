#include "cp/explain/plan.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <span>
#include <unordered_map>
#include <utility>

#include "dp/abi/snapshot.h"
#include "dp/lb/snapshot.h"

namespace lb::cp::explain {

namespace {

// The slots of every group of a compiled snapshot. The bytes are our own Compiler's: offsets are good.
class Tables {
 public:
  struct Group {
    std::span<const std::uint16_t> slots;    // indices into `targets`
    std::span<const std::uint32_t> targets;  // ids
    std::uint64_t hash = 0;
  };

  explicit Tables(const CompiledSnapshot& snapshot) : snapshot_(snapshot) {
    const std::span<const std::byte> bytes = snapshot_.root->bytes();
    bytes_ = root_bytes_ = bytes.size();
    const auto& root = *reinterpret_cast<const abi::Root*>(bytes.data());
    const auto entries = table<abi::SegmentEntry>(bytes, root.segments);
    const auto ids = table<std::uint32_t>(bytes, root.group_targets);
    const auto names = table<char>(bytes, root.names);
    std::unordered_map<std::uint64_t, std::span<const std::byte>> segments;
    for (const auto& segment : snapshot_.segments) {
      segments[segment->id()] = segment->bytes();
      bytes_ += segment->bytes().size();
    }
    for (const abi::TargetGroup& group : table<abi::TargetGroup>(bytes, root.groups)) {
      Group& found = groups_[std::string(names.data() + group.name.offset, group.name.length)];
      found.targets = ids.subspan(group.first_target, group.target_count);
      found.hash = group.table_hash;
      if (group.slot_count == 0) continue;
      const std::span<const std::byte> segment = segments.at(entries[group.segment].segment_id);
      found.slots = {reinterpret_cast<const std::uint16_t*>(segment.data() + group.slots_offset), group.slot_count};
    }
  }

  // An empty one where there is no such group.
  [[nodiscard]] const Group& find(const std::string& name) const {
    static const Group kNone;
    const auto at = groups_.find(name);
    return at == groups_.end() ? kNone : at->second;
  }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }
  [[nodiscard]] std::uint64_t root_bytes() const { return root_bytes_; }

 private:
  template <typename T>
  static std::span<const T> table(std::span<const std::byte> bytes, const abi::Table& where) {
    return {reinterpret_cast<const T*>(bytes.data() + where.offset), where.count};
  }

  CompiledSnapshot snapshot_;  // keeps the bytes
  std::uint64_t bytes_ = 0;
  std::uint64_t root_bytes_ = 0;
  std::map<std::string, Group> groups_;
};

struct SlotCounts {
  std::uint32_t before = 0;
  std::uint32_t after = 0;
  std::uint32_t gained = 0;
  std::uint32_t lost = 0;
};

// Slots by target id; `moved` of them have another target than before.
std::map<std::uint32_t, SlotCounts> compare(const Tables::Group& before, const Tables::Group& after, std::uint32_t& moved) {
  std::map<std::uint32_t, SlotCounts> counts;
  for (const std::uint16_t slot : before.slots) ++counts[before.targets[slot]].before;
  for (const std::uint16_t slot : after.slots) ++counts[after.targets[slot]].after;
  moved = 0;
  const bool same_size = before.slots.size() == after.slots.size();
  for (std::size_t i = 0; i < after.slots.size(); ++i) {
    const std::uint32_t to = after.targets[after.slots[i]];
    if (same_size && before.targets[before.slots[i]] == to) continue;
    ++moved;
    ++counts[to].gained;
  }
  for (std::size_t i = 0; i < before.slots.size(); ++i) {
    const std::uint32_t from = before.targets[before.slots[i]];
    if (!same_size || after.targets[after.slots[i]] != from) ++counts[from].lost;
  }
  return counts;
}

void add(FlowFates& sum, Fate fate, std::uint64_t flows) {
  switch (fate) {
    case Fate::stay: sum.stay += flows; break;
    case Fate::move: sum.move += flows; break;
    case Fate::drain: sum.drain += flows; break;
    case Fate::reset: sum.reset += flows; break;
  }
}

// How many there are.
std::size_t take_new_targets_as_healthy(PlanInput& in) {
  std::size_t taken = 0;
  std::vector<TargetKey> fresh;
  for (const auto& [name, group] : in.after.groups()) {
    for (const auto& [key, target] : group.targets) {
      if (in.roster.find(key) == nullptr) fresh.push_back(key);
    }
  }
  for (const TargetKey& key : fresh)
    taken += in.after.set_health(key, Health::healthy, StateReason::none, "", in.now_unix_ms) ? 1 : 0;
  return taken;
}

tl::expected<CompiledSnapshot, std::string> compile(PlanInput& in) {
  in.after.settle(in.now_unix_ms, in.flows_of);
  Compiler compiler;
  return compiler.compile(in.after.snapshot(in.generation));
}

class Planner {
 public:
  explicit Planner(PlanInput input) : in_(std::move(input)) {}

  tl::expected<Plan, std::string> plan() {
    const std::size_t fresh = take_new_targets_as_healthy(in_);
    if (fresh != 0) plan_.notes.push_back(std::to_string(fresh) + " new targets are taken to become healthy");
    auto compiled = compile(in_);
    if (!compiled) return tl::unexpected(compiled.error());
    const Tables after(*compiled);
    std::optional<Tables> before;
    if (in_.before) before.emplace(*in_.before);
    find_uses();
    plan_.flows_known = in_.flows_known;
    plan_.snapshot_bytes_before = before ? before->bytes() : 0;
    plan_.snapshot_bytes_after = after.bytes();
    plan_.sent_bytes = after.root_bytes();
    std::set<std::string> names;
    for (const auto& [name, group] : in_.roster.groups()) names.insert(name);
    for (const auto& [name, group] : in_.after.groups()) names.insert(name);
    static const Tables::Group kNone;
    for (const std::string& name : names) group(name, before ? before->find(name) : kNone, after.find(name));
    return std::move(plan_);
  }

 private:
  // Groups by what their listeners do: a group that only draining listeners name, or that listeners have given up, keeps its
  // flows until then.
  void find_uses() {
    for (const ListenerRecord& listener : in_.roster.listeners()) {
      if (listener.draining) continue;
      for (const WeightedGroup& share : listener.config.groups) ++uses_before_[share.name];
    }
    for (const ListenerRecord& listener : in_.after.listeners()) {
      for (const WeightedGroup& share : listener.config.groups) {
        if (!listener.draining) {
          ++uses_after_[share.name];
        } else {
          ends_[share.name] = std::max(ends_[share.name], listener.drain_ends_unix_ms);
        }
      }
      for (const FormerGroup& former : listener.former)
        ends_[former.name] = std::max(ends_[former.name], former.ends_unix_ms);
    }
  }

  void group(const std::string& name, const Tables::Group& before, const Tables::Group& after) {
    const auto was = in_.roster.groups().find(name);
    const auto is = in_.after.groups().find(name);
    const bool existed = was != in_.roster.groups().end() && !was->second.removed;
    const bool exists = is != in_.after.groups().end() && !is->second.removed;
    PlannedGroup planned{.name = name, .change = !existed ? "add" : !exists ? "remove" : "change"};
    planned.slots_before = static_cast<std::uint32_t>(before.slots.size());
    planned.slots_after = static_cast<std::uint32_t>(after.slots.size());
    const auto counts = compare(before, after, planned.slots_moved);
    if (before.hash != after.hash) plan_.sent_bytes += after.slots.size_bytes();

    std::set<TargetKey> keys;
    if (was != in_.roster.groups().end()) {
      for (const auto& [key, target] : was->second.targets) keys.insert(key);
    }
    if (is != in_.after.groups().end()) {
      for (const auto& [key, target] : is->second.targets) keys.insert(key);
    }
    for (const TargetKey& key : keys) {
      planned.targets.push_back(target(key, before, after, counts));
      add(planned.flows, planned.targets.back().fate, planned.targets.back().flows);
    }
    plan_.flows.stay += planned.flows.stay;
    plan_.flows.move += planned.flows.move;
    plan_.flows.drain += planned.flows.drain;
    plan_.flows.reset += planned.flows.reset;
    note_shared_use(name);
    const bool touched = existed != exists || planned.slots_moved != 0 || planned.slots_before != planned.slots_after ||
                         uses_before_[name] != uses_after_[name] || (existed && was->second.config != is->second.config);
    if (touched) plan_.groups.push_back(std::move(planned));
  }

  void note_shared_use(const std::string& name) {
    const std::uint32_t before = uses_before_[name];
    const std::uint32_t after = uses_after_[name];
    if (after == 0 || after >= before) return;
    plan_.notes.push_back(std::to_string(before - after) + " of " + std::to_string(before) +
                          " listeners leave target group " + name +
                          ": their flows drain; the flow table cannot tell them from those that stay");
  }

  PlannedTarget target(const TargetKey& key, const Tables::Group& before, const Tables::Group& after,
                       const std::map<std::uint32_t, SlotCounts>& counts) {
    PlannedTarget planned{.key = key};
    const TargetRecord* was = in_.roster.find(key);
    const TargetRecord* is = in_.after.find(key);
    const TargetRecord& known = is != nullptr ? *is : *was;
    const bool existed = was != nullptr && !was->status.removed;
    const bool exists = is != nullptr && !is->status.removed;
    if (existed != exists) {
      planned.change = exists ? "add" : "remove";
    } else if (was != nullptr && is != nullptr && was->weight != is->weight) {
      planned.change = "change";
    }
    if (const auto at = counts.find(known.status.id); at != counts.end()) {
      planned.slots_gained = at->second.gained;
      planned.slots_lost = at->second.lost;
      if (!before.slots.empty())
        planned.share_before = static_cast<double>(at->second.before) / static_cast<double>(before.slots.size());
      if (!after.slots.empty())
        planned.share_after = static_cast<double>(at->second.after) / static_cast<double>(after.slots.size());
    }
    planned.flows = was == nullptr ? 0 : in_.flows_of(known.status.id).value_or(0);
    if (is != nullptr) fate(*is, planned);
    return planned;
  }

  void fate(const TargetRecord& target, PlannedTarget& planned) {
    const GroupRecord& group = in_.after.groups().at(target.key.group);
    const auto index = static_cast<std::size_t>(std::distance(group.targets.begin(), group.targets.find(target.key)));
    const TargetDecision& decision = group.decided[index];
    switch (decision.tracked) {
      case abi::TrackedFlows::reset: planned.fate = Fate::reset; return;
      case abi::TrackedFlows::rehash: planned.fate = Fate::move; return;
      case abi::TrackedFlows::keep: break;
    }
    if (decision.state == abi::TargetState::draining) {
      planned.fate = Fate::drain;
      planned.drain_ms = target.status.drain_ends_unix_ms - in_.now_unix_ms;
      planned.then = then_word(target.status.drain_then.value_or(group.config.after_deregistration));
    } else if (uses_after_[target.key.group] == 0 && ends_.contains(target.key.group)) {
      planned.drain_ms = ends_[target.key.group] - in_.now_unix_ms;
      planned.fate = planned.drain_ms > 0 ? Fate::drain : Fate::move;
      planned.then = planned.drain_ms > 0 ? "rehash" : "";
    }
  }

  PlanInput in_;
  Plan plan_;
  std::map<std::string, std::uint32_t> uses_before_;  // listeners that are not draining, by group
  std::map<std::string, std::uint32_t> uses_after_;
  std::map<std::string, std::int64_t> ends_;  // of groups that a listener leaves
};

}  // namespace

std::string_view to_string(Fate fate) {
  switch (fate) {
    case Fate::stay: return "stay";
    case Fate::move: return "move";
    case Fate::drain: return "drain";
    case Fate::reset: return "reset";
  }
  return "?";
}

tl::expected<Plan, std::string> make_plan(PlanInput input) {
  return Planner(std::move(input)).plan();
}

tl::expected<std::shared_ptr<const lb::Snapshot>, std::string> snapshot_after(PlanInput input) {
  take_new_targets_as_healthy(input);
  auto compiled = compile(input);
  if (!compiled) return tl::unexpected(compiled.error());
  const auto bytes_of = [](const auto& memory) { return SegmentBytes{memory->bytes(), memory, false}; };
  std::map<std::uint64_t, SegmentBytes> segments;
  for (const auto& segment : compiled->segments) segments.emplace(segment->id(), bytes_of(segment));
  auto opened = lb::Snapshot::open(bytes_of(compiled->root), [&](std::uint64_t id) -> SegmentBytes* {
    const auto at = segments.find(id);
    return at == segments.end() ? nullptr : &at->second;
  });
  if (!opened) return tl::unexpected(opened.error().text);
  return std::move(*opened);
}

}  // namespace lb::cp::explain
