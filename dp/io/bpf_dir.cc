#include "dp/io/bpf_dir.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

namespace lb::io {
namespace {

bool is_bpf_directory(const std::string& path) {
  struct statfs info {};
  return ::statfs(path.c_str(), &info) == 0 && static_cast<unsigned long>(info.f_type) == BPF_FS_MAGIC;
}

bool same_mount_namespace_as_init() {
  struct stat own {};
  struct stat init {};
  return ::stat("/proc/self/ns/mnt", &own) == 0 && ::stat("/proc/1/ns/mnt", &init) == 0 && own.st_ino == init.st_ino;
}

// 0 or an errno.
int mount_here(const std::string& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) return error.value();
  if (is_bpf_directory(directory)) return 0;
  return ::mount("bpf", directory.c_str(), "bpf", 0, "mode=0700") == 0 ? 0 : errno;
}

// The same in the mount namespace of process 1, by a child: a thread of a process with several cannot change over.
int mount_at_init(const std::string& directory) {
  const int ns = ::open("/proc/1/ns/mnt", O_RDONLY | O_CLOEXEC);
  if (ns < 0) return errno;
  const pid_t child = ::fork();
  if (child == 0) ::_exit(::setns(ns, CLONE_NEWNS) != 0 ? errno : mount_here(directory));
  ::close(ns);
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child) return errno;
  return WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
}

}  // namespace

tl::expected<std::string, std::string> ensure_bpf_directory(const std::string& directory) {
  std::error_code ignored;
  std::string seen_from_init = "/proc/1/root" + directory;
  if (is_bpf_directory(directory)) {
    std::filesystem::create_directories(directory, ignored);
    return directory;
  }
  if (!same_mount_namespace_as_init() && mount_at_init(directory) == 0) {
    if (is_bpf_directory(directory)) return directory;
    if (is_bpf_directory(seen_from_init)) return seen_from_init;
  }
  if (const int error = mount_here(directory); error != 0) {
    return tl::unexpected("mounting a BPF file system at " + directory + ": " + std::strerror(error));
  }
  return directory;
}

}  // namespace lb::io
