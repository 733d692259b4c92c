#include "dp/net/translate.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "tests/unit/net/generators.h"

namespace lb::net {
namespace {

using test::Bytes;
using test::FrameSpec;

ParsedPacket parse_any(const Bytes& frame) {
  ParsedPacket packet;
  parse(frame.data(), static_cast<std::uint32_t>(frame.size()), false, packet);
  return packet;
}

Bytes translated(const Bytes& frame, Side side, const abi::IpAddress& address, std::uint16_t port) {
  const ParsedPacket packet = parse_any(frame);
  test::ExactFrame exact(frame);
  translate(exact.data(), packet, side, address, port);
  return {exact.data(), exact.data() + exact.length()};
}

abi::IpAddress any_address(bool is_v6) {
  abi::IpAddress address = is_v6 ? test::v6_address(1) : abi::IpAddress::v4(10, 0, 0, 1);
  for (std::size_t i = is_v6 ? 2 : 13; i < 16; ++i) address.bytes[i] = *rc::gen::arbitrary<std::uint8_t>();
  return address;
}

RC_GTEST_PROP(Translate, EqualsTheFrameMadeWithTheOtherAddressAndPort, ()) {
  FrameSpec spec = *rc::gen::element(test::tcp_v4(), test::tcp_v6());
  spec.protocol = *rc::gen::element<std::uint8_t>(6, 17);
  spec.payload = *rc::gen::arbitrary<Bytes>();
  spec.padding = *rc::gen::inRange<std::size_t>(0, 9);
  const Side side = *rc::gen::element(Side::source, Side::destination);
  FrameSpec wanted = spec;
  (side == Side::source ? wanted.source : wanted.destination) = any_address(spec.is_v6);
  (side == Side::source ? wanted.source_port : wanted.destination_port) = *rc::gen::arbitrary<std::uint16_t>();
  const Bytes came = side == Side::source
                         ? translated(test::make_frame(spec), side, wanted.source, wanted.source_port)
                         : translated(test::make_frame(spec), side, wanted.destination, wanted.destination_port);
  Bytes want = test::make_frame(wanted);
  if (spec.protocol == 17) {  // a checksum of 0 is sent as 0xffff
    const std::size_t at = 14 + (spec.is_v6 ? 40U : 20U) + 6;
    if (want[at] == 0 && want[at + 1] == 0) want[at] = want[at + 1] = 0xff;
  }
  RC_ASSERT(came == want);
}

TEST(Translate, QuoteOfAnythingButAnErrorAboutTcpOrUdpIsNone) {
  FrameSpec spec = test::tcp_v4();
  spec.protocol = 1;
  Bytes quoted = test::make_ip(test::tcp_v4());
  for (const int type : {0, 3, 5, 8, 11, 12, 13}) {
    spec.payload = {static_cast<std::uint8_t>(type), 0, 0, 0, 0, 0, 0, 0};
    test::put(spec.payload, quoted);
    const Bytes frame = test::make_frame(spec);
    EXPECT_EQ(quoted_flow(frame.data(), parse_any(frame)).has_value(), type == 3 || type == 11 || type == 12) << int{type};
  }
}

// Every cut of an error is either no quote, or a quote with its ports; nothing behind the frame is touched.
TEST(Translate, QuoteMayEndAnywhere) {
  for (const bool is_v6 : {false, true}) {
    FrameSpec inner = is_v6 ? test::tcp_v6() : test::tcp_v4();
    FrameSpec spec = inner;
    spec.protocol = is_v6 ? 58 : 1;
    const Bytes quoted = test::make_ip(inner);
    for (std::size_t kept = 0; kept <= quoted.size(); ++kept) {
      spec.payload = {static_cast<std::uint8_t>(is_v6 ? 1 : 3), 0, 0, 0, 0, 0, 0, 0};
      spec.payload.insert(spec.payload.end(), quoted.begin(), quoted.begin() + static_cast<std::ptrdiff_t>(kept));
      test::ExactFrame frame(test::make_frame(spec));
      ParsedPacket packet;
      parse(frame.data(), frame.length(), false, packet);
      const auto flow = quoted_flow(frame.data(), packet);
      EXPECT_EQ(flow.has_value(), kept >= (is_v6 ? 48U : 28U)) << kept;
      if (!flow) continue;
      const abi::IpAddress other = is_v6 ? test::v6_address(99) : abi::IpAddress::v4(10, 9, 8, 7);
      translate_quote(frame.data(), packet, {Side::destination, Side::source, other, 8080, other});
      const auto changed = quoted_flow(frame.data(), packet);
      ASSERT_TRUE(changed.has_value());
      EXPECT_EQ(changed->destination, other);
      EXPECT_EQ(changed->destination_port, 8080);
      EXPECT_EQ(changed->source, flow->source);
    }
  }
}

}  // namespace
}  // namespace lb::net
