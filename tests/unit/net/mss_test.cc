#include "dp/net/mss.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "dp/base/endian.h"
#include "dp/net/checksum.h"
#include "tests/unit/net/generators.h"

namespace lb::net {
namespace {

using test::Bytes;

// An IPv4 or IPv6 SYN with these option bytes (a multiple of four), its checksum right.
struct Syn {
  Bytes frame;
  ParsedPacket packet;
};

Syn make_syn(bool is_v6, const Bytes& options) {
  const std::uint32_t ip_bytes = is_v6 ? kIpv6Bytes : kIpv4Bytes;
  const auto tcp_bytes = static_cast<std::uint32_t>(kTcpBytes + options.size());
  Syn syn{Bytes(kEthernetBytes + ip_bytes + tcp_bytes), {}};
  std::uint8_t* ip = syn.frame.data() + kEthernetBytes;
  std::uint8_t* tcp = ip + ip_bytes;
  store_be16(ip - 2, is_v6 ? kEtherTypeIpv6 : kEtherTypeIpv4);
  if (is_v6) {
    store_be32(ip, 0x60000000);
    store_be32(ip + kIpv6PayloadLengthAt, tcp_bytes << 16 | 6U << 8 | 64);
    ip[kIpv6SourceAt] = ip[kIpv6DestinationAt] = 0x20;
    ip[kIpv6SourceAt + 15] = 1;
  } else {
    store_be32(ip, 0x45000000 | (ip_bytes + tcp_bytes));
    store_be32(ip + kIpv4TtlAt, 64U << 24 | 6U << 16);
    store_be32(ip + kIpv4SourceAt, 0x0a000001);
    store_be32(ip + kIpv4DestinationAt, 0x0a000002);
    store(ip + kIpv4ChecksumAt, checksum_finish(ipv4_header_sum(ip)));
  }
  tcp[kTcpDataOffsetAt] = static_cast<std::uint8_t>(tcp_bytes / 4 << 4);
  tcp[kTcpFlagsAt] = kTcpSyn;
  std::copy(options.begin(), options.end(), tcp + kTcpBytes);
  EXPECT_EQ(parse(syn.frame.data(), static_cast<std::uint32_t>(syn.frame.size()), true, syn.packet).result, ParseResult::ok);
  const std::uint64_t pseudo = pseudo_header_sum(syn.packet.key.source, syn.packet.key.destination, is_v6, 6, tcp_bytes);
  store(tcp + kTcpChecksumAt, checksum_finish(checksum_sum(tcp, tcp_bytes, pseudo)));
  return syn;
}

bool is_intact(const Syn& syn) {
  const auto tcp_bytes = static_cast<std::uint32_t>(syn.frame.size() - syn.packet.l4_offset);
  const net::FlowKey& key = syn.packet.key;
  const std::uint64_t pseudo = pseudo_header_sum(key.source, key.destination, key.is_v6 != 0, 6, tcp_bytes);
  return checksum_fold(checksum_sum(syn.frame.data() + syn.packet.l4_offset, tcp_bytes, pseudo)) == 0xffff;
}

RC_GTEST_PROP(Mss, IsLoweredWhereverItStandsAndTheChecksumStaysRight, ()) {
  const bool is_v6 = *rc::gen::arbitrary<bool>();
  const auto before = *rc::gen::inRange<std::size_t>(0, 5);  // at odd offsets as well
  const auto announced = *rc::gen::arbitrary<std::uint16_t>();
  const auto most = *rc::gen::inRange<std::uint16_t>(1, 9000);
  Bytes options(before, 1);
  options.insert(options.end(), {2, 4, static_cast<std::uint8_t>(announced >> 8), static_cast<std::uint8_t>(announced)});
  options.insert(options.end(), {4, 2});
  options.resize((options.size() + 3) / 4 * 4, 0);
  Syn syn = make_syn(is_v6, options);
  RC_ASSERT(clamp_mss(syn.frame.data(), syn.packet, most) == (announced > most));
  const std::size_t at = syn.packet.l4_offset + kTcpBytes + before + 2;
  RC_ASSERT(load_be16(syn.frame.data() + at) == std::min(announced, most));
  RC_ASSERT(is_intact(syn));
}

RC_GTEST_PROP(Mss, WhateverTheOptionsAreNothingButAnAnnouncementChanges, ()) {
  Bytes options = *rc::gen::container<Bytes>(rc::gen::element<std::uint8_t>(0, 1, 2, 3, 4, 8, 255));
  options.resize(std::min<std::size_t>(options.size(), 40) / 4 * 4);
  const Syn before = make_syn(*rc::gen::arbitrary<bool>(), options);
  Syn syn = before;
  test::ExactFrame exact(syn.frame);
  const bool lowered = clamp_mss(exact.data(), syn.packet, 1);
  syn.frame.assign(exact.data(), exact.data() + exact.length());
  RC_ASSERT(lowered == (syn.frame != before.frame));
  RC_ASSERT(is_intact(syn));
}

TEST(Mss, IsWhatTheMtuLeavesWithoutHeaders) {
  EXPECT_EQ(mss_for(1500, false), 1460);
  EXPECT_EQ(mss_for(1500, true), 1440);
  EXPECT_EQ(mss_for(40, false), 1);
  EXPECT_EQ(mss_for(0x20000, false), 0xffff);
}

}  // namespace
}  // namespace lb::net
