// Active health probes: who is probed, how often, and what came back. One thread, libcurl's multi interface over epoll,
// at most kMaxProbesInFlight at a time; the rest wait their turn, oldest first.
//
//   set_probes(specs) ──▶ due heap ──▶ connect / GET / datagram ──▶ result callback (on the prober's thread)
//
// A probe is named by what it does (ProbeSpec), not by who wants it: groups that check the same address in the same way
// share one. Each probe runs on a connection or socket of its own, closed after it; libcurl gets it connected. No proxies,
// no redirects.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "cp/health/rise_fall.h"
#include "cp/model/model.h"

namespace lb::cp {

inline constexpr std::size_t kMaxProbesInFlight = 4096;

struct ProbeSpec {
  ProbeProtocol protocol = ProbeProtocol::tcp;  // any but none
  abi::IpAddress address;
  std::uint16_t port = 0;  // 1-65535; icmp: 0
  // http and https, else as they are here
  std::string path;
  std::string host;         // empty: the address. Also the server name (SNI) that https asks for
  std::string matcher;      // "200-399,401": format_matcher()
  bool http2 = false;       // 2 and nothing else; over http without an upgrade
  bool tls_verify = false;  // https: the certificate is judged by the system's authorities
  bool proxy_v2 = false;    // tcp, http and https: a PROXY header goes before everything else
  // udp: bytes
  std::string send;
  std::string expect;  // what the answer begins with
  std::chrono::milliseconds interval{10'000};
  std::chrono::milliseconds timeout{5'000};
  std::optional<TunnelledProbe> through;  // to a VIP on `address`, rather than to `address`
  friend auto operator<=>(const ProbeSpec&, const ProbeSpec&) = default;
};

struct ProbeError;

// Makes sockets of probes go through tunnels. Called on the prober's thread.
class ProbeTunnels {
 public:
  virtual ~ProbeTunnels() = default;
  // `fd`: a fresh socket, of the family of spec.through->vip. `number`: the probe's, below 2^20, until it is forgotten.
  virtual tl::expected<void, ProbeError> prepare(int fd, std::uint32_t number, const ProbeSpec& spec) = 0;
  virtual void forget(std::uint32_t number) = 0;
};

// Whether `status` is within a ProbeSpec::matcher.
bool status_matches(const std::string& matcher, long status);

struct ProbeResult {
  ProbeVerdict verdict = ProbeVerdict::failed;
  std::string text;  // "connect: Connection refused", "HTTP 503 not in 200-399", "HTTP 200"
  std::chrono::microseconds took{0};
};

class Prober {
 public:
  // Called on the prober's thread; must not block.
  using OnResult = std::function<void(const ProbeSpec&, const ProbeResult&)>;

  // `tunnels` outlive the prober; without any, probes through tunnels cannot be made.
  explicit Prober(OnResult on_result, ProbeTunnels* tunnels = nullptr);
  ~Prober();  // waits for the thread; no callback after it
  Prober(const Prober&) = delete;
  Prober& operator=(const Prober&) = delete;

  // Replaces the whole set. A spec that was there keeps its schedule; a new one is first probed within a tenth of its
  // interval; the result of one that is gone is not reported. Any thread.
  void set_probes(std::vector<ProbeSpec> specs);
  // Probes these now rather than when it is their turn; those in flight and those not in the set are left as they are. Any
  // thread.
  void hasten(const std::vector<ProbeSpec>& specs);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lb::cp
