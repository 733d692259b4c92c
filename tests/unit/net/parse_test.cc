#include "dp/net/parse.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <functional>

#include "tests/unit/net/generators.h"

namespace lb::net {
namespace {

using abi::DropReason;
using test::Bytes;
using test::FrameSpec;

struct Parsed {
  ParseStatus status;
  ParsedPacket packet;
};

Parsed parse_bytes(const Bytes& frame, bool check_ip_checksum = true) {
  test::ExactFrame exact(frame);
  Parsed parsed;
  parsed.status = parse(exact.data(), exact.length(), check_ip_checksum, parsed.packet);
  return parsed;
}

Parsed parse_bytes_inline(const Bytes& frame, bool check_ip_checksum = true) {
  test::ExactFrame exact(frame);
  Parsed parsed;
  std::memset(static_cast<void*>(&parsed.packet), 0xa5, sizeof parsed.packet);  // every field must be written
  parsed.status = parse_inline(exact.data(), exact.length(), check_ip_checksum, parsed.packet);
  return parsed;
}

bool same(const ParsedPacket& a, const ParsedPacket& b) {
  return a.key == b.key && a.l2_length == b.l2_length && a.l4_offset == b.l4_offset && a.ip_length == b.ip_length &&
         a.vlan == b.vlan && a.protocol == b.protocol && a.tcp_flags == b.tcp_flags && a.ttl == b.ttl &&
         a.traffic_class == b.traffic_class && a.dont_fragment == b.dont_fragment;
}

void expect_drop(const Bytes& frame, DropReason reason) {
  for (const auto& parsed : {parse_bytes(frame), parse_bytes_inline(frame)}) {
    EXPECT_EQ(parsed.status.result, ParseResult::drop);
    EXPECT_EQ(to_string(parsed.status.reason), to_string(reason));
  }
}

// `change` of a well-formed frame gives this drop reason.
void expect_drop(const FrameSpec& spec, const std::function<void(Bytes&)>& change, DropReason reason) {
  Bytes frame = test::make_frame(spec);
  change(frame);
  expect_drop(frame, reason);
}

TEST(Parse, ReadsTheFieldsOfATcpSyn) {
  const Parsed parsed =
      parse_bytes(test::from_hex("02000000001b 0200000000c1 0800"
                                 "4500 0028 1234 4000 3f06 3d57 c6336407 c000020a"
                                 "9c40 0050 000003e8 00000000 5002 faf0 0000 0000"));
  ASSERT_EQ(parsed.status.result, ParseResult::ok);
  EXPECT_EQ(parsed.packet.key.source, abi::IpAddress::v4(198, 51, 100, 7));
  EXPECT_EQ(parsed.packet.key.destination, abi::IpAddress::v4(192, 0, 2, 10));
  EXPECT_EQ(parsed.packet.key.source_port, 40000);
  EXPECT_EQ(parsed.packet.key.destination_port, 80);
  EXPECT_EQ(parsed.packet.key.protocol, 6);
  EXPECT_EQ(parsed.packet.l2_length, 14);
  EXPECT_EQ(parsed.packet.l4_offset, 34);
  EXPECT_EQ(parsed.packet.ip_length, 40);
  EXPECT_EQ(parsed.packet.tcp_flags, kTcpSyn);
  EXPECT_EQ(parsed.packet.ttl, 63);
  EXPECT_EQ(parsed.packet.dont_fragment, 1);
}

TEST(Parse, ReadsUdpOverIpv6InAVlan) {
  const Parsed parsed =
      parse_bytes(test::from_hex("02000000001b 0200000000c1 8100 a07b 86dd"
                                 "6b812345 000a 11 28"
                                 "20010db8000000000000000000000007 20010db8000000000000000000000010"
                                 "0035 1388 000a 0000 6869"));
  ASSERT_EQ(parsed.status.result, ParseResult::ok);
  EXPECT_EQ(parsed.packet.vlan, 0x07b);
  EXPECT_EQ(parsed.packet.l2_length, 18);
  EXPECT_EQ(parsed.packet.ip_length, 50);
  EXPECT_EQ(parsed.packet.traffic_class, 0xb8);
  EXPECT_EQ(parsed.packet.ttl, 40);
  EXPECT_EQ(parsed.packet.key.source, test::v6_address(7));
  EXPECT_EQ(parsed.packet.key.source_port, 53);
  EXPECT_EQ(parsed.packet.key.destination_port, 5000);
  EXPECT_EQ(parsed.packet.key.is_v6, 1);
}

RC_GTEST_PROP(Parse, FindsWhatTheFrameWasMadeOf, ()) {
  const FrameSpec spec = test::any_spec();
  const Parsed parsed = parse_bytes(test::make_frame(spec));
  RC_ASSERT(parsed.status.result == ParseResult::ok);
  const ParsedPacket& packet = parsed.packet;
  RC_ASSERT(packet.key.source == spec.source && packet.key.destination == spec.destination);
  RC_ASSERT(packet.key.source_port == spec.source_port && packet.key.destination_port == spec.destination_port);
  RC_ASSERT(packet.key.protocol == spec.protocol && packet.protocol == spec.protocol &&
            packet.key.is_v6 == (spec.is_v6 ? 1 : 0));
  RC_ASSERT(packet.l2_length == 14 + spec.tags.size() * 2);
  RC_ASSERT(packet.ip_length == test::make_ip(spec).size());
  RC_ASSERT(packet.l4_offset == packet.l2_length + (spec.is_v6 ? 40U : 20U) + spec.options.size() + spec.extensions.size());
  RC_ASSERT(packet.vlan == (spec.tags.empty() ? 0U : test::get16(spec.tags.data()) & 0xfffU));
  RC_ASSERT(packet.tcp_flags == (spec.protocol == 6 ? spec.tcp_flags : 0));
  RC_ASSERT(packet.ttl == spec.ttl && packet.traffic_class == spec.traffic_class);
  RC_ASSERT(packet.dont_fragment == (spec.is_v6 || spec.dont_fragment ? 1 : 0));
}

RC_GTEST_PROP(Parse, SaysTheSameInline, ()) {
  Bytes frame = test::make_frame(test::any_spec());
  const auto changes = *rc::gen::container<std::vector<std::pair<std::uint8_t, std::uint8_t>>>(
      rc::gen::pair(rc::gen::inRange<std::uint8_t>(0, 80), rc::gen::arbitrary<std::uint8_t>()));
  for (std::size_t i = 0; i < std::min<std::size_t>(changes.size(), 3); ++i)
    frame[changes[i].first % frame.size()] = changes[i].second;
  frame.resize(frame.size() - *rc::gen::inRange<std::size_t>(0, 8));
  const bool check = *rc::gen::arbitrary<bool>();
  const Parsed a = parse_bytes(frame, check);
  const Parsed b = parse_bytes_inline(frame, check);
  RC_ASSERT(a.status.result == b.status.result && a.status.reason == b.status.reason);
  if (a.status.result != ParseResult::drop) RC_ASSERT(same(a.packet, b.packet));
}

RC_GTEST_PROP(Parse, AFrameCutAnywhereIsDropped, ()) {
  FrameSpec spec = test::any_spec();
  spec.padding = 0;
  const Bytes frame = test::make_frame(spec);
  for (std::size_t n = 0; n < frame.size(); ++n) {
    const Parsed parsed = parse_bytes_inline(Bytes(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(n)));
    RC_ASSERT(parsed.status.result == ParseResult::drop);
    RC_ASSERT(parsed.status.reason == DropReason::truncated);
  }
}

RC_GTEST_PROP(Parse, AnyBytesGetAResultWithinTheFrame, ()) {
  Bytes frame = *test::bytes_up_to(160);
  if (frame.size() >= 14) {
    frame[12] = *rc::gen::element<std::uint8_t>(0x08, 0x86, 0x81);
    frame[13] = frame[12] == 0x86 ? 0xdd : 0;
  }
  if (frame.size() > 14) frame[14] = *rc::gen::element<std::uint8_t>(0x45, 0x46, 0x60, 0x4f);
  const Parsed parsed = parse_bytes_inline(frame, false);
  if (parsed.status.result == ParseResult::ok || parsed.status.result == ParseResult::other_ip) {
    RC_ASSERT(parsed.packet.l2_length + parsed.packet.ip_length <= frame.size());
    RC_ASSERT(parsed.packet.l4_offset <= parsed.packet.l2_length + parsed.packet.ip_length);
  } else if (parsed.status.result == ParseResult::drop) {
    RC_ASSERT(parsed.status.reason != DropReason::none);
  }
}

TEST(Parse, FramesThatAreNotIpAreNotIp) {
  for (const char* ether_type : {"0806", "88cc", "0026", "8847"}) {
    Bytes frame = test::from_hex(std::string("ffffffffffff 0200000000c1") + ether_type);
    frame.resize(60);
    EXPECT_EQ(parse_bytes(frame).status.result, ParseResult::not_ip);
  }
  Bytes three_tags = test::from_hex("02000000001b 0200000000c1 88a8 0001 8100 0002 8100 0003 0800");
  three_tags.resize(64);
  EXPECT_EQ(parse_bytes(three_tags).status.result, ParseResult::not_ip);
}

TEST(Parse, WrongIpv4HeadersAreNamed) {
  const auto spec = test::tcp_v4();
  expect_drop(
      spec, [](Bytes& f) { f[14] = 0x55; }, DropReason::bad_ip_header);  // version 5
  expect_drop(
      spec, [](Bytes& f) { f[14] = 0x44; }, DropReason::bad_ip_header);  // header of 16 bytes
  expect_drop(
      spec, [](Bytes& f) { f[16] = f[17] = 0; }, DropReason::bad_ip_header);  // total length 0
  expect_drop(
      spec, [](Bytes& f) { f[17] = 19; }, DropReason::bad_ip_header);  // shorter than its header
  expect_drop(
      spec, [](Bytes& f) { f[17] += 1; }, DropReason::truncated);  // longer than the frame
  expect_drop(
      spec, [](Bytes& f) { f[24] ^= 1; }, DropReason::bad_ip_checksum);
  auto with_options = spec;
  with_options.options = {1, 1, 1, 0};
  expect_drop(
      with_options, [](Bytes& f) { f[34] = 0; }, DropReason::bad_ip_checksum);  // covers options
}

TEST(Parse, AChecksumTheNicHasSeenIsNotLookedAt) {
  Bytes frame = test::make_frame(test::tcp_v4());
  frame[24] ^= 1;
  EXPECT_EQ(parse_bytes(frame, false).status.result, ParseResult::ok);
  EXPECT_EQ(parse_bytes_inline(frame, false).status.result, ParseResult::ok);
}

TEST(Parse, WrongIpv6HeadersAreNamed) {
  const auto spec = test::tcp_v6();
  expect_drop(
      spec, [](Bytes& f) { f[14] = 0x40; }, DropReason::bad_ip_header);
  expect_drop(
      spec, [](Bytes& f) { f[18] = f[19] = 0; }, DropReason::bad_ip_header);  // empty, or a jumbogram
  expect_drop(
      spec, [](Bytes& f) { f[19] += 1; }, DropReason::truncated);
  auto mapped = spec;
  mapped.destination = abi::IpAddress::v4(192, 0, 2, 10);
  expect_drop(
      mapped, [](Bytes&) {}, DropReason::bad_ip_header);
  mapped = spec;
  mapped.source = abi::IpAddress::v4(192, 0, 2, 10);
  expect_drop(
      mapped, [](Bytes&) {}, DropReason::bad_ip_header);
}

TEST(Parse, L4HeadersThatDoNotFitAreNamed) {
  auto udp = test::tcp_v4();
  udp.protocol = 17;
  udp.payload = Bytes(20);
  expect_drop(
      test::tcp_v4(), [](Bytes& f) { f[46] = 0x40; }, DropReason::bad_l4_header);  // 16 bytes
  expect_drop(
      test::tcp_v4(), [](Bytes& f) { f[46] = 0x60; }, DropReason::bad_l4_header);  // past the packet
  expect_drop(
      test::tcp_v6(), [](Bytes& f) { f[66] = 0xf0; }, DropReason::bad_l4_header);
  expect_drop(
      udp, [](Bytes& f) { f[39] = 7; }, DropReason::bad_l4_header);
  expect_drop(
      udp, [](Bytes& f) { f[39] = 29; }, DropReason::bad_l4_header);
  auto tiny = test::tcp_v6();  // 4 bytes of payload cannot be UDP
  tiny.protocol = 99;
  tiny.payload = Bytes(4);
  expect_drop(
      tiny, [](Bytes& f) { f[20] = 17; }, DropReason::truncated);
}

TEST(Parse, OtherProtocolsKeepTheirAddressesAndHaveNoPorts) {
  for (const bool is_v6 : {false, true}) {
    auto spec = is_v6 ? test::tcp_v6() : test::tcp_v4();
    spec.protocol = is_v6 ? 58 : 1;
    spec.payload = Bytes(8, 0xff);
    const Parsed parsed = parse_bytes_inline(test::make_frame(spec));
    EXPECT_EQ(parsed.status.result, ParseResult::other_ip);
    EXPECT_EQ(parsed.status.reason, DropReason::none);
    EXPECT_EQ(parsed.packet.protocol, spec.protocol);
    EXPECT_EQ(parsed.packet.key.destination, spec.destination);
    EXPECT_EQ(parsed.packet.key.destination_port, 0);
  }
}

TEST(Parse, Ipv4FragmentsAreFragmentsTheFirstToo) {
  for (const std::uint8_t flags : Bytes{0x20, 0x00}) {
    auto spec = test::tcp_v4();
    Bytes frame = test::make_frame(spec);
    frame[20] = flags;
    frame[21] = flags == 0 ? 185 : 0;
    const Parsed parsed = parse_bytes_inline(frame, false);
    EXPECT_EQ(parsed.status.result, ParseResult::other_ip);
    EXPECT_EQ(parsed.status.reason, DropReason::fragment);
    EXPECT_EQ(parsed.packet.key.destination_port, 0);
    EXPECT_EQ(parsed.packet.protocol, 6);
  }
}

TEST(Parse, Ipv6FragmentsAreFragmentsUnlessTheyAreWhole) {
  auto spec = test::tcp_v6();
  spec.first_extension = 44;
  for (const auto& [low, result] : {std::pair{0x01, ParseResult::other_ip}, std::pair{0x08, ParseResult::other_ip},
                                    std::pair{0x06, ParseResult::ok}}) {  // more follow; offset 8; reserved bits alone
    spec.extensions = {6, 0, 0, static_cast<std::uint8_t>(low), 1, 2, 3, 4};
    const Parsed parsed = parse_bytes_inline(test::make_frame(spec));
    EXPECT_EQ(parsed.status.result, result);
    EXPECT_EQ(parsed.status.reason, result == ParseResult::ok ? DropReason::none : DropReason::fragment);
    EXPECT_EQ(parsed.packet.protocol, 6);
  }
}

TEST(Parse, ExtensionHeadersOutOfBoundsOrderOrNumberAreNamed) {
  auto spec = test::tcp_v6();
  spec.first_extension = 60;
  spec.extensions = {6, 0, 1, 4, 0, 0, 0, 0};
  EXPECT_EQ(parse_bytes(test::make_frame(spec)).status.result, ParseResult::ok);
  expect_drop(
      spec, [](Bytes& f) { f[55] = 200; }, DropReason::bad_extension_header);  // past the packet
  expect_drop(
      spec, [](Bytes& f) { f[54] = 0; }, DropReason::bad_extension_header);  // hop-by-hop must be first
  Bytes chain;
  for (std::uint32_t i = 0; i < kMaxExtensionHeaders; ++i) test::put(chain, {60, 0, 1, 4, 0, 0, 0, 0});
  spec.extensions = chain;
  spec.extensions[chain.size() - 8] = 6;
  EXPECT_EQ(parse_bytes(test::make_frame(spec)).status.result, ParseResult::ok);
  test::put(chain, {6, 0, 1, 4, 0, 0, 0, 0});
  spec.extensions = chain;
  expect_drop(
      spec, [](Bytes&) {}, DropReason::bad_extension_header);
}

TEST(Parse, ARoutingHeaderWithSegmentsLeftIsNotBalanced) {
  auto spec = test::tcp_v6();
  spec.first_extension = 43;
  spec.extensions = {6, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  const Parsed parsed = parse_bytes_inline(test::make_frame(spec));
  EXPECT_EQ(parsed.status.result, ParseResult::other_ip);
  EXPECT_EQ(parsed.packet.protocol, 43);
}

TEST(Parse, BadSourcesAreThoseNoClientCanHave) {
  FlowKey key{.source = {}, .destination = abi::IpAddress::v4(192, 0, 2, 10)};
  const auto bad_v4 = [&](std::uint8_t a, std::uint8_t b, std::uint8_t c, std::uint8_t d) {
    key.source = abi::IpAddress::v4(a, b, c, d);
    return is_bad_source(key);
  };
  EXPECT_TRUE(bad_v4(0, 0, 0, 0));
  EXPECT_TRUE(bad_v4(127, 0, 0, 1));
  EXPECT_TRUE(bad_v4(224, 0, 0, 1));
  EXPECT_TRUE(bad_v4(239, 255, 255, 255));
  EXPECT_TRUE(bad_v4(255, 255, 255, 255));
  EXPECT_TRUE(bad_v4(0, 1, 2, 3));
  EXPECT_TRUE(bad_v4(240, 0, 0, 1));
  EXPECT_FALSE(bad_v4(192, 0, 2, 11));
  EXPECT_FALSE(bad_v4(10, 0, 0, 0));
  EXPECT_FALSE(bad_v4(223, 255, 255, 255));

  key.is_v6 = 1;
  key.destination = test::v6_address(0x10);
  const auto bad_v6 = [&](const abi::IpAddress& source) {
    key.source = source;
    return is_bad_source(key);
  };
  EXPECT_TRUE(bad_v6({}));
  EXPECT_TRUE(bad_v6({{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}}));
  EXPECT_TRUE(bad_v6({{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}}));
  EXPECT_TRUE(bad_v6({{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1}}));
  EXPECT_TRUE(bad_v6({{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}}));
  EXPECT_FALSE(bad_v6({{0xfd, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}}));
  EXPECT_FALSE(bad_v6(test::v6_address(0x11)));
}

TEST(Parse, LandIsAPacketFromItsDestination) {
  FlowKey key{.source = abi::IpAddress::v4(192, 0, 2, 10), .destination = abi::IpAddress::v4(192, 0, 2, 10)};
  EXPECT_TRUE(is_land(key));
  key.source = abi::IpAddress::v4(192, 0, 2, 11);
  EXPECT_FALSE(is_land(key));
  key.is_v6 = 1;
  key.source = key.destination = test::v6_address(0x10);
  EXPECT_TRUE(is_land(key));
  key.source = test::v6_address(0x11);
  EXPECT_FALSE(is_land(key));
}

}  // namespace
}  // namespace lb::net
