// The hot code of one instruction set: kernel.cc, compiled once for each of x86-64-v2, -v3 (with AES) and -v4 (with VAES).
// dispatch.h picks one at start.
#pragma once

#include <cstdint>

#include "dp/lb/work.h"

namespace lb {

// The stages in their order. Each runs over the whole burst of `work`, and leaves its result there.
enum class Stage : std::uint8_t { parse, vip, flow, pick, decide, rewrite, count };
inline constexpr std::uint32_t kStageCount = 7;

struct Kernel {
  const char* name;                         // "v2", "v3", "v4"
  bool (*supported)();                      // by this CPU
  void (*process)(Work& work);              // all stages
  void (*begin)(Work& work);                // before the first stage
  void (*stages[kStageCount])(Work& work);  // one by one, for the benchmarks
  void (*sweep)(Work& work, std::uint32_t lines);
  Hash128 (*hash)(const HashKeys& keys, const net::FlowKey& key);  // for tests
};

extern const Kernel kKernelV2;
extern const Kernel kKernelV3;
extern const Kernel kKernelV4;

}  // namespace lb
