#include "cp/net/probe_tunnel.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_addr.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <system_error>
#include <utility>

#include "bpf/probe.h"
#include "bpf/probe.skel.h"
#include "cp/net/netlink.h"
#include "cp/net/probe_device.h"

namespace lb::cp {
namespace {

constexpr std::chrono::seconds kAddressesKeep{1};
constexpr std::uint32_t kMarks = 0x6c600000;  // the upper 12 bits of our marks
constexpr std::uint32_t kTcHandle = 0x6c62;
constexpr std::uint32_t kTcPriority = 2;

static_assert(ProbeTunnel::kMostProbes == PROBE_MOST_WAYS);

SystemError error_of(const std::string& what, int number) {
  number = std::abs(number);
  return {number, "tunnel probes: " + what + ": " + std::strerror(number)};
}

using Hook = bpf_tc_hook;

Hook hook_of(std::uint32_t ifindex, bpf_tc_attach_point point) {
  Hook hook{};
  hook.sz = sizeof hook;
  hook.ifindex = static_cast<int>(ifindex);
  hook.attach_point = point;
  return hook;
}

bpf_tc_opts filter_of(int program_fd, std::uint32_t flags) {
  bpf_tc_opts filter{};
  filter.sz = sizeof filter;
  filter.prog_fd = program_fd;
  filter.flags = flags;
  filter.handle = kTcHandle;
  filter.priority = kTcPriority;
  return filter;
}

// Errno, as libbpf gives it: negative.
int attach(std::uint32_t ifindex, bpf_tc_attach_point point, const bpf_program* program) {
  Hook hook = hook_of(ifindex, point);
  if (const int error = bpf_tc_hook_create(&hook); error != 0 && error != -EEXIST) return error;
  bpf_tc_opts filter = filter_of(bpf_program__fd(program), BPF_TC_F_REPLACE);
  return bpf_tc_attach(&hook, &filter);
}

void detach(std::uint32_t ifindex, bpf_tc_attach_point point) {
  Hook hook = hook_of(ifindex, point);
  bpf_tc_opts filter = filter_of(0, 0);
  bpf_tc_detach(&hook, &filter);
}

int bind_to(int fd, const abi::IpAddress& source) {
  const int late = 1;  // the port is chosen by connect(): as many probes as there are ports, for each target
  setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &late, sizeof late);
  if (source.is_v4()) {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    std::memcpy(&v4.sin_addr, source.bytes.data() + 12, 4);
    return bind(fd, reinterpret_cast<const sockaddr*>(&v4), sizeof v4);
  }
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  std::memcpy(&v6.sin6_addr, source.bytes.data(), 16);
  return bind(fd, reinterpret_cast<const sockaddr*>(&v6), sizeof v6);
}

probe_way way_to(const TunnelledProbe& probe, const abi::IpAddress& target, const NextHop& hop, std::uint32_t ifindex) {
  probe_way way{};
  std::copy(hop.source.bytes.begin(), hop.source.bytes.end(), way.source.bytes);
  std::copy(target.bytes.begin(), target.bytes.end(), way.destination.bytes);
  std::copy(hop.mac.begin(), hop.mac.end(), way.next_hop_mac);
  std::copy(hop.source_mac.begin(), hop.source_mac.end(), way.source_mac);
  way.ifindex = ifindex;
  way.vlan = hop.vlan;
  switch (probe.mode) {
    case abi::ForwardingMode::ipip: way.kind = PROBE_IPIP; break;
    case abi::ForwardingMode::gue:
      way.kind = PROBE_GUE;
      way.word = probe.gue_port;
      way.flags = probe.gue_ipv6_zero_checksum ? PROBE_ZERO_CHECKSUM : 0;
      break;
    case abi::ForwardingMode::gre:
      way.kind = PROBE_GRE;
      way.word = probe.gre_key.value_or(0);
      way.flags = probe.gre_key ? PROBE_KEYED : 0;
      break;
    default: way.kind = PROBE_L2DSR; break;
  }
  return way;
}

}  // namespace

struct ProbeTunnel::Programs {
  explicit Programs(ProbeDevice made) : device(std::move(made)) {}
  ProbeDevice device;
  std::unique_ptr<probe_bpf, decltype(&probe_bpf::destroy)> skeleton{nullptr, &probe_bpf::destroy};
};

ProbeTunnel::ProbeTunnel(std::unique_ptr<Programs> programs) : programs_(std::move(programs)) {}

