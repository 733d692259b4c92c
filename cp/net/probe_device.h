// The TUN device of tunnel probes, ready to use. Private to cp/net.
#pragma once

#include <cstdint>
#include <string>
#include <tl/expected.hpp>

namespace lb::cp {

struct SystemError {
  int number = 0;  // errno
  std::string text;
};

class ProbeDevice {
 public:
  // Makes the device `name`, up, with what the kernel needs to take packets from it whose source is one of its own
  // addresses.
  static tl::expected<ProbeDevice, SystemError> open(const char* name);
  ~ProbeDevice();
  ProbeDevice(ProbeDevice&& other) noexcept;
  ProbeDevice& operator=(ProbeDevice&&) = delete;

  [[nodiscard]] std::uint32_t ifindex() const { return ifindex_; }
  // "": IPv6 sockets that are bound to the device find their way; else why not.
  [[nodiscard]] const std::string& ipv6_error() const { return ipv6_error_; }

 private:
  ProbeDevice() = default;

  int fd_ = -1;
  std::uint32_t ifindex_ = 0;
  std::string ipv6_error_;
};

}  // namespace lb::cp
