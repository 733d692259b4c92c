// A probe of one question and one answer: UDP (send, expect) and ICMP echo. The caller owns time and waiting:
//
//   open ──▶ fd readable ──▶ read() ──▶ a result, or nullopt: that was not the answer, wait on
//
// ICMP takes a raw socket (CAP_NET_RAW) or, where the kernel's ping_group_range allows it, a ping socket.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <tl/expected.hpp>

#include "cp/health/prober.h"

namespace lb::cp {

class DatagramProbe {
 public:
  // Sends the question: `spec.send` (UDP) or an echo request that carries `token` (ICMP). Error: the system's, as text.
  static tl::expected<std::unique_ptr<DatagramProbe>, std::string> open(const ProbeSpec& spec, std::uint64_t token);
  ~DatagramProbe();
  DatagramProbe(const DatagramProbe&) = delete;
  DatagramProbe& operator=(const DatagramProbe&) = delete;

  [[nodiscard]] int fd() const { return fd_; }  // non-blocking
  // Reads all there is. UDP: the first datagram decides; it must begin with `spec.expect`.
  std::optional<ProbeResult> read(const ProbeSpec& spec);

 private:
  DatagramProbe() = default;
  [[nodiscard]] bool answers_echo(const std::string& packet, bool v4) const;

  int fd_ = -1;
  bool raw_ = false;
  std::string token_;  // payload of the echo request
};

}  // namespace lb::cp
