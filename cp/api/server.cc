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
#include <deque>
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

namespace {

// One socket and what is served on it.
struct Door {
  Door(Operations& operations, std::string socket_path, std::string owner_group, Access access)
      : path(std::move(socket_path)), group(std::move(owner_group)), service(make_service(operations, access)) {}

  tl::expected<void, std::string> open();
  void close();

  std::string path;
  std::string group;
  std::unique_ptr<grpc::Service> service;
  std::unique_ptr<grpc::Server> server;
  struct stat socket_file {};  // to remove only what is ours
};

}  // namespace

struct ApiServer::Impl {
  std::deque<Door> doors;
};

ApiServer::ApiServer(Operations& operations, ApiOptions options) : impl_(std::make_unique<Impl>()) {
  impl_->doors.emplace_back(operations, std::move(options.socket_path), std::move(options.group), Access::admin);
  if (!options.view_socket_path.empty()) {
    impl_->doors.emplace_back(operations, std::move(options.view_socket_path), std::move(options.view_group), Access::view);
  }
}

ApiServer::~ApiServer() {
  stop();
}

tl::expected<void, std::string> ApiServer::start() {
  for (Door& door : impl_->doors) {
    if (auto opened = door.open(); !opened) {
      stop();
      return opened;
    }
  }
  return {};
}

void ApiServer::stop() {
  for (Door& door : impl_->doors) door.close();
}

tl::expected<void, std::string> Door::open() {
  gid_t gid = static_cast<gid_t>(-1);
  if (!group.empty()) {
    const auto id = group_id(group);
    if (!id) return tl::unexpected(id.error());
    gid = *id;
  }
  if (auto cleared = clear_stale_socket(path); !cleared) return cleared;

  grpc::ResourceQuota quota("api");
  quota.SetMaxThreads(kMaxThreads);
  grpc::ServerBuilder builder;
  builder.SetResourceQuota(quota);
  builder.SetMaxReceiveMessageSize(kMaxRequestBytes);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddListeningPort("unix:" + path, grpc::InsecureServerCredentials());
  builder.RegisterService(service.get());
  const mode_t before = ::umask(0117);  // the socket is 0660 from its first moment on
  server = builder.BuildAndStart();
  ::umask(before);
  if (!server) return tl::unexpected("API socket " + path + ": cannot listen");
  if (gid != static_cast<gid_t>(-1) && ::chown(path.c_str(), static_cast<uid_t>(-1), gid) != 0) {
    const std::string error = failed("API socket " + path + ": group " + group);
    close();
    return tl::unexpected(error);
  }
  if (::lstat(path.c_str(), &socket_file) != 0) socket_file = {};
  return {};
}

void Door::close() {
  if (!server) return;
  server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  server->Wait();
  server.reset();
  struct stat status {};
  if (::lstat(path.c_str(), &status) == 0 && status.st_ino == socket_file.st_ino && status.st_dev == socket_file.st_dev)
    ::unlink(path.c_str());
}

}  // namespace lb::cp