tl::expected<std::unique_ptr<ProbeTunnel>, SystemError> ProbeTunnel::open() {
  auto device = ProbeDevice::open(kDevice);
  if (!device) return tl::unexpected(device.error());
  auto programs = std::make_unique<Programs>(std::move(*device));
  auto& skeleton = programs->skeleton;
  libbpf_set_print(nullptr);
  skeleton.reset(probe_bpf::open());
  if (!skeleton) return tl::unexpected(error_of("their programs", errno));
  skeleton->rodata->device = programs->device.ifindex();
  if (const int error = probe_bpf::load(skeleton.get()); error != 0)
    return tl::unexpected(error_of("the kernel refuses their programs", error));
  const int error = attach(programs->device.ifindex(), BPF_TC_EGRESS, skeleton->progs.probe_out);
  if (error != 0) return tl::unexpected(error_of(kDevice, error));
  return std::unique_ptr<ProbeTunnel>(new ProbeTunnel(std::move(programs)));
}

ProbeTunnel::~ProbeTunnel() {
  for (const auto& [interface, ifindex] : watched_) detach(ifindex, BPF_TC_INGRESS);
}

tl::expected<void, SystemError> ProbeTunnel::watch(const std::string& interface, std::uint32_t& ifindex) {
  ifindex = if_nametoindex(interface.c_str());
  if (ifindex == 0) return tl::unexpected(error_of(interface, errno));
  const auto known = watched_.find(interface);
  if (known != watched_.end() && known->second == ifindex) return {};
  if (const int error = attach(ifindex, BPF_TC_INGRESS, programs_->skeleton->progs.probe_in); error != 0)
    return tl::unexpected(error_of(interface, error));
  watched_[interface] = ifindex;
  return {};
}

// Not one that is deprecated, as SNAT addresses beside it should be (fullnat.md): what is sent to those goes to the workers.
abi::IpAddress ProbeTunnel::address_on(std::uint32_t ifindex, bool v4) {
  const auto now = std::chrono::steady_clock::now();
  if (now >= addresses_at_ + kAddressesKeep) {
    addresses_at_ = now;
    addresses_.clear();
    NetlinkRequests().dump(RTM_GETADDR, [this](const nlmsghdr* message) {
      constexpr std::uint32_t kUnfit = IFA_F_DEPRECATED | IFA_F_TENTATIVE | IFA_F_DADFAILED;
      const auto known = parse_address(message);
      if (!known || known->scope != RT_SCOPE_UNIVERSE || (known->flags & kUnfit) != 0) return;
      addresses_.try_emplace({known->ifindex, known->address.is_v4()}, known->address);
    });
  }
  const auto found = addresses_.find({ifindex, v4});
  return found == addresses_.end() ? abi::IpAddress{} : found->second;
}

tl::expected<void, SystemError> ProbeTunnel::prepare(int fd, std::uint32_t number, const TunnelledProbe& probe,
                                                     const abi::IpAddress& target, const NextHop& next_hop) try {
  if (!next_hop.resolved) return tl::unexpected(SystemError{0, "next hop unresolved"});
  const bool v4 = probe.vip.is_v4();
  if (!v4 && !programs_->device.ipv6_error().empty())
    return tl::unexpected(SystemError{ENETUNREACH, "tunnel probes: " + programs_->device.ipv6_error()});
  std::uint32_t ifindex = 0;
  if (auto watched = watch(next_hop.interface, ifindex); !watched) return watched;
  NextHop hop = next_hop;
  if (hop.source.is_zero()) hop.source = address_on(ifindex, target.is_v4());
  const abi::IpAddress own = v4 == target.is_v4() ? hop.source : address_on(ifindex, v4);
  if (own.is_zero() || hop.source.is_zero()) {
    return tl::unexpected(SystemError{EADDRNOTAVAIL, "tunnel probes: " + hop.interface + " has no address to ask from"});
  }
  const std::uint32_t mark = kMarks | number;
  const probe_way way = way_to(probe, target, hop, ifindex);
  if (const int error = bpf_map_update_elem(bpf_map__fd(programs_->skeleton->maps.ways), &mark, &way, BPF_ANY); error != 0)
    return tl::unexpected(error_of("ways", error));
  if (setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark) != 0) return tl::unexpected(error_of("mark", errno));
  if (setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, kDevice, static_cast<socklen_t>(std::strlen(kDevice))) != 0)
    return tl::unexpected(error_of("bind to device", errno));
  if (bind_to(fd, own) != 0) return tl::unexpected(error_of("bind", errno));
  return {};
} catch (const std::system_error& error) {
  return tl::unexpected(error_of("addresses", error.code().value()));
}

void ProbeTunnel::forget(std::uint32_t number) {
  const std::uint32_t mark = kMarks | number;
  bpf_map_delete_elem(bpf_map__fd(programs_->skeleton->maps.ways), &mark);
}

}  // namespace lb::cp
