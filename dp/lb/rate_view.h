// Reads the meters of all workers (dp/abi/rates.h) while they write: for `why` and the list of offenders. Any thread, any
// process.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "dp/abi/rates.h"
#include "dp/lb/rate_book.h"

namespace lb {

using abi::RateView;

// Of all workers together.
struct RateStanding {
  std::uint32_t listener = 0;  // abi::rate_listener()
  abi::IpAddress prefix;
  std::uint8_t prefix_length = 0;
  bool known = false;
  std::uint8_t over = 0;  // RateMeter::over
  std::uint64_t refused = 0;
  std::uint64_t flows = 0;
  std::uint64_t idle_ns = 0;  // since its last packet
  std::array<std::uint64_t, abi::kRateKinds> full_at{};
};

// Every source that has a meter, in no order.
std::vector<RateStanding> rate_sources(std::span<const RateView> views, std::uint64_t now_ns);

// One source; nullopt: it has no meter. A listener as a whole, by abi::rate_listener().
std::optional<RateStanding> rate_standing(std::span<const RateView> views, const RateSource& source, std::uint64_t now_ns);
std::optional<RateStanding> rate_standing(std::span<const RateView> views, std::uint32_t listener);

// What a new flow would be over now: "new_flows_per_second", "concurrent_flows", or empty.
std::string_view over_limit(const abi::RateSet& set, const RateStanding& standing, std::uint64_t now_ns);

// Names of the limits in RateMeter::over, by bit.
inline constexpr std::array<std::string_view, abi::kRateKinds + 1> kRateLimitNames = {
    "new_flows_per_second", "packets_per_second", "bytes_per_second", "concurrent_flows"};

}  // namespace lb
