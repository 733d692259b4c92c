// Attaches to real interfaces, in a network namespace that ends with the process made for it; needs root.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <gtest/gtest.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <string>

#include "target/decap.h"
#include "target/fd.h"
#include "tests/unit/net/frames.h"

namespace lb::target {
namespace {

using abi::IpAddress;

const IpAddress kHost = IpAddress::v4(10, 77, 2, 2);

// Runs `body` in a network namespace with a veth pair lb0, t0; t0 has address kHost. Returns the body's complaint.
std::string in_network(const std::function<std::string()>& body) {
  int ends[2];
  if (pipe(ends) != 0) return "pipe";
  const Fd reader(ends[0]);
  Fd writer(ends[1]);
  const pid_t child = fork();
  if (child == 0) {
    std::string complaint = "no namespace: needs root and ip";
    if (unshare(CLONE_NEWNET) == 0 && std::system("ip link add lb0 type veth peer name t0 && ip link set t0 addrgenmode "
                                                  "none && ip link set lb0 up && ip link set t0 up && "
                                                  "ip addr add 10.77.2.2/24 dev t0 && ip link set lo up") == 0) {
      complaint = body();
    }
    const ssize_t written = write(writer.get(), complaint.data(), complaint.size());
    _exit(written == static_cast<ssize_t>(complaint.size()) ? 0 : 1);
  }
  writer = Fd();
  std::string complaint;
  char buffer[512];
  for (ssize_t n = 0; (n = read(reader.get(), buffer, sizeof buffer)) > 0;)
    complaint.append(buffer, static_cast<std::size_t>(n));
  int exit_status = 0;
  waitpid(child, &exit_status, 0);
  return exit_status == 0 ? complaint : complaint + " (the process failed)";
}

// A 4in4 packet for kHost, sent into t0 by its other end.
bool send_tunnel_packet() {
  net::test::FrameSpec tunnel = net::test::tcp_v4();
  tunnel.payload = net::test::make_ip(net::test::tcp_v4());
  tunnel.protocol = 4;
  tunnel.destination = kHost;
  net::test::Bytes frame = net::test::make_frame(tunnel);
  const Fd socket_fd(socket(AF_PACKET, SOCK_RAW, 0));
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_ifindex = static_cast<int>(if_nametoindex("lb0"));
  return sendto(socket_fd.get(), frame.data(), frame.size(), 0, reinterpret_cast<const sockaddr*>(&to), sizeof to) ==
         static_cast<ssize_t>(frame.size());
}

// Waits for the packet, which the kernel may deliver a moment after it was sent.
bool is_counted() {
  for (int i = 0; i < 5000; ++i) {
    const auto now = status("t0");
    if (now && now->has_value() && (**now).counters[DECAP_IPV4_IN_IPV4] == 1) return true;
    usleep(1000);
  }
  return false;
}

TEST(Attach, EveryModeDecapsulatesUntilDetached) {
  for (const Mode mode : {Mode::native, Mode::generic, Mode::tc}) {
    EXPECT_EQ(in_network([mode]() -> std::string {
                const auto first = attach("t0", mode, {});
                if (!first) return first.error();
                if (first->mode != mode || first->was_attached) return "not attached afresh";
                if (!send_tunnel_packet() || !is_counted()) return "the packet was not counted";
                if (detach("t0") != true) return "not detached";
                if (const auto after = status("t0"); !after || after->has_value()) return "still there";
                if (detach("t0") != false) return "detached twice";
                return "";
              }),
              "")
        << to_string(mode);
  }
}

TEST(Attach, RepeatedKeepsProgramAndCountersAndRenewsAddresses) {
  EXPECT_EQ(in_network([]() -> std::string {
              const auto first = attach("t0", std::nullopt, {});
              if (!first || first->mode != Mode::native) return "not attached in the driver";
              if (!send_tunnel_packet() || !is_counted()) return "the packet was not counted";
              const std::vector<IpAddress> wanted{IpAddress::v4(10, 9, 9, 9), net::test::v6_address(9)};
              const auto second = attach("t0", std::nullopt, wanted);
              if (!second || !second->was_attached) return "attached again";
              const auto now = status("t0");
              if (!now || !now->has_value() || (**now).counters[DECAP_IPV4_IN_IPV4] != 1) return "counters lost";
              return (**now).addresses == wanted ? "" : "wrong addresses";
            }),
            "");
}

TEST(Attach, RepeatedRenewsGuePorts) {
  EXPECT_EQ(in_network([]() -> std::string {
              if (!attach("t0", std::nullopt, {})) return "not attached";
              auto now = status("t0");
              if (!now || !now->has_value() || (**now).gue_ports != std::vector<std::uint16_t>{6080}) return "default";
              const auto second = attach("t0", std::nullopt, {}, {9886, 5555});
              if (!second || !second->was_attached) return "attached again";
              now = status("t0");
              if (!now || !now->has_value()) return "no status";
              return (**now).gue_ports == std::vector<std::uint16_t>{5555, 9886} ? "" : "wrong ports";
            }),
            "");
}

TEST(Attach, AnotherModeReplacesTheFirst) {
  EXPECT_EQ(in_network([]() -> std::string {
              for (const Mode mode : {Mode::native, Mode::tc, Mode::generic, Mode::native}) {
                const auto result = attach("t0", mode, {});
                if (!result) return result.error();
                const auto now = status("t0");
                if (!now || !now->has_value() || (**now).mode != mode) return "not in the mode asked for";
              }
              return "";
            }),
            "");
}

TEST(Attach, AProgramOfOthersIsLeftAloneAndTheClassifierTaken) {
  EXPECT_EQ(in_network([]() -> std::string {
              const bpf_insn pass[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = XDP_PASS},
                                       {.code = BPF_JMP | BPF_EXIT}};
              const Fd program(bpf_prog_load(BPF_PROG_TYPE_XDP, "others", "GPL", pass, 2, nullptr));
              const int ifindex = static_cast<int>(if_nametoindex("t0"));
              if (bpf_xdp_attach(ifindex, program.get(), XDP_FLAGS_DRV_MODE, nullptr) != 0) return "set-up";
              const auto refused = attach("t0", Mode::native, {});
              if (refused || refused.error() != "t0: native: another XDP program is attached") return "not refused by name";
              const auto any = attach("t0", std::nullopt, {});
              if (!any || any->mode != Mode::tc) return "not the classifier";
              if (detach("t0") != true) return "not detached";
              __u32 id = 0;
              return bpf_xdp_query_id(ifindex, 0, &id) == 0 && id != 0 ? "" : "the other program is gone";
            }),
            "");
}

TEST(Attach, ErrorsNameTheInterface) {
  EXPECT_EQ(in_network([]() -> std::string { return attach("nosuch0", std::nullopt, {}).error(); }),
            "nosuch0: No such device");
  EXPECT_EQ(in_network([]() -> std::string {
              std::system("ip addr flush dev t0");
              return attach("t0", std::nullopt, {}).error();
            }),
            "t0 has no address: give those of the tunnel with --address");
}

}  // namespace
}  // namespace lb::target
