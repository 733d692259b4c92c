// The Unix socket between lb-cp and lb-dp at the level of messages with file descriptors. Nothing blocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "dp/abi/control.h"

namespace lb::cp {

// A file descriptor, closed at the end.
class OwnedFd {
 public:
  OwnedFd() = default;
  explicit OwnedFd(int fd) : fd_(fd) {}
  OwnedFd(OwnedFd&& other) noexcept : fd_(other.release()) {}
  OwnedFd& operator=(OwnedFd&& other) noexcept;
  ~OwnedFd();
  [[nodiscard]] int get() const { return fd_; }
  int release();

 private:
  int fd_ = -1;
};

// A connected, non-blocking SOCK_SEQPACKET socket. Error: errno.
tl::expected<OwnedFd, int> connect_control(const std::string& path);

// Sends one message whole. Returns 0 or errno (EAGAIN: not now).
int send_message(int socket, std::span<const std::byte> bytes, std::span<const int> fds);

struct ReceivedMessage {
  std::vector<std::byte> bytes;  // empty: the peer has closed
  std::vector<OwnedFd> fds;

  // The message as `Message`, if it is whole, of our protocol version and of that kind; nothing else is looked at.
  template <typename Message>
  [[nodiscard]] bool as(Message& message, abi::MessageKind kind) const {
    return bytes.size() == sizeof(Message) && copy(&message, sizeof(Message), kind);
  }
  [[nodiscard]] abi::MessageHeader header() const;

 private:
  bool copy(void* to, std::size_t size, abi::MessageKind kind) const;
};

// Error: errno; EMSGSIZE for a message longer than any of ours or with more descriptors.
tl::expected<ReceivedMessage, int> receive_message(int socket);

}  // namespace lb::cp
