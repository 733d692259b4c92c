// Sockets of probes: on their way to what a ProbeSpec names, directly or through the target's tunnel.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <tl/expected.hpp>

#include "cp/health/prober.h"

namespace lb::cp {

struct ProbeError {
  bool own = false;  // this host's, not the target's: no verdict
  std::string text;  // "connect: Network is unreachable"
};

// errno as it stands, with the name of what failed.
ProbeError system_error(const char* what);

// A non-blocking socket of the caller's, connected to where the probe goes, or, of tcp, http and https, about to be.
// `number`: the probe's, if it goes through a tunnel (ProbeTunnels).
tl::expected<int, ProbeError> open_probe_socket(const ProbeSpec& spec, std::uint32_t number, ProbeTunnels* tunnels);

// Whether the connection that open_probe_socket() began is made: readable from SO_ERROR once the socket is writable.
tl::expected<void, ProbeError> connected(int fd);

// PROXY protocol version 2, command LOCAL: "this connection is the sender's own", as its specification wants of health
// checks.
tl::expected<void, ProbeError> send_proxy_header(int fd);

}  // namespace lb::cp
