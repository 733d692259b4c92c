// A probe of one question and one answer: UDP (send, expect) and ICMP echo. The caller owns time and waiting:
//
//   open ──▶ fd readable ──▶ read() ──▶ a result, or nullopt: that was not the answer, wait on
//
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <tl/expected.hpp>

#include "cp/health/probe_socket.h"

namespace lb::cp {

class DatagramProbe {
 public:
  // Sends the question: `spec.send` (UDP) or an echo request that carries `token` (ICMP).
  static tl::expected<std::unique_ptr<DatagramProbe>, ProbeError> open(int fd, const ProbeSpec& spec, std::uint64_t token);
  ~DatagramProbe();
  DatagramProbe(const DatagramProbe&) = delete;
  DatagramProbe& operator=(const DatagramProbe&) = delete;

  [[nodiscard]] int fd() const { return fd_; }  // non-blocking
  // Reads all there is. UDP: the first datagram decides; it must begin with `spec.expect`.
  std::optional<ProbeResult> read(const ProbeSpec& spec);

 private:
  DatagramProbe() = default;
  [[nodiscard]] bool answers_echo(const std::string& packet) const;

  int fd_ = -1;
  bool raw_ = false;
  bool v4_ = true;
  std::string token_;  // payload of the echo request
};

}  // namespace lb::cp
