#include "dp/lb/own_outer.h"

#include "dp/lb/forward_ops.h"

namespace lb {

bool is_tunnel_source(const Snapshot& snapshot, const abi::IpAddress& address) {
  const abi::TunnelSource& source = is_v4(address) ? snapshot.root().tunnel_source_v4 : snapshot.root().tunnel_source_v6;
  return source.present != 0 &&
         abi::masked(address, source.prefix_length) == abi::masked(source.prefix, source.prefix_length);
}

bool is_own_outer(const Snapshot& snapshot, const net::ParsedPacket& packet) {
  switch (static_cast<abi::Protocol>(packet.protocol)) {
    case abi::Protocol::ipip:
    case abi::Protocol::ipv6_in:
    case abi::Protocol::gre: break;
    case abi::Protocol::udp: {
      const std::uint16_t port = packet.key.destination_port;
      if (port != abi::kGuePort && port != abi::kGenevePort) return false;
      break;
    }
    default: return false;
  }
  return is_tunnel_source(snapshot, packet.key.source);
}

void drop_unlistened(Work& work, std::uint32_t i) {
  drop(work, i,
       is_own_outer(*work.snapshot, packet_of(work, i)) ? abi::DropReason::own_outer : abi::DropReason::no_listener);
}

}  // namespace lb
