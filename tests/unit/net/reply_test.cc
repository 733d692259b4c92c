#include "dp/net/reply.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "tests/unit/net/generators.h"

namespace lb::net {
namespace {

using test::Bytes;
using test::FrameSpec;

ParsedPacket parse_ok(const Bytes& frame) {
  ParsedPacket packet;
  EXPECT_EQ(parse(frame.data(), static_cast<std::uint32_t>(frame.size()), true, packet).result, ParseResult::ok);
  return packet;
}

// Builds over the frame itself, in a block of its exact size, and into another buffer: both must be the same.
template <typename Build>
Bytes build(const Bytes& frame, const Build& builder) {
  const ParsedPacket packet = parse_ok(frame);
  test::ExactFrame in_place(frame);
  const std::uint32_t length = builder(in_place.data(), packet, in_place.data());
  EXPECT_LE(length, frame.size());
  test::ExactFrame source(frame);
  Bytes apart(frame.size());
  EXPECT_EQ(builder(source.data(), packet, apart.data()), length);
  apart.resize(length);
  EXPECT_EQ(Bytes(in_place.data(), in_place.data() + length), apart);
  return apart;
}

Bytes reset_to_client(const FrameSpec& spec) {
  return build(test::make_frame(spec), build_reset_to_client);
}
Bytes reset_to_target(const FrameSpec& spec) {
  return build(test::make_frame(spec), build_reset_to_target);
}
Bytes too_big(const FrameSpec& spec, std::uint32_t mtu) {
  return build(test::make_frame(spec), [&](const std::uint8_t* frame, const ParsedPacket& packet, std::uint8_t* out) {
    return build_packet_too_big(frame, packet, mtu, out);
  });
}

// The reset that answers, or repeats, a packet; from its description.
Bytes expected_reset(const FrameSpec& spec, bool to_client, std::uint32_t sequence, std::uint32_t acknowledgment,
                     std::uint8_t flags) {
  FrameSpec reset = spec;
  if (to_client) {
    std::swap(reset.source, reset.destination);
    std::swap(reset.source_port, reset.destination_port);
  }
  reset.traffic_class = 0;
  reset.ttl = 64;
  reset.id = 0;
  reset.dont_fragment = true;
  reset.options = reset.extensions = reset.tcp_options = reset.payload = {};
  reset.padding = 0;
  reset.sequence = sequence;
  reset.acknowledgment = acknowledgment;
  reset.tcp_flags = flags;
  Bytes frame = test::make_frame(reset);
  if (to_client) std::swap_ranges(frame.begin(), frame.begin() + 6, frame.begin() + 6);
  // The window of a reset is 0, that of the maker's segments is not: take it out of field and checksum.
  const std::size_t tcp = 14 + spec.tags.size() + spec.tags.size() + (spec.is_v6 ? 40U : 20U);
  frame[tcp + 14] = frame[tcp + 15] = 0;
  std::uint32_t checksum = test::get16(&frame[tcp + 16]) + 0xfaf0U;
  checksum = (checksum & 0xffff) + (checksum >> 16);
  frame[tcp + 16] = static_cast<std::uint8_t>(checksum >> 8);
  frame[tcp + 17] = static_cast<std::uint8_t>(checksum);
  return frame;
}

FrameSpec any_tcp() {
  FrameSpec spec = test::any_spec();
  spec.protocol = 6;
  if (!spec.extensions.empty()) spec.extensions = {}, spec.first_extension = 0;
  spec.tcp_flags &= static_cast<std::uint8_t>(~kTcpRst);
  return spec;
}

// One's complement has two zeros; a checksum of 0xffff and one of 0 say the same.
Bytes with_one_zero(Bytes frame, const FrameSpec& spec) {
  const std::size_t at = 14 + spec.tags.size() * 2 + (spec.is_v6 ? 40U : 20U) + 16;
  if (frame.size() > at + 1 && frame[at] == 0xff && frame[at + 1] == 0xff) frame[at] = frame[at + 1] = 0;
  return frame;
}

RC_GTEST_PROP(Reply, ResetToTheClientIsWhatItExpects, ()) {
  const FrameSpec spec = any_tcp();
  const bool has_ack = (spec.tcp_flags & kTcpAck) != 0;
  const auto space = static_cast<std::uint32_t>(spec.payload.size()) + ((spec.tcp_flags & kTcpSyn) != 0 ? 1U : 0U) +
                     ((spec.tcp_flags & kTcpFin) != 0 ? 1U : 0U);
  const Bytes expected = has_ack ? expected_reset(spec, true, spec.acknowledgment, 0, kTcpRst)
                                 : expected_reset(spec, true, 0, spec.sequence + space, kTcpRst | kTcpAck);
  RC_ASSERT(with_one_zero(reset_to_client(spec), spec) == with_one_zero(expected, spec));
}

RC_GTEST_PROP(Reply, ResetToTheTargetSpeaksForTheClient, ()) {
  const FrameSpec spec = any_tcp();
  const std::uint8_t ack = spec.tcp_flags & kTcpAck;
  const Bytes expected = expected_reset(spec, false, spec.sequence, ack != 0 ? spec.acknowledgment : 0, kTcpRst | ack);
  const Bytes reset = reset_to_target(spec);
  RC_ASSERT(with_one_zero(reset, spec) == with_one_zero(expected, spec));
  RC_ASSERT(parse_ok(reset).key == parse_ok(test::make_frame(spec)).key);
}

TEST(Reply, ResetToASynIsThoseBytes) {
  FrameSpec spec = test::tcp_v4();
  spec.tcp_flags = kTcpSyn;
  spec.sequence = 0xffffffff;  // the answer's number goes round
  EXPECT_EQ(reset_to_client(spec), test::from_hex("0200000000c1 02000000001b 0800"
                                                  "4500 0028 0000 4000 4006 4e8b c000020a c6336407"
                                                  "0050 9c40 00000000 00000000 5014 0000 26fb 0000"));
}

TEST(Reply, NothingAnswersAResetOrAGroupAddress) {
  FrameSpec spec = test::tcp_v4();
  spec.tcp_flags = kTcpRst | kTcpAck;
  EXPECT_TRUE(reset_to_client(spec).empty());
  EXPECT_TRUE(reset_to_target(spec).empty());
  spec.tcp_flags = kTcpAck;
  spec.payload = Bytes(600);
  Bytes frame = test::make_frame(spec);
  frame[0] |= 1;
  EXPECT_TRUE(build(frame, build_reset_to_client).empty());
  EXPECT_TRUE(build(frame, [](const std::uint8_t* f, const ParsedPacket& p, std::uint8_t* out) {
                return build_packet_too_big(f, p, 500, out);
              }).empty());
  FrameSpec udp = test::tcp_v4();
  udp.protocol = 17;
  EXPECT_TRUE(build(test::make_frame(udp), build_reset_to_client).empty());
}

TEST(Reply, FragmentationNeededQuotesUpTo576Bytes) {
  FrameSpec spec = test::tcp_v4();
  spec.tags = {0, 9};
  spec.options = {1, 1, 1, 0};
  for (const std::size_t payload : {400, 1460}) {
    spec.payload = Bytes(payload, 0x5a);
    const Bytes original = test::make_ip(spec);
    const Bytes answer = too_big(spec, 1480);
    ASSERT_EQ(answer.size(), 18 + std::min<std::size_t>(original.size(), 576));
    const Bytes ip(answer.begin() + 18, answer.end());
    EXPECT_TRUE(test::checksums_hold(ip));
    EXPECT_EQ(Bytes(answer.begin(), answer.begin() + 18), test::from_hex("0200000000c1 02000000001b 8100 0009 0800"));
    EXPECT_EQ(Bytes(ip.begin() + 12, ip.begin() + 20), test::from_hex("c000020a c6336407"));
    EXPECT_EQ(ip[9], 1);
    EXPECT_EQ(Bytes(ip.begin() + 20, ip.begin() + 22), test::from_hex("03 04"));
    EXPECT_EQ(Bytes(ip.begin() + 24, ip.begin() + 28), test::from_hex("0000 05c8"));
    EXPECT_TRUE(std::equal(ip.begin() + 28, ip.end(), original.begin()));
  }
}

TEST(Reply, PacketTooBigQuotesUpToTheMinimumMtu) {
  FrameSpec spec = test::tcp_v6();
  spec.payload = Bytes(1400, 0x5a);
  const Bytes original = test::make_ip(spec);
  const Bytes answer = too_big(spec, 1460);
  ASSERT_EQ(answer.size(), 14U + 1280U);
  const Bytes ip(answer.begin() + 14, answer.end());
  EXPECT_TRUE(test::checksums_hold(ip));
  EXPECT_EQ(ip[6], 58);
  EXPECT_TRUE(std::equal(ip.begin() + 8, ip.begin() + 24, spec.destination.bytes.begin()));
  EXPECT_TRUE(std::equal(ip.begin() + 24, ip.begin() + 40, spec.source.bytes.begin()));
  EXPECT_EQ(Bytes(ip.begin() + 40, ip.begin() + 42), test::from_hex("02 00"));
  EXPECT_EQ(Bytes(ip.begin() + 44, ip.begin() + 48), test::from_hex("0000 05b4"));
  EXPECT_TRUE(std::equal(ip.begin() + 48, ip.end(), original.begin()));
  EXPECT_EQ(test::get16(&too_big(spec, 1000)[14 + 46]), 1280U);  // never less than the minimum
}

TEST(Reply, APacketTooSmallToQuoteItsPortsIsNotAnswered) {
  EXPECT_TRUE(too_big(test::tcp_v4(), 30).empty());
  FrameSpec spec = test::tcp_v4();
  spec.payload = Bytes(16);  // 56 bytes: header, ICMP header, quoted header, 8 bytes
  EXPECT_EQ(too_big(spec, 30).size(), 14U + 56U);
}

}  // namespace
}  // namespace lb::net
