#include "cp/explain/talkers.h"

#include <algorithm>
#include <utility>

#include "dp/lb/snapshot.h"
#include "dp/net/parse.h"

namespace lb::cp::explain {
namespace {

// Of the entry that was used last.
FlowState state_of(const Context& context, const net::FlowKey& key, std::uint64_t now_ns) {
  std::optional<FlowView> newest;
  for (const auto& table : context.worker_tables) {
    const auto view = FlowTable::peek(table, context.secret, key, now_ns);
    if (view && (!newest || view->idle_ns < newest->idle_ns)) newest = view;
  }
  return newest ? newest->state : FlowState::empty;
}

}  // namespace

void TalkerBook::add(const lb::Snapshot* snapshot, const TracedPacket& packet) {
  const abi::TraceRecord& record = packet.record;
  if (record.listener == abi::kNoIndex) return;
  net::ParsedPacket parsed;
  if (!parse_kept(record, parsed)) return;
  const bool current = snapshot != nullptr && snapshot->generation() == record.generation;
  const abi::Target* const target =
      current && record.target < snapshot->targets().size() ? &snapshot->targets()[record.target] : nullptr;
  if (target != nullptr && target->address == parsed.key.source) return;  // a reply
  Talker& talker = talkers_[parsed.key];
  talker.key = parsed.key;
  ++talker.packets;
  talker.bytes += record.in_length;
  if (!current) return;
  if (record.listener < snapshot->listeners().size())
    talker.listener = snapshot->name(snapshot->listeners()[record.listener].name);
  if (record.group < snapshot->groups().size()) talker.target_group = snapshot->name(snapshot->groups()[record.group].name);
  if (target != nullptr) talker.target = target_text(*target, parsed.key);
}

std::vector<Talker> TalkerBook::flows(const Context& context, std::uint64_t now_ns) const {
  std::vector<Talker> found;
  found.reserve(talkers_.size());
  for (const auto& [key, talker] : talkers_) {
    found.push_back(talker);
    found.back().state = state_of(context, key, now_ns);
  }
  std::ranges::stable_sort(found, std::ranges::greater{}, &Talker::bytes);
  return found;
}

}  // namespace lb::cp::explain
