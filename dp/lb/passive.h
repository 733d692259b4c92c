// What traffic says of a target's health where its replies come through lb. lb-cp reads the counts and probes sooner; they
// decide nothing.
#pragma once

#include <cstdint>

#include "dp/base/compiler.h"
#include "dp/lb/decide.h"
#include "dp/lb/work.h"

namespace lb {

LB_INLINE void note_trouble(Work& work, std::uint32_t target) {
  const std::span<std::uint32_t> troubles = work.options.target_troubles;
  if (target < troubles.size()) put(troubles[target], troubles[target] + 1);
}

// The target has reset a flow that nobody was closing.
LB_INLINE void note_target_reset(Work& work, std::uint32_t target, FlowState state) {
  if (state == FlowState::fresh || state == FlowState::assumed) note_trouble(work, target);
}

// A SYN on the entry of an earlier one: the client has waited for its SYN-ACK in vain.
LB_INLINE void note_repeated_syn(Work& work, const abi::Target& target, std::uint32_t id, FlowState state,
                                 std::uint8_t flags) {
  if (state == FlowState::fresh && is_opening(flags) && needs_entry(target.mode)) note_trouble(work, id);
}

}  // namespace lb
