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

// The mount namespace of another process; empty if it may not be looked at.
std::string mount_namespace(const std::string& process) {
  std::error_code error;
  const auto link = std::filesystem::read_symlink("/proc/" + process + "/ns/mnt", error);
  return error ? std::string() : link.string();
}

// 0 or an errno.
int mount_here(const std::string& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) return error.value();
  if (is_bpf_directory(directory)) return 0;
  return ::mount("bpf", directory.c_str(), "bpf", 0, "mode=0700") == 0 ? 0 : errno;
}

// The same in another process's mount namespace, by a child: a process with threads cannot change over.
int mount_at(const std::string& process, const std::string& directory) {
  const int ns = ::open(("/proc/" + process + "/ns/mnt").c_str(), O_RDONLY | O_CLOEXEC);
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
  if (is_bpf_directory(std::filesystem::path(directory).parent_path())) ::mkdir(directory.c_str(), 0700);
  if (is_bpf_directory(directory)) return directory;
  for (const std::string& process : {std::string("1"), std::to_string(::getppid())}) {
    const std::string other = mount_namespace(process);
    if (other.empty()) continue;
    if (other == mount_namespace("self")) break;
    if (mount_at(process, directory) != 0) continue;
    if (is_bpf_directory(directory)) return directory;
    std::string through = "/proc/" + process + "/root" + directory;
    if (is_bpf_directory(through)) return through;
  }
  if (const int error = mount_here(directory); error != 0) {
    return tl::unexpected("mounting a BPF file system at " + directory + ": " + std::strerror(error));
  }
  return directory;
}

}  // namespace lb::io
