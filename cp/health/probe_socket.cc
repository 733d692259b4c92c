#include "cp/health/probe_socket.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace lb::cp {
namespace {

constexpr std::array<unsigned char, 16> kLocalHeader{0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51,
                                                     0x55, 0x49, 0x54, 0x0a, 0x20, 0x00, 0x00, 0x00};

// Errors of this host's own: they say nothing of the target.
bool is_own(int error) {
  for (const int own : {EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM, EACCES, EADDRNOTAVAIL}) {
    if (error == own) return true;
  }
  return false;
}

ProbeError error_of(const char* what, int error) {
  return {is_own(error), std::string(what) + ": " + std::strerror(error)};
}

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() {
    if (fd_ >= 0) close(fd_);
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  [[nodiscard]] int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
};

SocketAddress socket_address(const abi::IpAddress& address, std::uint16_t port) {
  SocketAddress to;
  if (address.is_v4()) {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    std::memcpy(&v4.sin_addr, address.bytes.data() + 12, 4);
    std::memcpy(&to.storage, &v4, sizeof v4);
    to.size = sizeof v4;
  } else {
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    std::memcpy(&v6.sin6_addr, address.bytes.data(), 16);
    std::memcpy(&to.storage, &v6, sizeof v6);
    to.size = sizeof v6;
  }
  return to;
}

// ICMP takes a raw socket (CAP_NET_RAW) or, where the kernel's ping_group_range allows it, a ping socket.
int make_socket(ProbeProtocol protocol, bool v4) {
  constexpr int kFlags = SOCK_CLOEXEC | SOCK_NONBLOCK;
  const int family = v4 ? AF_INET : AF_INET6;
  if (protocol == ProbeProtocol::udp) return socket(family, SOCK_DGRAM | kFlags, IPPROTO_UDP);
  if (protocol != ProbeProtocol::icmp) return socket(family, SOCK_STREAM | kFlags, IPPROTO_TCP);
  const int icmp = v4 ? static_cast<int>(IPPROTO_ICMP) : static_cast<int>(IPPROTO_ICMPV6);
  const int raw = socket(family, SOCK_RAW | kFlags, icmp);
  return raw >= 0 ? raw : socket(family, SOCK_DGRAM | kFlags, icmp);
}

}  // namespace

ProbeError system_error(const char* what) {
  return error_of(what, errno);
}

tl::expected<int, ProbeError> open_probe_socket(const ProbeSpec& spec, std::uint32_t number, ProbeTunnels* tunnels) {
  const abi::IpAddress& address = spec.through ? spec.through->vip : spec.address;
  Fd fd(make_socket(spec.protocol, address.is_v4()));
  if (fd.get() < 0) return tl::unexpected(system_error("socket"));
  if (spec.through) {
    if (tunnels == nullptr) return tl::unexpected(ProbeError{true, "no tunnels here"});
    if (auto ready = tunnels->prepare(fd.get(), number, spec); !ready) return tl::unexpected(ready.error());
  }
  const SocketAddress to = socket_address(address, spec.port);
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&to.storage), to.size) != 0 && errno != EINPROGRESS)
    return tl::unexpected(system_error("connect"));
  return fd.release();
}

tl::expected<void, ProbeError> connected(int fd) {
  int error = 0;
  socklen_t size = sizeof error;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
  if (error != 0) return tl::unexpected(error_of("connect", error));
  return {};
}

tl::expected<void, ProbeError> send_proxy_header(int fd) {
  const ssize_t n = send(fd, kLocalHeader.data(), kLocalHeader.size(), MSG_NOSIGNAL);
  if (n < 0) return tl::unexpected(system_error("PROXY header"));
  if (n < static_cast<ssize_t>(kLocalHeader.size())) return tl::unexpected(ProbeError{true, "PROXY header: not sent whole"});
  return {};
}

}  // namespace lb::cp
