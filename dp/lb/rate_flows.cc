#include "dp/lb/rate_flows.h"

#include "dp/lb/decide.h"
#include "dp/lb/flow_ops.h"
#include "dp/lb/work.h"

namespace lb {
namespace {

constexpr std::uint32_t kPlaces = 8;  // that a flow may take
constexpr std::uint32_t kLooks = 2;   // at what has a place, where none is free: each is two misses

enum class Standing : std::uint8_t { over, unproven, counts };

Standing standing_of(Work& work, const RateFlow& flow) {
  FlowTableState& table = work.options.flows->state();
  if (flow.line >= table.line_count) return Standing::over;
  const FlowSlot slot = find(table, flow.line, flow.fingerprint);
  if (slot.line == nullptr) return Standing::over;
  const std::uint32_t meta = slot.line->meta[slot.index];
  const FlowState state = meta_state(meta);
  const abi::Target* target = live_target(*work.snapshot, meta_target(meta));
  if (target == nullptr || state == FlowState::closing || state == FlowState::reset || state == FlowState::short_lived)
    return Standing::over;
  const abi::TargetGroup& group = work.snapshot->groups()[target->group];
  if (idle_ticks(slot.line->key[slot.index], work.tick) >= idle_limit_ticks(group, state)) return Standing::over;
  return is_unproven(state) ? Standing::unproven : Standing::counts;
}

std::uint32_t place_of(std::uint64_t fingerprint) {
  static_assert(kRateFlows == 1U << 16);
  return static_cast<std::uint32_t>(fingerprint * 0x9e3779b97f4a7c15ULL >> 48);
}

}  // namespace

void RateFlows::forget(Work& work, RateFlow& flow) {
  work.rates->remove_flow(flow.listener, flow.meter, flow.birth);
  flow = {};
  --counted_;
}

void RateFlows::add(Work& work, std::uint32_t i, std::uint32_t listener, std::uint32_t meter) {
  const std::uint64_t fingerprint = fingerprint_of(work.hash[i]);
  const std::uint32_t first = place_of(fingerprint);
  RateFlow* place = nullptr;
  for (std::uint32_t n = 0; n < kPlaces && place == nullptr; ++n) {
    RateFlow& flow = places_[(first + n) % kRateFlows];
    if (flow.fingerprint == 0 || flow.fingerprint == fingerprint) place = &flow;
  }
  for (std::uint32_t n = 0; n < kLooks && place == nullptr; ++n) {
    RateFlow& flow = places_[(first + (work.tick + n) % kPlaces) % kRateFlows];
    if (standing_of(work, flow) != Standing::counts) place = &flow;
  }
  if (place == nullptr) return;
  if (place->fingerprint != 0) forget(work, *place);
  *place = {fingerprint, static_cast<std::uint32_t>(work.first[i]), meter, listener, work.rates->birth_of(meter)};
  work.rates->add_flow(listener, meter);
  ++counted_;
}

void RateFlows::look(Work& work, std::uint32_t count) {
  if (counted_ == 0) return;
  for (; count > 0; --count) {
    RateFlow& flow = places_[next_];
    next_ = (next_ + 1) % kRateFlows;
    if (flow.fingerprint != 0 && standing_of(work, flow) == Standing::over) forget(work, flow);
  }
}

}  // namespace lb
