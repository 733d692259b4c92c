#include "dp/lb/flow_copy.h"

#include <algorithm>

#include "dp/lb/flow_ops.h"

namespace lb {

bool copy_flow(FlowTable& to, const Hash128& hash, const FlowView& flow, std::uint64_t now_ns) {
  FlowTableState& table = to.state();
  const std::uint64_t first = first_line(hash, table.line_count);
  const NewFlow entry{.first = first,
                      .fingerprint = fingerprint_of(hash),
                      .meta = make_meta(flow.target, flow.state) | flow.way << kWayShift,
                      .tick = (now_ns - std::min(flow.idle_ns, now_ns)) / kTickNs & kTickMask};
  for (const std::uint64_t line : {first, other_line(first, entry.fingerprint, table.line_count)}) {
    const std::uint32_t free = match(table.lines[line], 0);
    if (free == 0) continue;
    place(table, entry, line, lowest_bit(free));
    return true;
  }
  return false;
}

}  // namespace lb
