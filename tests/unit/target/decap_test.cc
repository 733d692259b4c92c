// Runs the programs in the kernel on single packets (BPF_PROG_TEST_RUN); needs root, like the rest of the tier.
#include "bpf/decap.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <gtest/gtest.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <map>
#include <memory>
#include <vector>

#include "bpf/decap.skel.h"
#include "tests/unit/net/frames.h"

namespace lb::target {
namespace {

using abi::IpAddress;
using net::test::Bytes;
using net::test::FrameSpec;

const IpAddress kTunnel4 = IpAddress::v4(10, 100, 0, 7);
const IpAddress kTunnel6 = net::test::v6_address(0xaa);
const IpAddress kHost4 = IpAddress::v4(10, 77, 2, 2);
const IpAddress kHost6 = net::test::v6_address(0xbb);
constexpr std::uint16_t kGuePort = abi::kGuePort;

struct Outcome {
  std::uint32_t verdict = 0;
  Bytes frame;
};

// Parameter: whether the classifier is tested, else XDP.
class Decap : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    skeleton_.reset(decap_bpf::open_and_load());
    ASSERT_NE(skeleton_, nullptr) << "needs root";
    const std::uint8_t present = 1;
    for (const auto& address : {kHost4, kHost6}) {
      ASSERT_EQ(bpf_map_update_elem(bpf_map__fd(skeleton_->maps.addresses), &address, &present, BPF_ANY), 0);
    }
    const std::uint16_t port = kGuePort;
    ASSERT_EQ(bpf_map_update_elem(bpf_map__fd(skeleton_->maps.gue_ports), &port, &present, BPF_ANY), 0);
  }

  [[nodiscard]] static bool is_tc() { return GetParam(); }
  [[nodiscard]] static std::uint32_t pass() { return is_tc() ? std::uint32_t{TC_ACT_OK} : std::uint32_t{XDP_PASS}; }
  [[nodiscard]] static std::uint32_t drop() { return is_tc() ? std::uint32_t{TC_ACT_SHOT} : std::uint32_t{XDP_DROP}; }

  Outcome run(const Bytes& frame) {
    const int program = bpf_program__fd(is_tc() ? skeleton_->progs.decap_tc : skeleton_->progs.decap_xdp);
    Outcome outcome;
    outcome.frame.resize(4096);
    LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame.data(), .data_out = outcome.frame.data(),
                .data_size_in = static_cast<__u32>(frame.size()), .data_size_out = static_cast<__u32>(outcome.frame.size()));
    EXPECT_EQ(bpf_prog_test_run_opts(program, &options), 0);
    outcome.verdict = options.retval;
    outcome.frame.resize(options.data_size_out);
    return outcome;
  }

  // What has been counted since the last call, as counter → packets.
  std::map<int, std::uint64_t> counted() {
    std::vector<std::uint64_t> per_cpu(static_cast<std::size_t>(libbpf_num_possible_cpus()));
    const std::vector<std::uint64_t> zeros(per_cpu.size());
    std::map<int, std::uint64_t> counted;
    for (int i = 0; i < DECAP_COUNTERS; ++i) {
      EXPECT_EQ(bpf_map_lookup_elem(bpf_map__fd(skeleton_->maps.counters), &i, per_cpu.data()), 0);
      for (const auto packets : per_cpu) {
        if (packets != 0) counted[i] += packets;
      }
      bpf_map_update_elem(bpf_map__fd(skeleton_->maps.counters), &i, zeros.data(), BPF_ANY);
    }
    return counted;
  }

  void expect_dropped(const Bytes& frame, decap_counter counter) {
    EXPECT_EQ(run(frame).verdict, drop());
    EXPECT_EQ(counted(), (std::map<int, std::uint64_t>{{counter, 1}}));
  }

  void expect_untouched(const Bytes& frame) {
    const Outcome outcome = run(frame);
    EXPECT_EQ(outcome.verdict, pass());
    EXPECT_EQ(outcome.frame, frame);
    EXPECT_TRUE(counted().empty());
  }

  struct Destroy {
    void operator()(decap_bpf* skeleton) const { decap_bpf::destroy(skeleton); }
  };
  std::unique_ptr<decap_bpf, Destroy> skeleton_;
};

