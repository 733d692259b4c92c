// Every test runs in a network namespace of its own: eth0 (10.0.0.1/24, fd00::1/64) ─ veth ─ eth0 of a neighbour namespace
// (10.0.0.2, fd00::2, MAC 02:00:00:00:00:02).
#include "cp/net/route_mirror.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <map>

namespace lb::cp {
namespace {

using namespace std::chrono_literals;

abi::IpAddress ip(std::string_view text) {
  return parse_address(text).value();
}

class RouteMirrorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    home_ = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    peer_ = "lbunit" + std::to_string(getpid());
    ASSERT_EQ(unshare(CLONE_NEWNET), 0) << "needs root";
    run("ip netns add " + peer_);
    run("ip link add eth0 address 02:00:00:00:00:01 type veth peer name eth0 address 02:00:00:00:00:02 netns " + peer_);
    run("ip link set lo up; ip link set eth0 mtu 1400 up; ip addr add 10.0.0.1/24 dev eth0; ip addr add fd00::1/64 dev eth0 "
        "nodad");
    run("ip -n " + peer_ + " link set eth0 up; ip -n " + peer_ + " addr add 10.0.0.2/24 dev eth0; ip -n " + peer_ +
        " addr add fd00::2/64 dev eth0 nodad");
    auto opened = RouteMirror::open();
    ASSERT_TRUE(opened) << opened.error();
    mirror_ = std::move(*opened);
  }
  void TearDown() override {
    mirror_.reset();
    run("ip netns del " + peer_);
    EXPECT_EQ(setns(home_, CLONE_NEWNET), 0);
    close(home_);
  }

  static void run(const std::string& command) { ASSERT_EQ(std::system(command.c_str()), 0) << command; }

  // Runs the mirror until `done` holds for the path of `address`.
  template <typename Done>
  Path wait(const abi::IpAddress& address, Done done) {
    const auto end = std::chrono::steady_clock::now() + 20s;
    while (std::chrono::steady_clock::now() < end) {
      while (mirror_->step()) {
      }
      for (auto& [changed, path] : mirror_->take_changes()) paths_[changed] = path;
      if (paths_.contains(address) && done(paths_[address])) return paths_[address];
      pollfd item{mirror_->fd(), POLLIN, 0};
      if (poll(&item, 1, 100) > 0) mirror_->on_readable();
      mirror_->tick(std::chrono::steady_clock::now());
    }
    ADD_FAILURE() << "no such path to " << format_address(address) << ", last: " << paths_[address].note;
    return paths_[address];
  }
  Path resolved(const abi::IpAddress& address) {
    return wait(address, [](const Path& path) { return path.next_hop.resolved; });
  }

  std::unique_ptr<RouteMirror> mirror_;
  std::map<abi::IpAddress, Path> paths_;
  std::string peer_;
  int home_ = -1;
};

constexpr abi::MacAddress kOurs{2, 0, 0, 0, 0, 1};
constexpr abi::MacAddress kPeer{2, 0, 0, 0, 0, 2};

TEST_F(RouteMirrorTest, OnLinkTargetsAreResolvedByTheKernelForBothFamilies) {
  for (const char* text : {"10.0.0.2", "fd00::2"}) {
    mirror_->want({ip(text)});
    const NextHop hop = resolved(ip(text)).next_hop;
    EXPECT_EQ(hop.interface, "eth0");
    EXPECT_EQ(hop.mac, kPeer);
    EXPECT_EQ(hop.source_mac, kOurs);
    EXPECT_EQ(hop.mtu_bytes, 1400U);
    EXPECT_EQ(hop.vlan, 0);
  }
  EXPECT_EQ(paths_[ip("10.0.0.2")].next_hop.source, ip("10.0.0.1"));
  EXPECT_EQ(paths_[ip("fd00::2")].next_hop.source, ip("fd00::1"));
}

TEST_F(RouteMirrorTest, NeighbourIsManagedByTheKernel) {
  mirror_->want({ip("10.0.0.2")});
  resolved(ip("10.0.0.2"));
  if (mirror_->managed()) run("ip neigh show 10.0.0.2 | grep -q managed");
  mirror_->want({});
  run("! ip neigh show 10.0.0.2 | grep -q managed");
}

TEST_F(RouteMirrorTest, RoutedTargetHasTheGatewaysMacAndFollowsTheRoute) {
  mirror_->want({ip("192.168.9.9")});
  EXPECT_EQ(wait(ip("192.168.9.9"), [](const Path& p) { return !p.note.empty(); }).note, "no route: Network is unreachable");
  run("ip route add 192.168.9.0/24 via 10.0.0.2 mtu 1300");
  const NextHop hop = resolved(ip("192.168.9.9")).next_hop;
  EXPECT_EQ(hop.mac, kPeer);
  EXPECT_EQ(hop.mtu_bytes, 1300U);
  run("ip route del 192.168.9.0/24");
  wait(ip("192.168.9.9"), [](const Path& path) { return !path.next_hop.resolved; });
}

