// Targets of new flows where the group's algorithm is not maglev. The choice is kept in the flow table; a packet that gets
// no entry goes by Maglev.
//
//   round_robin         targets in order of their identity, each as often in a row as its weight (reduced to lowest terms)
//                       says. Each worker takes turns of its own.
//   per_packet          UDP: every datagram takes a slot of its own, none gets an entry. A first fragment takes the others
//   of its
//                       datagram with it.
//   least_connections   the target with the fewest flows per weight: all targets of a group of up to kMostCandidates, else
//                       so many taken from the Maglev table. Flows are counted across workers; another worker's count is
//                       what it has written by now, so that bursts that come to two workers at once may meet.
#pragma once

#include <cstdint>

#include "dp/abi/snapshot.h"
#include "dp/lb/decide.h"

namespace lb {

struct Work;

inline constexpr std::uint32_t kMostCandidates = 32;

// Whose turn it is in a group. Owner: a worker.
struct Turn {
  std::uint32_t at = 0;    // into the group's targets in rotation
  std::uint32_t left = 0;  // flows it still takes; 0: its turn begins
};

// For a flow that begins and is to have an entry. Out of line: groups by Maglev never come here.
std::uint32_t choose_by_algorithm(Work& work, const Pick& picked);

// Packet i begins a flow of a per_packet group, or would: a slot of its own. UDP only.
Pick pick_alone(Work& work, const Pick& picked);

// Whether the state is one that a new flow begins with.
LB_INLINE bool begins_flow(FlowState next, std::uint8_t tcp_flags) {
  return next == FlowState::udp_fresh || (next == FlowState::fresh && is_opening(tcp_flags));
}

}  // namespace lb
