#include "cp/snapshot/control_socket.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace lb::cp {
namespace {

constexpr std::size_t kLongestMessage = std::max({sizeof(abi::Hello), sizeof(abi::Segments), sizeof(abi::Verdict)});
using ControlBuffer = std::array<char, CMSG_SPACE(sizeof(int) * abi::kMaxFdsPerMessage)>;

void take_fds(msghdr& message, std::vector<OwnedFd>& fds) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof fd);
      fds.emplace_back(fd);
    }
  }
}

}  // namespace

OwnedFd& OwnedFd::operator=(OwnedFd&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

OwnedFd::~OwnedFd() {
  if (fd_ >= 0) close(fd_);
}

int OwnedFd::release() {
  return std::exchange(fd_, -1);
}

tl::expected<OwnedFd, int> connect_control(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return tl::unexpected(ENAMETOOLONG);
  path.copy(address.sun_path, path.size());
  OwnedFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (fd.get() < 0) return tl::unexpected(errno);
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return tl::unexpected(errno);
  return fd;
}

int send_message(int socket, std::span<const std::byte> bytes, std::span<const int> fds) {
  iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) ControlBuffer control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(rights), fds.data(), fds.size_bytes());
  }
  for (;;) {
    if (sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return 0;
    if (errno != EINTR) return errno;
  }
}

tl::expected<ReceivedMessage, int> receive_message(int socket) {
  ReceivedMessage received;
  received.bytes.resize(kLongestMessage);
  iovec part{received.bytes.data(), received.bytes.size()};
  alignas(cmsghdr) ControlBuffer control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t size = 0;
  do {
    size = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (size < 0 && errno == EINTR);
  if (size < 0) return tl::unexpected(errno);
  take_fds(message, received.fds);
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) return tl::unexpected(EMSGSIZE);
  received.bytes.resize(static_cast<std::size_t>(size));
  return received;
}

abi::MessageHeader ReceivedMessage::header() const {
  abi::MessageHeader header{.magic = 0};
  if (bytes.size() >= sizeof header) std::memcpy(&header, bytes.data(), sizeof header);
  return header;
}

bool ReceivedMessage::copy(void* to, std::size_t size, abi::MessageKind kind) const {
  const abi::MessageHeader start = header();
  if (start.magic != abi::kControlMagic || start.version != abi::kControlVersion || start.kind != kind ||
      start.size_bytes != size) {
    return false;
  }
  std::memcpy(to, bytes.data(), size);
  return true;
}

}  // namespace lb::cp
