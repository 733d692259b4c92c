#include "cp/control/confine.h"

#include <gtest/gtest.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <thread>

namespace lb::cp {
namespace {

// In a process of its own, for there is no way back. Its exit code: 0, or the number of the line that did not hold.
template <typename Body>
int line_that_fails(const Body& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

bool refused(long result, int error) {
  return result == -1 && errno == error;
}

TEST(Confine, WhatOnlyABreakInNeedsIsRefused) {
  const int line = line_that_fails([] {
    const auto filtered = filter_system_calls();
    if (!filtered) return 1;
    if (!*filtered) return 0;  // a build with sanitizers
    char* nothing[] = {nullptr};
    if (!refused(::execve("/bin/true", nothing, nothing), EPERM)) return 2;
    if (!refused(::fork(), EPERM)) return 3;
    if (!refused(::syscall(SYS_vfork), EPERM)) return 4;
    if (!refused(::syscall(SYS_clone3, nullptr, 0), ENOSYS)) return 5;
    if (!refused(::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr), EPERM)) return 6;
    if (!refused(::mount("none", "/", "tmpfs", 0, nullptr), EPERM)) return 7;
    if (!refused(::unshare(CLONE_NEWUSER), EPERM)) return 8;
    if (!refused(::syscall(SYS_io_uring_setup, 1, nullptr), EPERM)) return 9;
    if (!refused(::syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, 0, 0, 0, 0), EPERM)) return 10;
    if (!refused(::setuid(::getuid()), EPERM)) return 11;
    return 0;
  });
  EXPECT_EQ(line, 0);
}

TEST(Confine, WhatLbCpDoesGoesOn) {
  const int line = line_that_fails([] {
    const auto filtered = filter_system_calls();
    if (!filtered) return 1;
    if (!*filtered) return 0;
    for (const int family : {AF_INET, AF_INET6, AF_UNIX, AF_NETLINK}) {
      const int fd = ::socket(family, family == AF_NETLINK ? SOCK_RAW : SOCK_STREAM, 0);
      if (fd < 0) return 2;
      ::close(fd);
    }
    int seen = 0;
    std::thread([&] {
      char* nothing[] = {nullptr};
      seen = refused(::execve("/bin/true", nothing, nothing), EPERM) ? 1 : 2;
    }).join();
    return seen == 1 ? 0 : 3;
  });
  EXPECT_EQ(line, 0);
}

}  // namespace
}  // namespace lb::cp
