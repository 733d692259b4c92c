#include "dp/net/encap.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "tests/unit/net/generators.h"

namespace lb::net {
namespace {

using test::Bytes;
using test::FrameSpec;

// A frame at the end of a heap block with exactly `headroom` bytes in front of it.
struct Buffer {
  Buffer(const Bytes& frame, std::size_t headroom) : block(with_headroom(frame, headroom)), data(block.data() + headroom) {
    length = static_cast<std::uint32_t>(frame.size());
  }
  static Bytes with_headroom(const Bytes& frame, std::size_t headroom) {
    Bytes bytes(headroom, 0xee);
    test::put(bytes, frame);
    return bytes;
  }
  [[nodiscard]] Bytes result() const { return {data, data + length}; }

  test::ExactFrame block;
  std::uint8_t* data;
  std::uint32_t length;
};

ParsedPacket parse_ok(const Bytes& frame) {
  ParsedPacket packet;
  EXPECT_EQ(parse(frame.data(), static_cast<std::uint32_t>(frame.size()), true, packet).result, ParseResult::ok);
  return packet;
}

Bytes encapsulated(const Bytes& frame, const TunnelEnds& ends, bool outer_is_v6, std::uint16_t vlan) {
  const ParsedPacket packet = parse_ok(frame);
  const std::uint32_t needed = encap_bytes(outer_is_v6) + l2_bytes(vlan);
  Buffer buffer(frame, needed > packet.l2_length ? needed - packet.l2_length : 0);
  buffer.data = encapsulate(buffer.data, packet, ends, outer_is_v6, {test::kTargetMac, test::kLbMac, vlan}, buffer.length);
  return buffer.result();
}

TEST(Encap, Writes4In4AsThoseBytes) {
  const Bytes frame = test::from_hex(
      "02000000001b 0200000000c1 0800"
      "4502 0028 1234 4000 4006 3c55 c6336407 c000020a"
      "9c40 0050 000003e8 00000000 5002 faf0 0000 0000");
  const abi::IpAddress source = abi::IpAddress::v4(10, 100, 0, 7);
  const abi::IpAddress target = abi::IpAddress::v4(10, 77, 2, 2);
  EXPECT_EQ(encapsulated(frame, {source, target, 0}, false, 0),
            test::from_hex("020000000070 02000000001b 0800"
                           "4502 003c 0000 4000 4004 2403 0a640007 0a4d0202"
                           "4502 0028 1234 4000 3f06 3d55 c6336407 c000020a"
                           "9c40 0050 000003e8 00000000 5002 faf0 0000 0000"));
}

TEST(Encap, Writes6In6InAVlanAsThoseBytes) {
  FrameSpec spec = test::tcp_v6();
  spec.protocol = 17;
  spec.traffic_class = 0xb9;
  spec.payload = {1, 2};
  Bytes inner = test::make_ip(spec);
  inner[7] = 63;
  Bytes expected = test::from_hex(
      "020000000070 02000000001b 8100 0064 86dd"
      "6b9abcde 0032 29 40"
      "20010db80000000000000000000000aa 20010db80000000000000000000000bb");
  test::put(expected, inner);
  EXPECT_EQ(
      encapsulated(test::make_frame(spec), {test::v6_address(0xaa), test::v6_address(0xbb), 0xabcde00000000000}, true, 100),
      expected);
}

// What the outer header must be, from the description of the inner packet.
FrameSpec outer_of(const FrameSpec& inner, bool outer_is_v6, const TunnelEnds& ends) {
  FrameSpec outer;
  outer.is_v6 = outer_is_v6;
  outer.source = ends.source;
  outer.destination = ends.destination;
  outer.traffic_class = inner.traffic_class;
  outer.protocol = inner.is_v6 ? 41 : 4;
  outer.dont_fragment = inner.is_v6 || inner.dont_fragment;
  outer.id = outer.dont_fragment ? 0 : static_cast<std::uint16_t>(inner.id ^ (ends.flow_hash >> 48));
  FrameSpec inner_after = inner;
  --inner_after.ttl;
  outer.payload = test::make_ip(inner_after);
  return outer;
}

RC_GTEST_PROP(Encap, IsTheInnerPacketBehindTheRightOuterHeader, ()) {
  FrameSpec spec = test::any_spec();
  if (spec.ttl < 2) spec.ttl = 2;
  const bool outer_is_v6 = *rc::gen::arbitrary<bool>();
  const auto vlan = *rc::gen::element<std::uint16_t>(0, 1, 4094);
  const abi::IpAddress source = test::any_address(outer_is_v6);
  const abi::IpAddress target = test::any_address(outer_is_v6);
  const TunnelEnds ends{source, target, *rc::gen::arbitrary<std::uint64_t>()};
  const Bytes out = encapsulated(test::make_frame(spec), ends, outer_is_v6, vlan);

  const std::size_t l2 = vlan == 0 ? 14 : 18;
  RC_ASSERT(std::equal(test::kTargetMac.begin(), test::kTargetMac.end(), out.begin()));
  RC_ASSERT(std::equal(test::kLbMac.begin(), test::kLbMac.end(), out.begin() + 6));
  RC_ASSERT(vlan == 0 || (test::get16(&out[12]) == 0x8100 && test::get16(&out[14]) == vlan));
  RC_ASSERT(test::get16(&out[l2 - 2]) == (outer_is_v6 ? 0x86ddU : 0x0800U));
  Bytes expected = test::make_ip(outer_of(spec, outer_is_v6, ends));
  if (outer_is_v6) {  // flow label, as ECMP routers want it
    expected[1] = static_cast<std::uint8_t>(expected[1] | (ends.flow_hash >> 60));
    expected[2] = static_cast<std::uint8_t>(ends.flow_hash >> 52);
    expected[3] = static_cast<std::uint8_t>(ends.flow_hash >> 44);
  }
  RC_ASSERT(Bytes(out.begin() + static_cast<std::ptrdiff_t>(l2), out.end()) == expected);
}

RC_GTEST_PROP(Rewrite, ChangesOnlyTheEthernetHeader, ()) {
  const FrameSpec spec = test::any_spec();
  const Bytes frame = test::make_frame(spec);
  const ParsedPacket packet = parse_ok(frame);
  const auto vlan = *rc::gen::element<std::uint16_t>(0, 7);
  const std::uint32_t l2 = l2_bytes(vlan);
  Buffer buffer(frame, l2 > packet.l2_length ? l2 - packet.l2_length : 0);
  std::uint8_t* out = rewrite_l2(buffer.data, packet, {test::kTargetMac, test::kLbMac, vlan});
  RC_ASSERT(out == buffer.data + packet.l2_length - l2);
  Bytes expected(test::kTargetMac.begin(), test::kTargetMac.end());
  expected.insert(expected.end(), test::kLbMac.begin(), test::kLbMac.end());
  if (vlan != 0) test::put(expected, {0x81, 0, 0, 7});
  test::put16(expected, spec.is_v6 ? 0x86dd : 0x0800);
  expected.insert(expected.end(), frame.begin() + packet.l2_length, frame.end());
  RC_ASSERT(Bytes(out, out + expected.size()) == expected);
}

// Every value of the checksum, of which one has its carry go round to 0 (RFC 1624 §3).
TEST(Rewrite, EveryTtlAndChecksumIsThatOfAHeaderMadeSo) {
  FrameSpec spec = test::tcp_v4();
  for (std::uint32_t id = 0; id <= 0xffff; ++id) {
    spec.id = static_cast<std::uint16_t>(id);
    spec.ttl = static_cast<std::uint8_t>(2 + id % 254);
    Bytes ip = test::make_ip(spec);
    decrement_ttl(ip.data(), false);
    --spec.ttl;
    ASSERT_EQ(ip, test::make_ip(spec)) << id;
  }
}

TEST(TunnelSource, HostBitsFollowTheFlowHashAndThePrefixStays) {
  abi::TunnelSource v4{.prefix = abi::IpAddress::v4(10, 100, 7, 0), .prefix_length = 120, .present = 1};
  EXPECT_EQ(tunnel_source(v4, 0xabcdef), abi::IpAddress::v4(10, 100, 7, 0xef));
  v4.prefix_length = 126;
  EXPECT_EQ(tunnel_source(v4, 0xff), abi::IpAddress::v4(10, 100, 7, 3));
  v4.prefix_length = 128;
  EXPECT_EQ(tunnel_source(v4, ~0ULL), abi::IpAddress::v4(10, 100, 7, 0));
  abi::TunnelSource v6{.prefix = test::v6_address(0), .prefix_length = 32, .present = 1};
  abi::IpAddress expected = test::v6_address(0);
  for (std::size_t i = 0; i < 8; ++i) expected.bytes[8 + i] = static_cast<std::uint8_t>(i + 1);
  EXPECT_EQ(tunnel_source(v6, 0x0102030405060708), expected);
}

}  // namespace
}  // namespace lb::net
