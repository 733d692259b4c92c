// A flow's entry as read from one table, entered into another under the same node secret: for `why`, which asks the packet
// path what it would do without touching the workers' tables.
#pragma once

#include <cstdint>

#include "dp/lb/flow_table.h"

namespace lb {

// `hash`: of the flow's key under to.hash_keys(). The flow is not in `to`; flow.way is a way of `to`. False: both its lines
// are full.
bool copy_flow(FlowTable& to, const Hash128& hash, const FlowView& flow, std::uint64_t now_ns);

}  // namespace lb
