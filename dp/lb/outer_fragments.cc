#include "dp/lb/outer_fragments.h"

#include <algorithm>
#include <cstring>

#include "dp/lb/forward_ops.h"

namespace lb {
namespace {

constexpr std::uint32_t kFragmentHeaderBytes = 8;  // IPv6
constexpr std::uint32_t kUnitBytes = 8;            // of an offset
constexpr std::uint16_t kIpv4MoreFragments = 0x2000;
constexpr std::uint32_t kMaxHeaderBytes = net::kEthernetBytes + net::kVlanTagBytes + net::kIpv6Bytes + kFragmentHeaderBytes;

// The outer packet to be cut: where it stands, and its link and IP headers as every fragment begins.
struct Outer {
  std::uint8_t* payload = nullptr;  // behind the IP header
  std::uint32_t payload_bytes = 0;
  std::uint32_t link_bytes = 0;
  std::uint32_t ip_bytes = 0;  // of the IP header; a fragment header not included
  bool is_v6 = false;
  std::uint32_t id = 0;
  std::uint8_t head[kMaxHeaderBytes] = {};

  [[nodiscard]] std::uint32_t head_bytes() const { return link_bytes + ip_bytes + (is_v6 ? kFragmentHeaderBytes : 0); }
};

void write_v4(std::uint8_t* ip, const Outer& outer, std::uint32_t offset, std::uint32_t bytes, bool more) {
  store_be16(ip + net::kIpv4TotalLengthAt, static_cast<std::uint16_t>(net::kIpv4Bytes + bytes));
  store_be16(ip + net::kIpv4IdAt, static_cast<std::uint16_t>(outer.id));
  store_be16(ip + net::kIpv4FragmentAt, static_cast<std::uint16_t>(offset / kUnitBytes | (more ? kIpv4MoreFragments : 0U)));
  store_be16(ip + net::kIpv4ChecksumAt, 0);
  store(ip + net::kIpv4ChecksumAt, net::checksum_finish(net::ipv4_header_sum(ip)));
}

void write_v6(std::uint8_t* ip, const Outer& outer, std::uint32_t offset, std::uint32_t bytes, bool more) {
  std::uint8_t* fragment = ip + net::kIpv6Bytes;
  store_be16(ip + net::kIpv6PayloadLengthAt, static_cast<std::uint16_t>(kFragmentHeaderBytes + bytes));
  fragment[0] = ip[net::kIpv6NextHeaderAt];
  fragment[1] = 0;
  store_be16(fragment + 2, static_cast<std::uint16_t>(offset | (more ? 1U : 0U)));
  store_be32(fragment + 4, outer.id);
  ip[net::kIpv6NextHeaderAt] = net::kIpv6Fragment;
}

// Writes the headers of one fragment in front of its part of the payload. Returns where the frame starts.
std::uint8_t* write_fragment(const Outer& outer, std::uint32_t offset, std::uint32_t bytes, bool more) {
  std::uint8_t* frame = outer.payload + offset - outer.head_bytes();
  std::memcpy(frame, outer.head, outer.link_bytes + outer.ip_bytes);
  std::uint8_t* ip = frame + outer.link_bytes;
  outer.is_v6 ? write_v6(ip, outer, offset, bytes, more) : write_v4(ip, outer, offset, bytes, more);
  return frame;
}

// The packet behind its outer header, as if it fitted; nothing in its way but `reason`.
OutFrame encapsulate_whole(Work& work, std::uint32_t i, const abi::Target& target) {
  const Burst& burst = *work.burst;
  const std::uint32_t extra = is_v4(target.address) ? 0 : kFragmentHeaderBytes;
  if (burst.headroom[i] < extra) return refuse_frame(burst.data[i], burst.length[i], abi::DropReason::no_headroom);
  abi::Target wide = target;
  wide.mtu_bytes = 65535;
  return forward(*work.snapshot, wide, packet_of(work, i), work.hash[i], burst.data[i], burst.length[i],
                 burst.headroom[i] - extra);
}

}  // namespace

bool send_fragmented(Work& work, std::uint32_t i, const abi::Target& target) {
  Burst& burst = *work.burst;
  const OutFrame whole = encapsulate_whole(work, i, target);
  if (whole.reason != abi::DropReason::none || work.options.extra == nullptr) {
    drop(work, i, whole.reason != abi::DropReason::none ? whole.reason : abi::DropReason::too_big);
    return false;
  }
  Outer outer;
  outer.is_v6 = !is_v4(target.address);
  outer.link_bytes = net::l2_bytes(target.vlan);
  outer.ip_bytes = net::encap_bytes(outer.is_v6);
  outer.payload = whole.data + outer.link_bytes + outer.ip_bytes;
  outer.payload_bytes = whole.length - outer.link_bytes - outer.ip_bytes;
  // Workers share the outer addresses, so the flow's hash keeps their ids apart.
  const auto on_wire = static_cast<std::uint32_t>(wire_hash(work.hash[i]) & 0xffff);
  ++work.outer_fragment_id;
  outer.id = outer.is_v6 ? on_wire << 16 | (work.outer_fragment_id & 0xffff) : (on_wire ^ work.outer_fragment_id) & 0xffff;
  std::memcpy(outer.head, whole.data, outer.link_bytes + outer.ip_bytes);

  const std::uint32_t room = target.mtu_bytes - (outer.head_bytes() - outer.link_bytes);
  const std::uint32_t most = room / kUnitBytes * kUnitBytes;
  std::uint32_t offset = 0;
  for (; outer.payload_bytes - offset > room; offset += most) {
    std::uint8_t kept[kMaxHeaderBytes];  // the payload before this part, overwritten while the fragment is sent
    std::uint8_t* front = outer.payload + offset - outer.head_bytes();
    std::memcpy(kept, front, outer.head_bytes());
    const std::uint8_t* frame = write_fragment(outer, offset, most, true);
    const bool sent = work.options.extra->send(target.out_port, frame, outer.head_bytes() + most);
    std::memcpy(front, kept, outer.head_bytes());
    if (!sent) {
      drop(work, i, abi::DropReason::tx_full);
      return false;
    }
    ++count(work, abi::Counter::extra_fragments);
  }
  burst.data[i] = write_fragment(outer, offset, outer.payload_bytes - offset, false);
  burst.length[i] = outer.head_bytes() + outer.payload_bytes - offset;
  return true;
}

}  // namespace lb
