#include "dp/lb/rate_book.h"

#include <algorithm>

#include "dp/base/compiler.h"

namespace lb {
namespace {

using abi::kRateKinds;
using abi::RateMeter;
using abi::RateSet;

constexpr std::uint32_t kTagMask = abi::kKnownSource - 1;
constexpr std::uint32_t kTicksPerSecond = (1U << (30 - abi::kRateTickShift));  // of 2^30 ns
constexpr std::uint32_t kKnownAfterTicks = 10 * kTicksPerSecond;
constexpr std::uint32_t kKnownForTicks = 600 * kTicksPerSecond;
constexpr std::uint32_t kLookTicks = 64;
constexpr std::uint32_t kFlowsBit = kRateKinds;  // of RateMeter::over
constexpr std::uint32_t kSecondShift = 30;

template <typename T>
T get(const T& word) {
  return __atomic_load_n(&word, __ATOMIC_RELAXED);
}
template <typename T>
void set(T& word, T value) {
  __atomic_store_n(&word, value, __ATOMIC_RELAXED);
}

std::uint32_t tick_of(std::uint64_t now_ns) {
  const auto tick = static_cast<std::uint32_t>(now_ns >> abi::kRateTickShift);
  return tick != 0 ? tick : 1;
}

std::uint32_t tag_of(const Hash128& hash) {
  const auto tag = static_cast<std::uint32_t>(hash.high >> 32) & kTagMask;
  return tag != 0 ? tag : 1;
}

std::uint32_t line_of(const Hash128& hash) {
  static_assert((abi::kRateLines & (abi::kRateLines - 1)) == 0);
  return static_cast<std::uint32_t>(hash.low) & (abi::kRateLines - 1);
}

bool is_of(const RateMeter& meter, const RateSource& source) {
  return get(meter.listener) == source.listener && meter.prefix_length == source.prefix_length &&
         meter.source == source.prefix;
}

// Gives the meter to another source or listener: readers see the one or the other.
template <typename Fill>
void begin(RateMeter& meter, const Fill& fill) {
  const std::uint32_t sequence = meter.sequence + 1;
  const std::uint8_t birth = meter.birth;
  set(meter.sequence, sequence);
  __atomic_thread_fence(__ATOMIC_RELEASE);
  meter = RateMeter{};
  meter.sequence = sequence;
  meter.birth = static_cast<std::uint8_t>(birth + 1);
  fill(meter);
  __atomic_store_n(&meter.sequence, sequence + 1, __ATOMIC_RELEASE);
}

// Whether units that cost so much time would overfill what is promised for the future.
bool is_over(std::uint64_t full_at, std::uint64_t cost_ns, std::uint64_t hold_ns, std::uint64_t now_ns) {
  return std::max(full_at, now_ns) + cost_ns > now_ns + hold_ns;
}

// A listener's own, for sources that are not to have its last half.
std::uint64_t hold_for_strangers(std::uint64_t hold_ns, std::uint64_t cost_ns) {
  return std::max(hold_ns / 2, std::min(cost_ns, hold_ns));
}

std::uint64_t flows_for_strangers(std::uint32_t flows) {
  return flows - flows / 8;
}

}  // namespace

RateBook::RateBook(std::span<const RateTable> all, std::uint32_t worker) : all_(all), mine_(all[worker]), worker_(worker) {}

std::uint32_t RateBook::meter_of(const RateSource& source, std::uint64_t now_ns) {
  const std::uint32_t line_index = line_of(source.hash);
  const std::uint32_t tag = tag_of(source.hash);
  const std::uint32_t tick = tick_of(now_ns);
  abi::RateLine& line = mine_.lines[line_index];
  std::uint32_t victim = 0;
  std::uint64_t best = 0;
  for (std::uint32_t way = 0; way < abi::kRateWays; ++way) {
    const std::uint32_t number = line_index * abi::kRateWays + way;
    const std::uint32_t idle = tick - line.seen[way];
    if ((line.tag[way] & kTagMask) == tag && is_of(mine_.meters[number], source)) {
      if ((line.tag[way] & abi::kKnownSource) != 0 && (line.seen[way] ^ tick) >= kTicksPerSecond)
        note_active(meter_of_listener(source.listener), now_ns);
      set(line.seen[way], tick);
      return number;
    }
    const bool protected_one = (line.tag[way] & abi::kKnownSource) != 0 && idle < kKnownForTicks;
    std::uint64_t worth = std::uint64_t{idle} + 1;  // of taking this place
    if (!protected_one) worth |= std::uint64_t{1} << 33;
    if (line.tag[way] == 0) worth |= std::uint64_t{1} << 34;
    if (worth > best) {
      best = worth;
      victim = way;
    }
  }
  const std::uint32_t number = line_index * abi::kRateWays + victim;
  begin(mine_.meters[number], [&](RateMeter& meter) {
    meter.listener = source.listener;
    meter.source = source.prefix;
    meter.prefix_length = source.prefix_length;
    meter.since = tick;
    set(line.tag[victim], tag);
    set(line.seen[victim], tick);
  });
  return number;
}

// Of another worker, which may be giving it to another source meanwhile: then its numbers are not this source's, and they
// are looked at again soon.
const RateMeter* RateBook::meter_elsewhere(const RateTable& other, const RateSource& source) const {
  const std::uint32_t line = line_of(source.hash);
  const std::uint32_t tag = tag_of(source.hash);
  for (std::uint32_t way = 0; way < abi::kRateWays; ++way) {
    if ((get(other.lines[line].tag[way]) & kTagMask) != tag) continue;
    const RateMeter& meter = other.meters[line * abi::kRateWays + way];
    if ((get(meter.sequence) & 1) == 0 && is_of(meter, source)) return &meter;
  }
  return nullptr;
}

const RateMeter* RateBook::listener_elsewhere(const RateTable& other, std::uint32_t listener) const {
  const RateMeter& meter = other.listeners[abi::counter_index_of(listener)];
  return get(meter.listener) == listener ? &meter : nullptr;
}

// Begun anew if another listener had it.
RateMeter& RateBook::meter_of_listener(std::uint32_t listener) {
  RateMeter& meter = mine_.listeners[abi::counter_index_of(listener)];
  if (meter.listener != listener) begin(meter, [listener](RateMeter& fresh) { fresh.listener = listener; });
  return meter;
}

bool RateBook::is_look_due(const RateMeter& meter, const RateSet& limits, std::uint32_t tick) const {
  if (all_.size() == 1) return false;
  if (meter.looked == 0 || tick - meter.looked >= kLookTicks) return true;
  for (std::uint32_t k = 0; k < kRateKinds; ++k) {
    if (limits.cost[k] == 0) continue;
    const std::uint32_t unseen = meter.used[k] - meter.used_then[k];
    if (rate_cost_ns(limits.cost[k], unseen) * 4 * all_.size() >= limits.hold[k]) return true;
  }
  return false;
}

// Charges a meter with what the other workers have admitted since it was last charged. `source`: nullptr for a listener's.
void RateBook::look_around(RateMeter& meter, const RateSet& limits, const RateSource* source, std::uint64_t now_ns) {
  std::array<std::uint32_t, kRateKinds> others{};
  std::array<std::uint64_t, kRateKinds> latest{};
  for (std::uint32_t w = 0; w < all_.size(); ++w) {
    if (w == worker_) continue;
    const RateMeter* other =
        source == nullptr ? listener_elsewhere(all_[w], meter.listener) : meter_elsewhere(all_[w], *source);
    if (other == nullptr) continue;
    for (std::uint32_t k = 0; k < kRateKinds; ++k) {
      others[k] += get(other->used[k]);
      latest[k] = std::max(latest[k], get(other->full_at[k]));
    }
  }
  for (std::uint32_t k = 0; k < kRateKinds; ++k) {
    if (limits.cost[k] == 0) continue;
    std::uint32_t more = others[k] - meter.others_then[k];
    if (meter.looked == 0 || more > 1U << 31) more = 0;  // one of them has begun anew
    // What two of them knew at once is in both clocks; what neither has told the other yet is in `more`.
    const std::uint64_t charged = meter.full_at[k] + rate_cost_ns(limits.cost[k], more);
    set(meter.full_at[k], std::min(std::max(charged, latest[k]), now_ns + 2 * limits.hold[k]));
    meter.others_then[k] = others[k];
    meter.used_then[k] = meter.used[k];
  }
  meter.looked = tick_of(now_ns);
}

std::uint64_t RateBook::flows_of(const RateMeter& meter, const RateSource* source) const {
  std::uint64_t flows = meter.flows;
  for (std::uint32_t w = 0; w < all_.size(); ++w) {
    if (w == worker_) continue;
    const RateMeter* other =
        source == nullptr ? listener_elsewhere(all_[w], meter.listener) : meter_elsewhere(all_[w], *source);
    if (other != nullptr) flows += get(other->flows);
  }
  return flows;
}

// Another known source of the listener is there in this second.
void RateBook::note_active(RateMeter& listener, std::uint64_t now_ns) {
  const std::uint64_t second = now_ns >> kSecondShift;
  if (listener.share[0] != second) {
    const std::uint64_t before = listener.share[0] + 1 == second ? listener.share[1] & 0xffffffff : 0;
    std::uint64_t total = before;
    for (std::uint32_t w = 0; w < all_.size(); ++w) {
      if (w == worker_) continue;
      const RateMeter* other = listener_elsewhere(all_[w], listener.listener);
      if (other == nullptr) continue;
      const std::uint64_t counts = get(other->share[1]);
      const std::uint64_t at = get(other->share[0]);
      if (at == second) total += counts >> 32;
      if (at + 1 == second) total += counts & 0xffffffff;
    }
    set(listener.share[0], second);
    set(listener.share[1], before << 32);
    listener.share[2] = total;
  }
  set(listener.share[1], listener.share[1] + 1);
  // After a quiet second this one's count alone says how many share.
  listener.share[2] = std::max(listener.share[2], listener.share[1] & 0xffffffff);
}

void RateBook::become_known(const RateMeter& listener, std::uint32_t meter, std::uint32_t tick) {
  abi::RateLine& line = mine_.lines[meter / abi::kRateWays];
  std::uint32_t& tag = line.tag[meter % abi::kRateWays];
  if ((tag & abi::kKnownSource) != 0 || tick - mine_.meters[meter].since < kKnownAfterTicks) return;
  if (listener.since != 0 && tick - listener.since < kKnownAfterTicks) return;  // who comes with the flood stays a stranger
  const auto known = std::ranges::count_if(line.tag, [](std::uint32_t t) { return (t & abi::kKnownSource) != 0; });
  if (known < abi::kMostKnown) set(tag, tag | abi::kKnownSource);
}

RateAnswer RateBook::refuse(RateMeter& source, RateMeter* listener, std::uint32_t kind, std::uint32_t tick) {
  set(source.refused, source.refused + 1);
  set(source.over, static_cast<std::uint8_t>(source.over | 1U << kind));
  if (listener == nullptr) return RateAnswer::source_over;
  set(listener->refused, listener->refused + 1);
  set(listener->over, static_cast<std::uint8_t>(listener->over | 1U << kind));
  set(listener->since, tick);
  return RateAnswer::listener_over;
}

RateAnswer RateBook::take(const abi::RateLimits& limits, const RateSource& source, std::uint32_t number,
                          const RateUnits& units, bool flow, std::uint64_t now_ns) {
  RateMeter& meter = mine_.meters[number];
  RateMeter& whole = meter_of_listener(source.listener);
  const std::uint32_t tick = tick_of(now_ns);
  if (is_look_due(meter, limits.source, tick)) look_around(meter, limits.source, &source, now_ns);
  if (is_look_due(whole, limits.listener, tick)) look_around(whole, limits.listener, nullptr, now_ns);

  std::array<std::uint64_t, kRateKinds> of_source{};
  std::array<std::uint64_t, kRateKinds> of_listener{};
  std::array<std::uint64_t, kRateKinds> of_share{};
  const std::uint64_t sources = std::max<std::uint64_t>(whole.share[2], 1);
  bool preferred = (mine_.lines[number / abi::kRateWays].tag[number % abi::kRateWays] & abi::kKnownSource) != 0;
  for (std::uint32_t k = 0; k < kRateKinds; ++k) {
    if (units[k] == 0) continue;
    of_source[k] = rate_cost_ns(limits.source.cost[k], units[k]);
    of_listener[k] = rate_cost_ns(limits.listener.cost[k], units[k]);
    of_share[k] = of_listener[k] * sources;
    if (of_source[k] != 0 && is_over(meter.full_at[k], of_source[k], limits.source.hold[k], now_ns))
      return refuse(meter, nullptr, k, tick);
    if (of_listener[k] == 0) continue;
    preferred = preferred && !is_over(meter.share[k], of_share[k], std::max(limits.listener.hold[k], of_share[k]), now_ns);
  }
  if (flow && limits.source.flows != 0 && flows_of(meter, &source) >= limits.source.flows)
    return refuse(meter, nullptr, kFlowsBit, tick);
  for (std::uint32_t k = 0; k < kRateKinds; ++k) {
    const std::uint64_t hold = limits.listener.hold[k];
    if (of_listener[k] != 0 &&
        is_over(whole.full_at[k], of_listener[k], preferred ? hold : hold_for_strangers(hold, of_listener[k]), now_ns))
      return refuse(meter, &whole, k, tick);
  }
  const std::uint64_t most = preferred ? limits.listener.flows : flows_for_strangers(limits.listener.flows);
  if (flow && limits.listener.flows != 0 && flows_of(whole, nullptr) >= most) return refuse(meter, &whole, kFlowsBit, tick);

  for (std::uint32_t k = 0; k < kRateKinds; ++k) {
    if (of_source[k] != 0) set(meter.full_at[k], std::max(meter.full_at[k], now_ns) + of_source[k]);
    if (of_listener[k] != 0) set(whole.full_at[k], std::max(whole.full_at[k], now_ns) + of_listener[k]);
    if (of_share[k] != 0 && preferred) meter.share[k] = std::max(meter.share[k], now_ns) + of_share[k];
    set(meter.used[k], meter.used[k] + units[k]);
    set(whole.used[k], whole.used[k] + units[k]);
  }
  become_known(whole, number, tick);
  return RateAnswer::pass;
}

void RateBook::add_flow(std::uint32_t listener, std::uint32_t meter) {
  set(mine_.meters[meter].flows, mine_.meters[meter].flows + 1);
  RateMeter& whole = meter_of_listener(listener);
  set(whole.flows, whole.flows + 1);
}

void RateBook::remove_flow(std::uint32_t listener, std::uint32_t meter, std::uint8_t birth) {
  RateMeter& whole = mine_.listeners[abi::counter_index_of(listener)];
  if (whole.listener == listener && whole.flows != 0) set(whole.flows, whole.flows - 1);
  RateMeter& of_source = mine_.meters[meter];
  if (of_source.birth == birth && of_source.flows != 0) set(of_source.flows, of_source.flows - 1);
}

}  // namespace lb
