// The page that Prometheus scrapes: GET /metrics. Names, units and help come from the one list of counters
// (dp/abi/counters.h): lb_<counter>_total, and lb_dropped_packets_total{reason="…"}; the rest from one LiveState.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tl/expected.hpp>

#include "cp/model/live.h"
#include "cp/stats/stats_reader.h"

namespace lb::cp {

// What one scrape shows.
struct MetricsInput {
  std::shared_ptr<const LiveState> live;  // nullptr: shutting down
  CounterTotals totals{};
  double last_apply_seconds = 0;                // from the change to every worker forwarding by it; 0: none yet
  std::map<std::string, std::uint64_t> probes;  // probes by verdict
  std::map<std::string, double> peak_rates;     // packets a second by listener: PeakRates
};

class MetricsServer {
 public:
  // Called on threads of the server, one scrape at a time.
  using Source = std::function<MetricsInput()>;

  // `address`: "127.0.0.1:9700", "[::1]:9700"; port 0 takes a free one. Error: it cannot be listened on.
  static tl::expected<std::unique_ptr<MetricsServer>, std::string> open(const std::string& address, Source source);
  ~MetricsServer();  // after it, no call of the source
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;

  [[nodiscard]] std::uint16_t port() const;

 private:
  struct Impl;
  explicit MetricsServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace lb::cp
