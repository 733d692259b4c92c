// What lb itself says to clients and targets: TCP resets and ICMP errors. Rare path, compiled once for every CPU.
#pragma once

#include <cstdint>

#include "dp/abi/snapshot.h"
#include "dp/lb/work.h"

namespace lb {

// Packet i belongs to a dead flow: resets the client in the packet's own buffer and the target through ExtraPackets. Sets
// the verdict: answer, or drop as reset_rate_limited.
void answer_with_reset(Work& work, std::uint32_t i, const abi::Target& target);

// Packet i is an intact echo request to a VIP. Sets the verdict: answer, or drop as bad_icmp if it came to a group MAC
// address.
void answer_echo(Work& work, std::uint32_t i);

// Packet i found no place in the flow table, which its mode needs: refuse(), as flow_table_full.
void refuse_untracked(Work& work, std::uint32_t i);

// Packet i cannot be served for want of something: its sender is told, by a reset (TCP) or "port unreachable" (UDP), in the
// packet's own buffer. Sets the verdict: answer, or drop for `reason` where the limit is reached or nothing may be said.
void refuse(Work& work, std::uint32_t i, abi::DropReason reason);

// Packet i does not fit the way to its target. If it may not be fragmented, the client is told what fits. Sets the verdict:
// answer, or drop as too_big. An ICMP error is never answered with another (RFC 1122 §3.2.2), nor is a fragment but the
// first.
void answer_too_big(Work& work, std::uint32_t i, const abi::Target& target);
// The same where `fits_bytes` of the client's packet fit.
void answer_too_big(Work& work, std::uint32_t i, std::uint32_t fits_bytes);

}  // namespace lb
