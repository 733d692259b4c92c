#include "cp/control/slot_shares.h"

#include <cstring>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace lb::cp {
namespace {

// The bytes are our own Compiler's: offsets are good.
template <typename T>
std::span<const T> table(std::span<const std::byte> bytes, const abi::Table& where) {
  return {reinterpret_cast<const T*>(bytes.data() + where.offset), where.count};
}

}  // namespace

void SlotShares::update(const CompiledSnapshot& snapshot) {
  const std::span<const std::byte> bytes = snapshot.root->bytes();
  const auto& root = *reinterpret_cast<const abi::Root*>(bytes.data());
  const auto segment_entries = table<abi::SegmentEntry>(bytes, root.segments);
  const auto group_targets = table<std::uint32_t>(bytes, root.group_targets);
  const auto names = table<char>(bytes, root.names);
  std::unordered_map<std::uint64_t, std::span<const std::byte>> segments;
  for (const auto& segment : snapshot.segments) segments[segment->id()] = segment->bytes();

  std::map<std::string, Known> before = std::exchange(groups_, {});
  for (const abi::TargetGroup& group : table<abi::TargetGroup>(bytes, root.groups)) {
    const std::string name(names.data() + group.name.offset, group.name.length);
    const auto ids = group_targets.subspan(group.first_target, group.target_count);
    Known fresh{{group.table_hash, {}}, {ids.begin(), ids.end()}};
    const auto known = before.find(name);
    if (known != before.end() && known->second.group.table_hash == group.table_hash &&
        known->second.targets == fresh.targets) {
      groups_.insert(before.extract(known));
      continue;
    }
    if (group.slot_count != 0) {
      const auto segment = segments.at(segment_entries[group.segment].segment_id);
      const auto* slots = reinterpret_cast<const std::uint16_t*>(segment.data() + group.slots_offset);
      std::vector<std::uint32_t> count(ids.size());
      for (std::uint32_t i = 0; i < group.slot_count; ++i) ++count[slots[i]];
      for (std::size_t i = 0; i < ids.size(); ++i)
        fresh.group.share[ids[i]] = static_cast<double>(count[i]) / group.slot_count;
    }
    groups_.emplace(name, std::move(fresh));
  }
}

const SlotShares::Group* SlotShares::find(const std::string& group) const {
  const auto at = groups_.find(group);
  return at == groups_.end() ? nullptr : &at->second.group;
}

}  // namespace lb::cp
