#include "dp/lb/algorithm.h"

#include "dp/lb/work.h"

namespace lb {
namespace {

std::uint32_t in_turn(Work& work, std::uint32_t index, const abi::TargetGroup& group) {
  const Snapshot& snapshot = *work.snapshot;
  Turn& turn = work.turns[index];
  if (turn.at >= group.target_count) turn = {};
  const std::uint32_t id = snapshot.group_targets()[group.first_target + turn.at];
  if (turn.left == 0) {
    const std::uint32_t times = snapshot.targets()[id].weight / group.weight_unit;
    turn.left = times == 0 ? 1 : times;
  }
  if (--turn.left == 0) ++turn.at;
  return id;
}

std::uint64_t flows_of(const Work& work, std::uint32_t id) {
  const FlowTableState& own = work.options.flows->state();
  if (work.options.target_flows.empty()) return id < own.target_count ? own.target_flows[id] : 0;
  std::uint64_t sum = 0;
  for (const std::uint32_t* flows : work.options.target_flows) {
    if (flows != nullptr && id < own.target_count) sum += __atomic_load_n(&flows[id], __ATOMIC_RELAXED);
  }
  return sum;
}

std::uint32_t least_loaded(const Work& work, const Pick& picked, const abi::TargetGroup& group) {
  const Snapshot& snapshot = *work.snapshot;
  const bool all = group.target_count <= kMostCandidates;
  const std::uint32_t candidates = all ? group.target_count : kMostCandidates;
  std::uint32_t best = picked.target;
  std::uint64_t best_flows = 0;
  std::uint64_t best_weight = 0;
  for (std::uint32_t n = 0; n < candidates; ++n) {
    // The slot decides who is looked at first: equals are taken as Maglev would.
    const auto slot =
        static_cast<std::uint32_t>((picked.slot + std::uint64_t{group.slot_count} * n / candidates) % group.slot_count);
    const std::uint32_t at = all ? (picked.slot + n) % group.target_count : snapshot.slots(picked.group)[slot];
    const std::uint32_t id = snapshot.group_targets()[group.first_target + at];
    const std::uint64_t flows = flows_of(work, id) + 1;
    const std::uint64_t weight = snapshot.targets()[id].weight;
    if (best_weight != 0 && flows * best_weight >= best_flows * weight) continue;
    best = id;
    best_flows = flows;
    best_weight = weight;
  }
  return best;
}

}  // namespace

Pick pick_alone(Work& work, const Pick& picked) {
  // Consecutive numbers, mixed (Steele et al. 2014, "Fast splittable pseudorandom number generators"); workers begin apart.
  std::uint64_t h = (++work.alone << 8 | (work.options.worker & 0xff)) * 0x9e3779b97f4a7c15ULL;
  h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9ULL;
  h = (h ^ h >> 27) * 0x94d049bb133111ebULL;
  Pick alone = picked;
  alone.slot = static_cast<std::uint32_t>(fastrange(h ^ h >> 31, work.snapshot->groups()[picked.group].slot_count));
  alone.target = target_in_slot(*work.snapshot, alone);
  return alone;
}

std::uint32_t choose_by_algorithm(Work& work, const Pick& picked) {
  const abi::TargetGroup& group = work.snapshot->groups()[picked.group];
  if (group.algorithm == abi::Algorithm::round_robin) return in_turn(work, picked.group, group);
  if (group.algorithm == abi::Algorithm::least_connections) return least_loaded(work, picked, group);
  return picked.target;
}

}  // namespace lb
