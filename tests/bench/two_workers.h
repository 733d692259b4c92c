// Whether workers disturb each other: two threads on two cores, each with a table, a pipeline and packets of its own.
#pragma once

#include <cstdint>
#include <vector>

#include "dp/lb/kernel.h"

namespace lb::bench {

// TSC cycles per packet of ipip4 hits by pass: of one worker alone, and of both at work, as their median burst has it,
// divided by two, since they forward side by side.
struct TwoWorkers {
  std::vector<double> alone;
  std::vector<double> together;
};
TwoWorkers time_two_workers(const Kernel& kernel, std::uint64_t flows, std::uint32_t burst, std::uint32_t passes);

}  // namespace lb::bench
