#include "target/check.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

namespace lb::target {
namespace {

using abi::ForwardingMode;
using abi::IpAddress;

const IpAddress kVip4 = IpAddress::v4(192, 0, 2, 10);
const IpAddress kVip6{{0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10}};
const IpAddress kOwn6{{0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02}};
const std::array kVips{kVip4, kVip6};

// A host with nothing to mend.
HostFacts good_host() {
  HostFacts host;
  host.interface = "eth0";
  host.mtu_bytes = 1600;
  host.decap_attached = true;
  host.ipv4_interface = {.arp_ignore = 1, .arp_announce = 2, .rp_filter = 0};
  host.addresses = {{IpAddress::v4(10, 0, 0, 2), "eth0"}, {kOwn6, "eth0"}, {kVip4, "lo"}, {kVip6, "lo"}};
  return host;
}

std::vector<std::string> commands(const HostFacts& host, ForwardingMode mode = ForwardingMode::ipip) {
  std::vector<std::string> commands;
  for (const Finding& finding : check(host, kVips, mode, 1500)) {
    EXPECT_EQ(finding.ok, finding.command.empty()) << finding.what;
    if (!finding.ok) commands.push_back(finding.command);
  }
  return commands;
}

using Commands = std::vector<std::string>;

TEST(Check, AGoodHostLacksNothing) {
  EXPECT_EQ(commands(good_host()), Commands{});
}

TEST(Check, AVipThatIsNowhereIsAddedToLo) {
  HostFacts host = good_host();
  host.addresses.resize(2);
  EXPECT_EQ(commands(host), (Commands{"ip addr add 192.0.2.10/32 dev lo", "ip addr add 2001:db8::10/128 dev lo nodad"}));
}

TEST(Check, AVipOnTheLinkIsMovedToLo) {
  HostFacts host = good_host();
  host.addresses[2].interface = "eth0";
  EXPECT_EQ(commands(host), Commands{"ip addr add 192.0.2.10/32 dev lo && ip addr del 192.0.2.10/32 dev eth0"});
}

TEST(Check, AnIpv6VipThatFailedDuplicateDetectionIsAddedAgain) {
  HostFacts host = good_host();
  host.addresses[3].usable = false;
  EXPECT_EQ(commands(host), Commands{"ip addr del 2001:db8::10/128 dev lo && ip addr add 2001:db8::10/128 dev lo nodad"});
}

TEST(Check, ArpAndReversePathSettingsCountAsTheKernelCountsThem) {
  HostFacts host = good_host();
  host.ipv4_interface = {};
  EXPECT_EQ(commands(host),
            (Commands{"sysctl -w net.ipv4.conf.eth0.arp_ignore=1", "sysctl -w net.ipv4.conf.eth0.arp_announce=2"}));
  host.ipv4_all = {.arp_ignore = 1, .arp_announce = 2, .rp_filter = 1};  // the larger of all and eth0
  EXPECT_EQ(commands(host), Commands{"sysctl -w net.ipv4.conf.all.rp_filter=0; sysctl -w net.ipv4.conf.eth0.rp_filter=0"});
  host.ipv4_interface.rp_filter = 2;  // loose
  EXPECT_EQ(commands(host), Commands{});
}

TEST(Check, Ipv6MustBeOnWhereTheVipAndItsPacketsAre) {
  HostFacts host = good_host();
  host.ipv6_off_lo = host.ipv6_off_interface = true;
  EXPECT_EQ(commands(host),
            (Commands{"sysctl -w net.ipv6.conf.lo.disable_ipv6=0", "sysctl -w net.ipv6.conf.eth0.disable_ipv6=0"}));
}

TEST(Check, TheMtuHoldsAFullPacketAndTheOuterHeader) {
  HostFacts host = good_host();
  host.mtu_bytes = 1539;
  EXPECT_EQ(commands(host), Commands{"ip link set dev eth0 mtu 1540"});
  host.addresses.erase(host.addresses.begin() + 1);  // no IPv6 address: tunnels are IPv4
  EXPECT_EQ(commands(host), Commands{});
  host.mtu_bytes = 1500;
  EXPECT_EQ(commands(host), Commands{"ip link set dev eth0 mtu 1520"});
}

TEST(Check, TunnelsNeedTheProgramAndL2dsrNeedsNone) {
  HostFacts host = good_host();
  host.decap_attached = false;
  host.mtu_bytes = 1500;
  EXPECT_EQ(commands(host), (Commands{"ip link set dev eth0 mtu 1540", "lb-target attach eth0"}));
  EXPECT_EQ(commands(host, ForwardingMode::l2dsr), Commands{});
}

TEST(Check, GueAndGreNeedRoomForTheirHeaders) {
  HostFacts host = good_host();
  host.mtu_bytes = 1500;
  EXPECT_EQ(commands(host, ForwardingMode::gue), Commands{"ip link set dev eth0 mtu 1552"});
  EXPECT_EQ(commands(host, ForwardingMode::gre), Commands{"ip link set dev eth0 mtu 1548"});
}

TEST(Check, AVethComputesItsChecksums) {
  HostFacts host = good_host();
  host.tx_checksum = true;
  EXPECT_EQ(commands(host), Commands{});
  host.is_veth = true;
  EXPECT_EQ(commands(host), Commands{"ethtool -K eth0 tx off"});
}

TEST(Check, OnlyTheFamiliesOfTheVipsAreLookedAt) {
  HostFacts host = good_host();
  host.ipv4_interface = {};
  const std::array only_v6{kVip6};
  for (const Finding& finding : check(host, only_v6, ForwardingMode::ipip, 1500)) EXPECT_TRUE(finding.ok) << finding.what;
}

}  // namespace
}  // namespace lb::target
