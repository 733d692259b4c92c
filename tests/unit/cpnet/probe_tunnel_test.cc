// In a network namespace of its own, with eth0 of its own.
#include "cp/net/probe_tunnel.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdlib>

namespace lb::cp {
namespace {

class ProbeTunnelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    home_ = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    ASSERT_EQ(unshare(CLONE_NEWNET), 0) << "needs root";
    run("ip link add eth0 type veth peer name far && ip link set eth0 up && ip link set far up");
  }
  void TearDown() override {
    EXPECT_EQ(setns(home_, CLONE_NEWNET), 0);
    close(home_);
  }

  static void run(const std::string& command) { ASSERT_EQ(std::system(command.c_str()), 0) << command; }

  // The address by which a probe of an IPv6 VIP on an IPv4 target asks; empty: it is refused.
  static std::string asked_from() {
    auto tunnel = ProbeTunnel::open();
    if (!tunnel) throw std::runtime_error(tunnel.error().text);
    const int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const NextHop hop{.resolved = true, .interface = "eth0", .source = parse_address("10.0.0.1").value()};
    const auto ready =
        (*tunnel)->prepare(fd, 1, {.vip = parse_address("2001:db8::80").value()}, parse_address("10.0.0.2").value(), hop);
    sockaddr_in6 own{};
    socklen_t size = sizeof own;
    std::array<char, INET6_ADDRSTRLEN> text{};
    if (ready && getsockname(fd, reinterpret_cast<sockaddr*>(&own), &size) == 0)
      inet_ntop(AF_INET6, &own.sin6_addr, text.data(), text.size());
    close(fd);
    return text.data();
  }

  int home_ = -1;
};

TEST_F(ProbeTunnelTest, AsksFromAnAddressThatIsTheHostsToUse) {
  EXPECT_EQ(asked_from(), "") << "a link-local address is none";
  run("ip addr add fd00::1/64 dev eth0 nodad");
  run("ip addr add fd00::200/128 dev eth0 nodad preferred_lft 0");  // as SNAT addresses are: their packets go to the workers
  EXPECT_EQ(asked_from(), "fd00::1");
}

}  // namespace
}  // namespace lb::cp
