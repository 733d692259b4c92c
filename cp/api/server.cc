#include "cp/api/server.h"

#include <grp.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/service_type.h>
#include <grpcpp/resource_quota.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "cp/api/service.h"

namespace lb::cp {

namespace {

constexpr int kMaxRequestBytes = (64 << 20) + (1 << 16);  // a configuration of 64 MiB
constexpr int kMaxThreads = 64;

std::string failed(const std::string& what) {
  return what + ": " + std::strerror(errno);
}

// Nothing is left at `path`, or the reason why that cannot be.
tl::expected<void, std::string> clear_stale_socket(const std::string& path) {
  sockaddr_un address{};
  if (path.empty() || path.front() != '/') return tl::unexpected("API socket `" + path + "`: not an absolute path");
  if (path.size() >= sizeof(address.sun_path)) return tl::unexpected("API socket " + path + ": longer than 107 bytes");
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) {
    if (errno != ENOENT) return tl::unexpected(failed("API socket " + path));
    const std::string directory = path.substr(0, std::max<std::size_t>(path.rfind('/'), 1));
    if (::access(directory.c_str(), W_OK | X_OK) != 0)
      return tl::unexpected(failed("API socket " + path + ": directory " + directory));
    return {};
  }
  if (!S_ISSOCK(status.st_mode)) return tl::unexpected("API socket " + path + ": something else than a socket is there");
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return tl::unexpected(failed("API socket " + path));
  const int error = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ? 0 : errno;
  ::close(fd);
  if (error == 0 || error == EAGAIN) return tl::unexpected("API socket " + path + ": another lb-cp is listening there");
  if (error != ECONNREFUSED) return tl::unexpected("API socket " + path + ": " + std::strerror(error));
  if (::unlink(path.c_str()) != 0) return tl::unexpected(failed("API socket " + path));
  return {};
}

tl::expected<gid_t, std::string> group_id(const std::string& name) {
  std::vector<char> buffer(16384);
  struct group entry {};
  struct group* found = nullptr;
  const int error = ::getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (found == nullptr)
    return tl::unexpected("API socket: group `" + name + "`: " + (error == 0 ? "no such group" : std::strerror(error)));
  return found->gr_gid;
}

}  // namespace

struct ApiServer::Impl {
  Impl(Operations& operations, ApiOptions given) : options(std::move(given)), service(make_service(operations)) {}

  ApiOptions options;
  std::unique_ptr<grpc::Service> service;
  std::unique_ptr<grpc::Server> server;
  struct stat socket_file {};  // to remove only what is ours
};

ApiServer::ApiServer(Operations& operations, ApiOptions options)
    : impl_(std::make_unique<Impl>(operations, std::move(options))) {}

ApiServer::~ApiServer() {
  stop();
}

tl::expected<void, std::string> ApiServer::start() {
  const std::string& path = impl_->options.socket_path;
  gid_t group = static_cast<gid_t>(-1);
  if (!impl_->options.group.empty()) {
    const auto id = group_id(impl_->options.group);
    if (!id) return tl::unexpected(id.error());
    group = *id;
  }
  if (auto cleared = clear_stale_socket(path); !cleared) return cleared;

  grpc::ResourceQuota quota("api");
  quota.SetMaxThreads(kMaxThreads);
  grpc::ServerBuilder builder;
  builder.SetResourceQuota(quota);
  builder.SetMaxReceiveMessageSize(kMaxRequestBytes);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddListeningPort("unix:" + path, grpc::InsecureServerCredentials());
  builder.RegisterService(impl_->service.get());
  const mode_t before = ::umask(0117);  // the socket is 0660 from its first moment on
  impl_->server = builder.BuildAndStart();
  ::umask(before);
  if (!impl_->server) return tl::unexpected("API socket " + path + ": cannot listen");
  if (group != static_cast<gid_t>(-1) && ::chown(path.c_str(), static_cast<uid_t>(-1), group) != 0) {
    const std::string error = failed("API socket " + path + ": group " + impl_->options.group);
    stop();
    return tl::unexpected(error);
  }
  if (::lstat(path.c_str(), &impl_->socket_file) != 0) impl_->socket_file = {};
  return {};
}

void ApiServer::stop() {
  if (!impl_->server) return;
  impl_->server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  impl_->server->Wait();
  impl_->server.reset();
  struct stat status {};
  const std::string& path = impl_->options.socket_path;
  if (::lstat(path.c_str(), &status) == 0 && status.st_ino == impl_->socket_file.st_ino &&
      status.st_dev == impl_->socket_file.st_dev) {
    ::unlink(path.c_str());
  }
}

}  // namespace lb::cp