FrameSpec inner(bool is_v6, std::uint8_t traffic_class = 0) {
  FrameSpec spec = is_v6 ? net::test::tcp_v6() : net::test::tcp_v4();
  spec.traffic_class = traffic_class;
  spec.payload = Bytes(100, 0x5a);
  return spec;
}

FrameSpec outer(bool is_v6, const FrameSpec& packet, std::uint8_t traffic_class = 0) {
  FrameSpec spec;
  spec.is_v6 = is_v6;
  spec.source = is_v6 ? kTunnel6 : kTunnel4;
  spec.destination = is_v6 ? kHost6 : kHost4;
  spec.traffic_class = traffic_class;
  spec.protocol = packet.is_v6 ? 41 : 4;
  spec.payload = net::test::make_ip(packet);
  return spec;
}

TEST_P(Decap, TakesEveryFamilyOutOfEveryFamily) {
  for (const bool outer_v6 : {false, true}) {
    for (const bool inner_v6 : {false, true}) {
      const FrameSpec packet = inner(inner_v6);
      const Outcome outcome = run(net::test::make_frame(outer(outer_v6, packet)));
      EXPECT_EQ(outcome.verdict, pass());
      EXPECT_EQ(outcome.frame, net::test::make_frame(packet)) << "EtherType included";
      EXPECT_EQ(counted(), (std::map<int, std::uint64_t>{{(outer_v6 ? 2 : 0) + (inner_v6 ? 1 : 0), 1}}));
    }
  }
}

enum class Kind { gue, gue1, gre, gre_key };  // gue1: variant 1
constexpr Kind kKinds[] = {Kind::gue, Kind::gue1, Kind::gre, Kind::gre_key};

FrameSpec tunnel(Kind kind, bool outer_v6, const FrameSpec& packet, std::uint8_t traffic_class = 0) {
  FrameSpec spec = outer(outer_v6, packet, traffic_class);
  Bytes header;
  if (kind == Kind::gue) net::test::put32(header, std::uint32_t{spec.protocol} << 16);
  if (kind == Kind::gre) net::test::put32(header, packet.is_v6 ? 0x86dd : 0x0800);
  if (kind == Kind::gre_key) {
    net::test::put32(header, 0x20000000U | (packet.is_v6 ? 0x86ddU : 0x0800U));
    net::test::put32(header, 0xdeadbeef);
  }
  const bool gue = kind == Kind::gue || kind == Kind::gue1;
  spec.protocol = gue ? 17 : 47;
  spec.destination_port = kGuePort;
  spec.payload.insert(spec.payload.begin(), header.begin(), header.end());
  return spec;
}

TEST_P(Decap, TakesEveryFamilyOutOfGueAndGreOfEveryFamily) {
  for (const Kind kind : kKinds) {
    const int first = kind == Kind::gue || kind == Kind::gue1 ? DECAP_GUE_IPV4_IN_IPV4 : DECAP_GRE_IPV4_IN_IPV4;
    for (const bool outer_v6 : {false, true}) {
      for (const bool inner_v6 : {false, true}) {
        const FrameSpec packet = inner(inner_v6, 0xb8 | 2);
        FrameSpec marked = packet;
        marked.traffic_class = 0xb8 | 3;
        const Outcome outcome = run(net::test::make_frame(tunnel(kind, outer_v6, packet, 3)));
        EXPECT_EQ(outcome.verdict, pass());
        EXPECT_EQ(outcome.frame, net::test::make_frame(marked)) << "the congestion mark of the outer header included";
        EXPECT_EQ(counted(), (std::map<int, std::uint64_t>{{first + (outer_v6 ? 2 : 0) + (inner_v6 ? 1 : 0), 1}}));
      }
    }
  }
}

