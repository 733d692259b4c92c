#include "cp/control/confine.h"

#include <sched.h>
#include <seccomp.h>

#include <cerrno>
#include <cstring>
#include <initializer_list>
#include <memory>

namespace lb::cp {
namespace {

// What lb-cp never does. A list of what it does would be gRPC's and libcurl's, and change with them.
constexpr std::initializer_list<const char*> kForbidden = {
    // programs and processes
    "execve", "execveat", "fork", "vfork", "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp",
    "pidfd_getfd", "personality", "modify_ldt", "uselib",
    // file systems and namespaces
    "mount", "umount", "umount2", "move_mount", "open_tree", "fsopen", "fsmount", "fsconfig", "fspick", "mount_setattr",
    "pivot_root", "chroot", "setns", "unshare", "swapon", "swapoff", "quotactl", "mknod", "mknodat", "name_to_handle_at",
    "open_by_handle_at", "fanotify_init",
    // the machine
    "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "sethostname",
    "setdomainname", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "stime", "ioperm", "iopl", "syslog",
    "acct", "vhangup",
    // other users and rights
    "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "setfsuid", "setfsgid", "capset",
    "add_key", "request_key", "keyctl",
    // what the kernel has had most holes in
    "io_uring_setup", "io_uring_enter", "io_uring_register", "userfaultfd", "perf_event_open", "lookup_dcookie",
    "nfsservctl", "vmsplice"};

}  // namespace

tl::expected<bool, std::string> filter_system_calls() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return false;
#else
  const std::unique_ptr<void, void (*)(scmp_filter_ctx)> filter(::seccomp_init(SCMP_ACT_ALLOW), ::seccomp_release);
  if (filter == nullptr) return tl::unexpected(std::string("seccomp_init failed"));
  int error = 0;
  for (const char* name : kForbidden) {
    const int number = ::seccomp_syscall_resolve_name(name);
    if (error == 0 && number != __NR_SCMP_ERROR) error = ::seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(EPERM), number, 0);
  }
  // A thread shares its process; whatever does not is a new one. Flags of clone3 stand in memory, which no filter reads:
  // without it glibc takes clone.
  const scmp_arg_cmp no_thread = SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0);
  if (error == 0) error = ::seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1, no_thread);
  if (error == 0) error = ::seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
  if (error == 0) error = ::seccomp_load(filter.get());  // sets no_new_privs, as it must
  if (error != 0) return tl::unexpected(std::string("seccomp: ") + std::strerror(-error));
  return true;
#endif
}

}  // namespace lb::cp
