// What the workers' meters say (dp/abi/rates.h): of one flow, for `why`, and of the sources that are over a limit.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cp/explain/why.h"
#include "dp/abi/counters.h"
#include "dp/net/flow_key.h"

namespace lb::cp::explain {

struct RateFinding {
  std::string text;                                // a sentence's part; empty: the listener has no limits
  abi::DropReason reason = abi::DropReason::none;  // of a new flow, now
};

// `listener`: index into context.snapshot. now_ns: CLOCK_MONOTONIC.
RateFinding rates_of(const Context& context, std::uint32_t listener, const net::FlowKey& key, std::uint64_t now_ns);

struct Offender {
  std::string listener;
  std::string source;  // prefix
  std::uint64_t refused = 0;
  std::uint64_t flows = 0;
  std::vector<std::string> over;  // which limits
  std::uint64_t idle_ns = 0;
  bool known = false;
};
struct Offenders {
  std::vector<Offender> rows;  // most refused first
  std::uint64_t sources = 0;   // that have a meter
};

// `listener`: only its; empty: all.
Offenders offenders(const Context& context, const std::string& listener, std::uint64_t now_ns);

}  // namespace lb::cp::explain
