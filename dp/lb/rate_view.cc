#include "dp/lb/rate_view.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <tuple>

namespace lb {
namespace {

constexpr int kTries = 4;

// Word by word: the worker goes on writing.
void copy_words(const abi::RateMeter& from, abi::RateMeter& to) {
  std::array<std::uint32_t, sizeof(abi::RateMeter) / sizeof(std::uint32_t)> words;
  const auto* source = reinterpret_cast<const std::uint32_t*>(&from);
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = __atomic_load_n(source + i, __ATOMIC_RELAXED);
  std::memcpy(static_cast<void*>(&to), words.data(), sizeof to);
}

// False: it is being given to another source.
bool read_meter(const abi::RateMeter& from, abi::RateMeter& to) {
  for (int n = 0; n < kTries; ++n) {
    const std::uint32_t before = __atomic_load_n(&from.sequence, __ATOMIC_ACQUIRE);
    copy_words(from, to);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if ((before & 1) == 0 && __atomic_load_n(&from.sequence, __ATOMIC_RELAXED) == before) return true;
  }
  return false;
}

std::uint64_t idle_ns(std::uint32_t seen, std::uint64_t now_ns) {
  const auto now = static_cast<std::uint32_t>(now_ns >> abi::kRateTickShift);
  const std::uint32_t idle = now - seen;
  return idle > 1U << 31 ? 0 : std::uint64_t{idle} << abi::kRateTickShift;  // seen after this was asked
}

void add(RateStanding& sum, const abi::RateMeter& meter) {
  sum.over |= meter.over;
  sum.refused += meter.refused;
  sum.flows += meter.flows;
  for (std::uint32_t k = 0; k < abi::kRateKinds; ++k) sum.full_at[k] = std::max(sum.full_at[k], meter.full_at[k]);
}

template <typename Visit>
void for_each_meter(const RateView& view, const Visit& visit) {
  for (std::size_t line = 0; line < view.lines.size(); ++line) {
    for (std::uint32_t way = 0; way < abi::kRateWays; ++way) {
      const std::uint32_t tag = __atomic_load_n(&view.lines[line].tag[way], __ATOMIC_RELAXED);
      abi::RateMeter meter;
      if (tag == 0 || !read_meter(view.meters[line * abi::kRateWays + way], meter)) continue;
      visit(meter, tag, __atomic_load_n(&view.lines[line].seen[way], __ATOMIC_RELAXED));
    }
  }
}

}  // namespace

std::vector<RateStanding> rate_sources(std::span<const RateView> views, std::uint64_t now_ns) {
  using Key = std::tuple<std::uint32_t, abi::IpAddress, std::uint8_t>;
  std::map<Key, RateStanding> found;
  for (const RateView& view : views) {
    for_each_meter(view, [&](const abi::RateMeter& meter, std::uint32_t tag, std::uint32_t seen) {
      const auto [at, is_new] = found.try_emplace(Key(meter.listener, meter.source, meter.prefix_length));
      RateStanding& sum = at->second;
      const std::uint64_t idle = idle_ns(seen, now_ns);
      sum.idle_ns = is_new ? idle : std::min(sum.idle_ns, idle);
      sum.known = sum.known || (tag & abi::kKnownSource) != 0;
      std::tie(sum.listener, sum.prefix, sum.prefix_length) = at->first;
      add(sum, meter);
    });
  }
  std::vector<RateStanding> all;
  all.reserve(found.size());
  for (auto& [key, standing] : found) all.push_back(standing);
  return all;
}

std::optional<RateStanding> rate_standing(std::span<const RateView> views, const RateSource& source, std::uint64_t now_ns) {
  for (const RateStanding& standing : rate_sources(views, now_ns)) {
    if (standing.listener == source.listener && standing.prefix == source.prefix &&
        standing.prefix_length == source.prefix_length)
      return standing;
  }
  return std::nullopt;
}

std::optional<RateStanding> rate_standing(std::span<const RateView> views, std::uint32_t listener) {
  std::optional<RateStanding> sum;
  for (const RateView& view : views) {
    abi::RateMeter meter;
    const std::uint32_t index = abi::counter_index_of(listener);
    if (index >= view.listeners.size() || !read_meter(view.listeners[index], meter) || meter.listener != listener) continue;
    if (!sum) sum = RateStanding{.listener = listener};
    add(*sum, meter);
  }
  return sum;
}

std::string_view over_limit(const abi::RateSet& set, const RateStanding& standing, std::uint64_t now_ns) {
  const std::uint64_t cost = rate_cost_ns(set.cost[0], 1);
  if (cost != 0 && std::max(standing.full_at[0], now_ns) + cost > now_ns + set.hold[0]) return kRateLimitNames[0];
  return set.flows != 0 && standing.flows >= set.flows ? kRateLimitNames[abi::kRateKinds] : std::string_view();
}

}  // namespace lb
