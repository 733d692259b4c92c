// One flow table of one design (designs.h), full to the load in use, and bursts of work on it, timed.
#pragma once

#include <cstdint>
#include <random>
#include <string>

#include "dp/lb/kernel.h"
#include "tests/bench/designs.h"
#include "tests/bench/rig.h"

namespace lb::bench {

class DesignRig {
 public:
  DesignRig(const Kernel& kernel, Design design, std::uint64_t flows);

  // Each prepares a burst of `packets` flows and returns the TSC cycles of the work on it alone.
  std::uint64_t hit(std::uint32_t packets);       // flows that are there
  std::uint64_t miss(std::uint32_t packets);      // flows that are not
  std::uint64_t exchange(std::uint32_t packets);  // the oldest go, new ones come

  [[nodiscard]] double bytes_per_flow() const;
  // Where flows stand and how far a miss has to look, in words.
  [[nodiscard]] std::string distribution() const;

 private:
  [[nodiscard]] DesignFlow flow(std::uint64_t n) const;

  const DesignOps& ops_;
  std::size_t design_;
  const Kernel& kernel_;
  std::uint64_t flows_;
  std::uint64_t oldest_ = 0;
  HashKeys keys_;
  HugeMemory memory_;
  DesignTable table_;
  std::mt19937_64 random_{1};
  volatile std::uint64_t sink_ = 0;
};

}  // namespace lb::bench
