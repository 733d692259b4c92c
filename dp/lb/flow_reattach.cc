// After a restart of lb-dp: the entries of the old process under the target ids of the new snapshot. Start-up only.
#include <unordered_map>

#include "dp/lb/flow_ops.h"
#include "dp/lb/flow_table.h"
#include "dp/lb/translations.h"

namespace lb {
namespace {

constexpr std::uint32_t kGone = abi::kNoIndex;

// Old id → new id of the same target, kGone where there is none.
std::vector<std::uint32_t> translation(std::span<const std::uint64_t> old_directory, const Snapshot& snapshot) {
  std::unordered_map<std::uint64_t, std::uint32_t> id_of;
  for (std::uint32_t id = 0; id < snapshot.targets().size(); ++id) {
    if (live_target(snapshot, id) != nullptr) id_of.emplace(snapshot.targets()[id].identity, id);
  }
  std::vector<std::uint32_t> to(old_directory.size(), kGone);
  for (std::size_t id = 0; id < old_directory.size(); ++id) {
    const auto found = id_of.find(old_directory[id]);
    if (old_directory[id] != 0 && found != id_of.end()) to[id] = found->second;
  }
  return to;
}

}  // namespace

Reattached reattach(std::span<abi::FlowLine> lines, std::span<const std::uint64_t> old_directory, const Snapshot& snapshot) {
  const std::vector<std::uint32_t> to = translation(old_directory, snapshot);
  Reattached result;
  for (abi::FlowLine& line : lines) {
    for (std::uint32_t i = 0; i < abi::kFlowsPerLine; ++i) {
      if (line.key[i] == 0) continue;
      const std::uint32_t old = meta_target(line.meta[i]);
      const std::uint32_t id = old < to.size() ? to[old] : kGone;
      if (id == kGone) {
        set_entry(line, i, 0, 0);
        ++result.dropped;
      } else {
        put(line.meta[i], (line.meta[i] & ~kTargetMask) | id);
        ++result.kept;
      }
    }
  }
  return result;
}

Reattached reattach(std::span<abi::Translation> slots, std::span<const std::uint64_t> old_directory,
                    const Snapshot& snapshot) {
  const std::vector<std::uint32_t> to = translation(old_directory, snapshot);
  Reattached result;
  for (abi::Translation& flow : slots) {
    if (flow.state == abi::TranslationState::free) continue;
    const std::uint32_t id = flow.target_id < to.size() ? to[flow.target_id] : kGone;
    if (id == kGone || snapshot.targets()[id].address != flow.target) {
      flow = {};
      ++result.dropped;
    } else {
      flow.target_id = id;
      ++result.kept;
    }
  }
  return result;
}

}  // namespace lb
