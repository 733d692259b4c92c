#include "dp/lb/mss.h"

#include <algorithm>

#include "dp/lb/forward_ops.h"
#include "dp/net/mss.h"

namespace lb {

void clamp_mss_for(Work& work, std::uint32_t i, const abi::Target& target) {
  const net::ParsedPacket& packet = packet_of(work, i);
  if (packet.protocol != kTcp || (packet.tcp_flags & net::kTcpSyn) == 0) return;
  const std::uint32_t fits = target.mtu_bytes - std::min<std::uint32_t>(target.mtu_bytes, outer_bytes(target));
  if (net::clamp_mss(work.burst->data[i], packet, net::mss_for(fits, packet.key.is_v6 != 0)))
    ++count(work, abi::Counter::mss_clamped);
}

}  // namespace lb
