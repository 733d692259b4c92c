// What a daemon tells the service manager that started it (sd_notify(3)'s protocol): datagrams to $NOTIFY_SOCKET. Without
// one nothing is sent. systemd is one such manager, tests/lib/supervisor.py another.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace lb {

// `state`: lines NAME=VALUE. Errors are of no use to anybody and are not reported.
inline void notify_manager(std::string_view state) {
  const char* const path = std::getenv("NOTIFY_SOCKET");
  if (path == nullptr || (path[0] != '/' && path[0] != '@')) return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::size_t length = std::string_view(path).copy(address.sun_path, sizeof(address.sun_path) - 1);
  if (address.sun_path[0] == '@') address.sun_path[0] = '\0';
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  ::sendto(fd, state.data(), state.size(), MSG_NOSIGNAL | MSG_DONTWAIT, reinterpret_cast<const sockaddr*>(&address),
           static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length));
  ::close(fd);
}

// How often the manager wants a sign of life, in ms; 0: never.
inline std::uint64_t watchdog_ms() {
  const char* const wanted = std::getenv("WATCHDOG_USEC");
  const char* const pid = std::getenv("WATCHDOG_PID");
  if (wanted == nullptr || (pid != nullptr && std::atol(pid) != ::getpid())) return 0;
  return std::strtoull(wanted, nullptr, 10) / 1000;
}

}  // namespace lb
