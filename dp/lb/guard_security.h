// Security groups (docs/guard.md): which clients may open flows to a listener. Asked once per flow, and again by a tracked
// flow's first packet after rules have changed; a packet of a tracked flow that has been asked costs nothing.
//
//   no entry, listener has a group ─────────────────▶ refuse_by_security() ─ denied ─▶ drop `security_group`, no entry
//   entry, last packet before the rules changed ────▶ the same             ─ denied ─▶ drop, and the entry goes
//
// An entry needs no mark for that: it holds the tick of its last packet, and a packet that came after the change has been
// asked by the new rules (Work::unasked_ticks).
#pragma once

#include <cstdint>

#include "dp/abi/snapshot.h"
#include "dp/lb/snapshot.h"
#include "dp/net/flow_key.h"

namespace lb {

struct Work;

struct SecurityAnswer {
  bool allowed = true;
  std::uint32_t rule =
      abi::kNoIndex;  // into snapshot.security().rules; kNoIndex: none said anything, so the group's default
};

// Of the rules whose prefix holds the source, the one of the longest prefix that names this protocol and port. A listener
// without a security group allows everybody.
SecurityAnswer ask_security(const Snapshot& snapshot, const abi::Listener& listener, const net::FlowKey& key);

// Drops packet `i`, whose listener is known, if it is denied. True: it was dropped.
bool refuse_by_security(Work& work, std::uint32_t i);

}  // namespace lb
