// What lb itself says to clients and targets: TCP resets and ICMP errors. Rare path, compiled once for every CPU.
#pragma once

#include <cstdint>

#include "dp/abi/snapshot.h"
#include "dp/lb/work.h"

namespace lb {

// Packet i belongs to a dead flow: resets the client in the packet's own buffer and the target through ExtraPackets. Sets
// the verdict: answer, or drop as reset_rate_limited.
void answer_with_reset(Work& work, std::uint32_t i, const abi::Target& target);

// Packet i does not fit the way to its target. If it may not be fragmented, the client is told what fits. Sets the verdict:
// answer, or drop as too_big.
void answer_too_big(Work& work, std::uint32_t i, const abi::Target& target);

}  // namespace lb
