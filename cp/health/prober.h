// Active health probes: who is probed, how often, and what came back. One thread, libcurl's multi interface over epoll,
// at most kMaxProbesInFlight at a time; the rest wait their turn, oldest first.
//
//   set_probes(specs) ──▶ due heap ──▶ connect / GET ──▶ result callback (on the prober's thread)
//
// A probe is named by what it does (ProbeSpec), not by who wants it: groups that check the same address in the same way
// share one. Each probe runs on a connection of its own, closed after it. No proxies, no redirects, HTTP/1.1.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cp/health/rise_fall.h"
#include "cp/model/model.h"

namespace lb::cp {

inline constexpr std::size_t kMaxProbesInFlight = 4096;

struct ProbeSpec {
  ProbeProtocol protocol = ProbeProtocol::tcp;  // tcp or http
  abi::IpAddress address;
  std::uint16_t port = 0;  // 1-65535
  std::string path;        // http only, else empty
  std::string host;        // http only; empty: the address
  std::string matcher;     // http only, "200-399,401": matcher_text()
  std::chrono::milliseconds interval{10'000};
  std::chrono::milliseconds timeout{5'000};
  friend auto operator<=>(const ProbeSpec&, const ProbeSpec&) = default;
};

// "200-399,404", the form of ProbeSpec::matcher.
std::string matcher_text(const std::vector<StatusRange>& matcher);
// Whether `status` is within a matcher_text().
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

  explicit Prober(OnResult on_result);
  ~Prober();  // waits for the thread; no callback after it
  Prober(const Prober&) = delete;
  Prober& operator=(const Prober&) = delete;

  // Replaces the whole set. A spec that was there keeps its schedule; a new one is first probed within a tenth of its
  // interval; the result of one that is gone is not reported. Any thread.
  void set_probes(std::vector<ProbeSpec> specs);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lb::cp