TEST_F(RouteMirrorTest, ChangedMacIsMirroredAndFailureIsUnresolved) {
  mirror_->want({ip("10.0.0.2")});
  resolved(ip("10.0.0.2"));
  run("ip neigh replace 10.0.0.2 lladdr 02:00:00:00:00:77 dev eth0 nud reachable");
  wait(ip("10.0.0.2"), [](const Path& path) { return path.next_hop.mac == abi::MacAddress{2, 0, 0, 0, 0, 0x77}; });
  run("ip neigh replace 10.0.0.2 dev eth0 nud failed");
  const Path failed = wait(ip("10.0.0.2"), [](const Path& path) { return !path.next_hop.resolved; });
  EXPECT_EQ(failed.note, "neighbour 10.0.0.2 on eth0 is not resolved");
}

TEST_F(RouteMirrorTest, HostsOwnAddressIsLocal) {
  mirror_->want({ip("10.0.0.1"), ip("fd00::1")});
  EXPECT_TRUE(wait(ip("10.0.0.1"), [](const Path& path) { return path.local; }).local);
  EXPECT_TRUE(wait(ip("fd00::1"), [](const Path& path) { return path.local; }).local);
}

TEST_F(RouteMirrorTest, StaticNeighbourWinsAndNeedsNoRoute) {
  const abi::MacAddress fixed{2, 0, 0, 0, 0, 0x99};
  mirror_->set_static({{ip("10.0.0.2"), fixed, "eth0"}, {ip("172.16.0.1"), fixed, "eth0"}});
  mirror_->want({ip("10.0.0.2"), ip("172.16.0.1")});
  EXPECT_EQ(resolved(ip("10.0.0.2")).next_hop.mac, fixed);
  const NextHop hop = resolved(ip("172.16.0.1")).next_hop;
  EXPECT_EQ(hop.mac, fixed);
  EXPECT_EQ(hop.source_mac, kOurs);
  mirror_->set_static({});
  wait(ip("10.0.0.2"), [](const Path& path) { return path.next_hop.resolved && path.next_hop.mac == kPeer; });
}

TEST_F(RouteMirrorTest, WayByAnInterfaceThatIsNotAPortIsReported) {
  mirror_->want({ip("10.0.0.2")});
  resolved(ip("10.0.0.2"));
  mirror_->set_ports(std::vector<MirrorPort>{{.name = "eth7"}});
  const Path path = wait(ip("10.0.0.2"), [](const Path& p) { return !p.next_hop.resolved; });
  EXPECT_EQ(path.note, "goes by eth0, which is not a port of lb-dp");
  mirror_->set_ports(std::vector<MirrorPort>{{.name = "eth0"}});
  resolved(ip("10.0.0.2"));
}

TEST_F(RouteMirrorTest, InterfaceThatComesBackIsUsedAgain) {
  mirror_->want({ip("10.0.0.2")});
  resolved(ip("10.0.0.2"));
  run("ip link set eth0 down");
  wait(ip("10.0.0.2"), [](const Path& path) { return !path.next_hop.resolved; });
  run("ip link set eth0 up");
  resolved(ip("10.0.0.2"));
}

TEST_F(RouteMirrorTest, AllRoutesAreMirroredWithGatewaysAndTheHostsOfConnectedNetworks) {
  run("ip route add 203.0.113.0/24 via 10.0.0.2; ip route add blackhole 198.51.100.0/24; ip route add default via "
      "10.0.0.77");
  EXPECT_EQ(mirror_->take_routes(), std::nullopt);
  mirror_->want_routes(true);
  std::map<std::string, Route> routes;
  const auto wait_for = [&](auto done) {
    const auto end = std::chrono::steady_clock::now() + 20s;
    while (std::chrono::steady_clock::now() < end) {
      while (mirror_->step()) {
      }
      if (auto now = mirror_->take_routes()) {
        routes.clear();
        for (const Route& route : *now) routes[format_prefix(route.prefix)] = route;
      }
      if (done()) return;
      pollfd item{mirror_->fd(), POLLIN, 0};
      if (poll(&item, 1, 100) > 0) mirror_->on_readable();
      mirror_->tick(std::chrono::steady_clock::now());
    }
    ADD_FAILURE() << "waited in vain";
  };
  wait_for([&] { return routes["203.0.113.0/24"].next_hop.resolved; });
  EXPECT_EQ(routes["203.0.113.0/24"].next_hop.mac, kPeer);
  EXPECT_EQ(routes["203.0.113.0/24"].next_hop.mtu_bytes, 1400U);
  EXPECT_EQ(routes["10.0.0.2"].next_hop.mac, kPeer);  // a host of a connected network
  EXPECT_FALSE(routes["10.0.0.0/24"].next_hop.resolved);
  EXPECT_TRUE(routes["10.0.0.1"].local);
  EXPECT_TRUE(routes["10.0.0.255"].local);
  EXPECT_FALSE(routes["198.51.100.0/24"].next_hop.resolved);
  EXPECT_FALSE(routes["0.0.0.0/0"].next_hop.resolved);  // nobody answers for its gateway
  run("ip route del 203.0.113.0/24");
  wait_for([&] { return !routes.contains("203.0.113.0/24"); });
  mirror_->want_routes(false);
  EXPECT_EQ(mirror_->take_routes(), std::vector<Route>{});
}

}  // namespace
}  // namespace lb::cp
