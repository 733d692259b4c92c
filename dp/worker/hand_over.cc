#include "dp/worker/hand_over.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "dp/io/bpf_dir.h"
#include "dp/io/fd.h"
#include "dp/io/steering.h"
#include "dp/worker/flow_region.h"
#include "dp/worker/snapshot_store.h"

namespace lb::worker {
namespace {

tl::expected<void, std::string> check_stored_snapshot(const std::string& state_dir) {
  auto store = SnapshotStore::open(state_dir);
  if (!store) return tl::unexpected(store.error());
  auto stored = (*store)->load();
  if (!stored) return tl::unexpected(stored.error());
  if (!*stored) return {};  // the old one has none either
  SegmentsById& segments = (*stored)->segments;
  const auto snapshot = Snapshot::open((*stored)->root, [&](std::uint64_t id) {
    const auto found = segments.find(id);
    return found == segments.end() ? nullptr : &found->second;
  });
  if (snapshot) return {};
  return tl::unexpected(
      fmt::format("the stored snapshot: {}: {}", abi::to_string(snapshot.error().refusal), snapshot.error().text));
}

}  // namespace

tl::expected<pid_t, std::string> running_lb_dp(const std::string& control_socket) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  control_socket.copy(address.sun_path, sizeof(address.sun_path) - 1);
  const io::Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      ::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return tl::unexpected(
        fmt::format("{}: {}: no lb-dp runs that could hand over; start one", control_socket, std::strerror(errno)));
  }
  return peer.pid;
}

tl::expected<void, std::string> can_take_over(const io::DpConfig& config) {
  if (const std::string why = FlowRegion::misfit_of_present(flow_region_options(config)); !why.empty())
    return tl::unexpected(why + "; flows would start afresh");
  if (auto stored = check_stored_snapshot(config.state_dir); !stored)
    return tl::unexpected(stored.error() + "; packets would wait for lb-cp");
  return {};
}

void take_environment_of(pid_t old) {
  std::ifstream in(fmt::format("/proc/{}/environ", old));
  for (std::string entry; std::getline(in, entry, '\0');) {
    const std::size_t equals = entry.find('=');
    const std::string name = entry.substr(0, equals);
    if (equals != std::string::npos && (name == "NOTIFY_SOCKET" || name == "WATCHDOG_USEC"))
      ::setenv(name.c_str(), entry.c_str() + equals + 1, 1);
  }
  ::unsetenv("WATCHDOG_PID");
}

std::uint64_t dropped_without_socket(const io::DpConfig& config) {
  std::uint64_t dropped = 0;
  for (const io::PortConfig& port : config.ports) {
    if (port.driver != io::Driver::af_xdp) continue;
    const auto directory = io::ensure_bpf_directory(config.bpf_dir);
    if (directory) dropped += io::Steering::stats_of(port.interface, *directory).dropped_no_socket;
  }
  return dropped;
}

tl::expected<void, std::string> ask_to_hand_over(pid_t old) {
  if (::kill(old, kHandOverSignal) == 0) return {};
  return tl::unexpected(fmt::format("signal to process {}: {}", old, std::strerror(errno)));
}

}  // namespace lb::worker
