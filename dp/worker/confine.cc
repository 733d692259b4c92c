#include "dp/worker/confine.h"

#include <fmt/format.h>
#include <grp.h>
#include <linux/bpf.h>
#include <pwd.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <vector>

namespace lb::worker {
namespace {

// Of what lb-dp does once it serves, by what it is for.
constexpr std::initializer_list<const char*> kAllowed = {
    // packets: AF_XDP and AF_PACKET sockets, TAPs, memif; DPDK makes its epoll anew when interrupts come or go
    "poll", "ppoll", "epoll_create", "epoll_create1", "epoll_wait", "epoll_pwait", "epoll_ctl", "read", "readv", "write",
    "writev", "sendto", "recvfrom", "sendmsg", "recvmsg", "sendmmsg", "recvmmsg", "ioctl", "eventfd2", "timerfd_settime",
    // lb-cp, the service manager, addresses of this host, DPDK's telemetry
    "socket", "connect", "bind", "listen", "accept", "accept4", "shutdown", "getsockopt", "setsockopt", "getsockname",
    "getpeername",
    // snapshots and the state folder
    "open", "openat", "close", "fstat", "stat", "lstat", "newfstatat", "statx", "fstatfs", "statfs", "access", "faccessat",
    "faccessat2", "lseek", "pread64", "pwrite64", "fcntl", "flock", "fsync", "fdatasync", "ftruncate", "fallocate", "rename",
    "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "fchmod", "chmod", "getdents64", "readlink",
    "readlinkat", "getcwd", "umask", "dup", "dup2", "dup3", "pipe2",
    // memory and threads that are there
    "mmap", "munmap", "mprotect", "mremap", "madvise", "brk", "mlock", "munlock", "membarrier", "futex", "set_robust_list",
    "get_robust_list", "rseq", "sched_yield", "sched_getaffinity", "sched_setaffinity", "getcpu", "gettid", "getpid",
    "getppid", "getuid", "geteuid", "getgid", "getegid", "prctl", "sysinfo", "uname", "getrusage", "prlimit64",
    "get_mempolicy", "move_pages",
    // time, signals, the end
    "clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time", "restart_syscall",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "signalfd4", "tgkill", "tkill", "kill", "exit",
    "exit_group", "getrandom"};

// Entries of maps that are open, and their names; no new map or program.
constexpr std::initializer_list<int> kBpfCommands = {BPF_MAP_LOOKUP_ELEM,  BPF_MAP_UPDATE_ELEM,    BPF_MAP_DELETE_ELEM,
                                                     BPF_MAP_GET_NEXT_KEY, BPF_OBJ_GET_INFO_BY_FD, BPF_MAP_LOOKUP_BATCH,
                                                     BPF_MAP_UPDATE_BATCH, BPF_MAP_DELETE_BATCH};

std::string failed(const char* what, int error) {
  return fmt::format("{}: {}", what, std::strerror(error));
}

tl::expected<void, std::string> give_away(const std::string& path, uid_t user, gid_t group) {
  if (::lchown(path.c_str(), user, group) != 0) return tl::unexpected(fmt::format("{}: {}", path, failed("chown", errno)));
  return {};
}

// The folder and its files, which are lb-dp's alone; no link is followed.
tl::expected<void, std::string> give_folder_away(const std::string& folder, uid_t user, gid_t group) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (!entry.is_regular_file() || entry.is_symlink()) continue;
    if (auto r = give_away(entry.path(), user, group); !r) return r;
  }
  if (error) return tl::unexpected(folder + ": " + error.message());
  return give_away(folder, user, group);
}

}  // namespace

tl::expected<bool, std::string> become(const std::string& user, bool required, const std::string& state_dir,
                                       const std::string& socket) {
  if (::geteuid() != 0) return false;
  std::vector<char> text(16384);
  passwd entry{};
  passwd* found = nullptr;
  ::getpwnam_r(user.c_str(), &entry, text.data(), text.size(), &found);
  if (found == nullptr && !required) return false;
  if (found == nullptr) return tl::unexpected(fmt::format("there is no user '{}'", user));
  if (auto r = give_folder_away(state_dir, entry.pw_uid, entry.pw_gid); !r) return tl::unexpected(r.error());
  if (auto r = give_away(socket, entry.pw_uid, entry.pw_gid); !r) return tl::unexpected(r.error());
  // glibc does these in every thread; leaving uid 0 clears every capability.
  if (::setgroups(0, nullptr) != 0) return tl::unexpected(failed("setgroups", errno));
  if (::setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid) != 0) return tl::unexpected(failed("setresgid", errno));
  if (::setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid) != 0) return tl::unexpected(failed("setresuid", errno));
  if (::access(state_dir.c_str(), R_OK | W_OK | X_OK) != 0) {
    return tl::unexpected(
        fmt::format("'{}' cannot write into {}: the folders above it must be searchable (0711)", user, state_dir));
  }
  ::prctl(PR_SET_DUMPABLE, 1);  // a crash shall leave a core as the service manager allows
  return true;
}

tl::expected<bool, std::string> filter_system_calls() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return false;
#else
  const std::unique_ptr<void, void (*)(scmp_filter_ctx)> filter(::seccomp_init(SCMP_ACT_ERRNO(EPERM)), ::seccomp_release);
  if (filter == nullptr) return tl::unexpected(failed("seccomp_init", ENOMEM));
  int error = ::seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_TSYNC, 1);
  for (const char* name : kAllowed) {
    const int number = ::seccomp_syscall_resolve_name(name);
    if (error == 0 && number != __NR_SCMP_ERROR) error = ::seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, number, 0);
  }
  for (const int command : kBpfCommands) {
    const scmp_arg_cmp is_command = SCMP_A0(SCMP_CMP_EQ, static_cast<scmp_datum_t>(command), 0);
    if (error == 0) error = ::seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, SCMP_SYS(bpf), 1, is_command);
  }
  if (error == 0) error = ::seccomp_load(filter.get());  // sets no_new_privs, as it must
  if (error != 0) return tl::unexpected(failed("seccomp", -error));
  return true;
#endif
}

}  // namespace lb::worker
