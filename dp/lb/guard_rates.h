// Rates at work (docs/guard.md): who asks, and what becomes of a packet over a limit. Meters: dp/lb/rate_book.h.
//
//   every packet, if some listener limits packets or bytes ─▶ keep_rates()        ─ over ─▶ drop, or mark and go on
//   no entry, listener has guards ─▶ refuse_new_flow()        security group, then new and concurrent flows
//                                                             ─ over ─▶ drop, reset, or mark and go on
//   its entry has been made ───────▶ note_new_flow()          it counts as concurrent
#pragma once

#include <cstdint>

#include "dp/abi/rates.h"
#include "dp/lb/rate_book.h"
#include "dp/net/flow_key.h"

namespace lb {

struct Work;

// After stage vip.
void keep_rates(Work& work);

// Packet `i` would open a flow of a listener that has guards. True: it has come to its end.
bool refuse_new_flow(Work& work, std::uint32_t i);

// … and went on; if it has an entry now, that counts.
void note_new_flow(Work& work, std::uint32_t i);

// Some of the places where flows are counted, as many as `lines` are of the flow table.
void tend_rates(Work& work, std::uint32_t lines);

// The source that a packet of this key has for a listener.
[[nodiscard]] RateSource rate_source(const abi::RateLimits& limits, std::uint32_t counter_index, const net::FlowKey& key,
                                     const HashKeys& keys, Hash128 (*hash)(const HashKeys&, const net::FlowKey&));

}  // namespace lb