TEST_P(Decap, OtherUdpAndGreIsTheHosts) {
  FrameSpec udp = tunnel(Kind::gue, false, inner(false));
  udp.destination_port = kGuePort + 1;
  expect_untouched(net::test::make_frame(udp));
  for (const bool outer_v6 : {false, true}) {
    const std::size_t gre_at = 14 + (outer_v6 ? 40 : 20);
    Bytes frame = net::test::make_frame(tunnel(Kind::gre, outer_v6, inner(false)));
    frame[gre_at] = 0x80;  // with a checksum
    expect_untouched(frame);
    frame[gre_at] = 0;
    frame[gre_at + 1] = 1;  // PPTP
    expect_untouched(frame);
    frame[gre_at + 1] = 0;
    frame[gre_at + 2] = 0x65;  // Ethernet inside
    frame[gre_at + 3] = 0x58;
    expect_untouched(frame);
  }
  Bytes later = net::test::make_frame(tunnel(Kind::gue, false, inner(false)));
  later[21] = 1;  // a later fragment: nobody can tell what of
  expect_untouched(later);
}

TEST_P(Decap, WrongGueHeadersAreDroppedByName) {
  for (const bool outer_v6 : {false, true}) {
    const std::size_t udp_at = 14 + (outer_v6 ? 40 : 20);
    const Bytes frame = net::test::make_frame(tunnel(Kind::gue, outer_v6, inner(false)));
    const std::pair<std::size_t, int> wrong[] = {{4, 9},  {5, 11},    {8, 0x20}, {8, 0x01}, {8, 0x80},
                                                 {9, 47}, {10, 0x80}, {11, 1},   {9, 41}};
    for (const auto& [at, value] : wrong) {
      Bytes changed = frame;
      changed[udp_at + at] = static_cast<std::uint8_t>(value);
      if (at == 5) changed[udp_at + 4] = 0;  // UDP length 11: no whole header
      expect_dropped(changed, DECAP_MALFORMED);
    }
    Bytes first_fragment = frame;
    if (outer_v6) continue;
    first_fragment[20] = 0x20;
    expect_dropped(first_fragment, DECAP_FRAGMENT);
  }
}

TEST_P(Decap, GueAndGreCutAnywhereNeverComeOutOfTheirTunnel) {
  for (const Kind kind : kKinds) {
    for (const bool is_v6 : {false, true}) {
      const Bytes frame = net::test::make_frame(tunnel(kind, is_v6, inner(is_v6)));
      for (std::size_t n = 14U + (is_v6 ? 40U : 20U); n < frame.size(); ++n) {
        const Outcome outcome = run(Bytes(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(n)));
        if (outcome.verdict == drop()) continue;
        EXPECT_EQ(outcome.frame.size(), n) << "too short to be a tunnel packet, so untouched";
      }
    }
  }
}

TEST_P(Decap, VlanTagsStay) {
  if (is_tc()) return;  // the kernel takes tags off before a classifier sees the frame
  for (const Bytes& tags : {Bytes{0, 9}, Bytes{0, 9, 0x60, 10}}) {
    FrameSpec packet = inner(true);
    FrameSpec tunnel = outer(false, packet);
    packet.tags = tunnel.tags = tags;
    EXPECT_EQ(run(net::test::make_frame(tunnel)).frame, net::test::make_frame(packet));
  }
}

TEST_P(Decap, EcnIsMergedAsRfc6040Says) {
  constexpr int kDropped = -1;
  // By outer, then inner ECN: not capable, ECT(1), ECT(0), CE.
  constexpr int kExpected[4][4] = {{0, 1, 2, 3}, {0, 1, 1, 3}, {0, 1, 2, 3}, {kDropped, 3, 3, 3}};
  for (const bool outer_v6 : {false, true}) {
    for (const bool inner_v6 : {false, true}) {
      for (std::uint8_t out = 0; out < 4; ++out) {
        for (std::uint8_t in = 0; in < 4; ++in) {
          const auto with_dscp = [](int ecn) { return static_cast<std::uint8_t>(0xb8 | ecn); };
          const Bytes frame = net::test::make_frame(outer(outer_v6, inner(inner_v6, with_dscp(in)), out));
          const int expected = kExpected[out][in];
          counted();
          if (expected == kDropped) {
            expect_dropped(frame, DECAP_CONGESTION);
            continue;
          }
          EXPECT_EQ(run(frame).frame, net::test::make_frame(inner(inner_v6, with_dscp(expected))))
              << int{out} << " " << int{in};
        }
      }
    }
  }
}

