#include "dp/net/tunnel.h"

#include "dp/lb/forward_ops.h"

namespace lb {

OutFrame forward_tunnel(const Snapshot& snapshot, const abi::Target& target, const net::ParsedPacket& packet,
                        const Hash128& hash, std::uint8_t* data, std::uint32_t length, std::uint32_t headroom) {
  const std::uint32_t outer = outer_bytes(target);
  if (packet.ip_length + outer > target.mtu_bytes) return refuse_frame(data, length, abi::DropReason::too_big);
  if (outer + net::l2_bytes(target.vlan) > headroom + packet.l2_length) {
    return refuse_frame(data, length, abi::DropReason::no_headroom);
  }
  const abi::TunnelSource& source = tunnel_source_of(snapshot, target);
  if (source.present == 0) return refuse_frame(data, length, abi::DropReason::no_tunnel_source);
  const std::uint64_t on_wire = wire_hash(hash);
  const abi::IpAddress from = net::tunnel_source(source, on_wire);
  net::GeneveOptions options;
  std::uint16_t option_class = 0;
  if (target.mode == abi::ForwardingMode::geneve) {
    const abi::Gateway& gateway = snapshot.gateways()[target.tunnel_word];
    options = {gateway.vpce_id, gateway.attachment_id, static_cast<std::uint32_t>(hash.low)};  // named_hash()
    option_class = gateway.option_class;
  }
  const net::TunnelEnds ends{from, target.address, on_wire};
  std::uint8_t* start = net::encapsulate_for(target, data, packet, ends, length, options, option_class);
  return {start, length, abi::DropReason::none};
}

}  // namespace lb