TEST_P(Decap, PacketsThatAreNotForATunnelEndHerePass) {
  expect_untouched(net::test::make_frame(inner(false)));
  expect_untouched(net::test::make_frame(inner(true)));
  FrameSpec elsewhere = outer(false, inner(false));
  elsewhere.destination = IpAddress::v4(10, 77, 2, 3);
  expect_untouched(net::test::make_frame(elsewhere));
  elsewhere = outer(true, inner(true));
  elsewhere.destination = net::test::v6_address(0xbc);
  expect_untouched(net::test::make_frame(elsewhere));
  FrameSpec other = outer(false, inner(false));
  other.protocol = 47;
  expect_untouched(net::test::make_frame(other));
  Bytes arp = net::test::from_hex("ffffffffffff 0200000000c1 0806");
  arp.resize(60);
  expect_untouched(arp);
}

TEST_P(Decap, FragmentsOfTunnelPacketsAreDroppedByName) {
  Bytes frame = net::test::make_frame(outer(false, inner(false)));
  frame[20] = 0x20;
  expect_dropped(frame, DECAP_FRAGMENT);
  frame[20] = 0;
  frame[21] = 1;
  expect_dropped(frame, DECAP_FRAGMENT);
}

TEST_P(Decap, MalformedTunnelPacketsAreDroppedByName) {
  const auto changed = [](bool outer_v6, bool inner_v6, std::size_t at, int value) {
    Bytes frame = net::test::make_frame(outer(outer_v6, inner(inner_v6)));
    frame[at] = static_cast<std::uint8_t>(value);
    return frame;
  };
  expect_dropped(changed(false, false, 24, 0), DECAP_MALFORMED);     // outer checksum
  expect_dropped(changed(false, false, 34, 0x65), DECAP_MALFORMED);  // IPv6 where protocol 4 says IPv4
  expect_dropped(changed(false, false, 34, 0x44), DECAP_MALFORMED);  // inner header of 16 bytes
  expect_dropped(changed(false, false, 37, 19), DECAP_MALFORMED);    // inner packet shorter than its header
  expect_dropped(changed(false, false, 36, 9), DECAP_MALFORMED);     // inner packet longer than the outer one's payload
  expect_dropped(changed(true, true, 18, 9), DECAP_MALFORMED);       // outer packet longer than the frame
  expect_dropped(changed(true, true, 54, 0x45), DECAP_MALFORMED);    // IPv4 where protocol 41 says IPv6
  expect_dropped(changed(true, true, 58, 9), DECAP_MALFORMED);       // inner packet longer than the outer one's payload
  FrameSpec with_options = outer(false, inner(false));
  with_options.options = {1, 1, 1, 0};
  expect_dropped(net::test::make_frame(with_options), DECAP_MALFORMED);
}

TEST_P(Decap, APacketCutAnywhereNeverComesOutOfItsTunnel) {
  for (const bool is_v6 : {false, true}) {
    const Bytes frame = net::test::make_frame(outer(is_v6, inner(is_v6)));
    const std::size_t shortest = is_tc() ? 14U + (is_v6 ? 40U : 20U) : 14U;  // the kernel makes no skb of less
    for (std::size_t n = shortest; n < frame.size(); ++n) {
      const Outcome outcome = run(Bytes(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(n)));
      if (outcome.verdict == drop()) continue;
      EXPECT_EQ(outcome.frame.size(), n) << "too short to be a tunnel packet, so untouched";
    }
    counted();
  }
}

INSTANTIATE_TEST_SUITE_P(Programs, Decap, testing::Bool(), [](const auto& param) { return param.param ? "tc" : "xdp"; });

}  // namespace
}  // namespace lb::target
