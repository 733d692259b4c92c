#include "cp/snapshot/maglev.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

namespace lb::cp {
namespace {

// Finalizer of MurmurHash3: every input bit reaches every output bit.
constexpr std::uint64_t mixed(std::uint64_t h) {
  h = (h ^ (h >> 33)) * 0xff51afd7ed558ccdULL;
  h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53ULL;
  return h ^ (h >> 33);
}

constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15ULL;

std::uint64_t add_bytes(std::uint64_t hash, std::span<const std::uint8_t> bytes) {
  hash = mixed(hash ^ (bytes.size() * kGolden));
  for (std::size_t at = 0; at < bytes.size(); at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, std::min<std::size_t>(8, bytes.size() - at));
    hash = mixed(hash ^ word) + kGolden;
  }
  return hash;
}

// When few slots are free a walk finds one after thousands of steps. So for the last turns it is asked the other way round:
// which of the free slots comes first on the walk?
constexpr std::size_t kLastTurns = 128;

// 1 / value modulo a prime, 0 < value < prime: the extended Euclidean algorithm.
std::uint64_t inverse(std::uint32_t value, std::uint32_t prime) {
  std::int64_t factor = 0;
  std::int64_t next_factor = 1;
  std::int64_t rest = prime;
  std::int64_t next_rest = value;
  while (next_rest != 0) {
    const std::int64_t quotient = rest / next_rest;
    factor = std::exchange(next_factor, factor - quotient * next_factor);
    rest = std::exchange(next_rest, rest - quotient * next_rest);
  }
  return static_cast<std::uint64_t>(factor < 0 ? factor + prime : factor);
}

// Whose turn it is, slot by slot. The k-th turn of a target with quota q comes in round floor(k · rounds / q), rounds being
// the largest quota; within a round by index. A counting sort, so the cost does not depend on how unequal the quotas are.
std::vector<std::uint16_t> turns(std::span<const std::uint32_t> quotas, std::size_t slot_count) {
  const std::uint64_t rounds = *std::max_element(quotas.begin(), quotas.end());
  const auto for_each_turn = [&](auto&& act) {
    for (std::size_t target = 0; target < quotas.size(); ++target) {
      const std::uint64_t quota = quotas[target];
      if (quota == 0) continue;
      const std::uint64_t step = rounds / quota;
      const std::uint64_t step_remainder = rounds % quota;
      std::uint64_t round = 0;
      std::uint64_t remainder = 0;
      for (std::uint64_t k = 0; k < quota; ++k) {
        act(target, round);
        round += step;
        remainder += step_remainder;
        if (remainder >= quota) {
          remainder -= quota;
          ++round;
        }
      }
    }
  };
  std::vector<std::uint32_t> place(rounds + 1);  // where a round's next turn goes
  for_each_turn([&](std::size_t, std::uint64_t round) { ++place[round + 1]; });
  std::partial_sum(place.begin(), place.end(), place.begin());
  std::vector<std::uint16_t> order(slot_count);
  for_each_turn(
      [&](std::size_t target, std::uint64_t round) { order[place[round]++] = static_cast<std::uint16_t>(target); });
  return order;
}

}  // namespace

TargetIdentities::TargetIdentities(const std::string& group)
    : group_(add_bytes(0x6c625f7461726765ULL, {reinterpret_cast<const std::uint8_t*>(group.data()), group.size()})) {}

std::uint64_t TargetIdentities::of(const abi::IpAddress& address, std::uint16_t port) const {
  return mixed(add_bytes(group_, address.bytes) ^ port);
}

std::uint64_t target_identity(const TargetKey& key) {
  return TargetIdentities(key.group).of(key.address, key.port);
}

MaglevWalk maglev_walk(std::uint64_t identity, std::uint64_t fleet_seed, std::uint32_t slot_count) {
  const std::uint64_t first = mixed(identity ^ mixed(fleet_seed + kGolden));
  const std::uint64_t second = mixed(first + kGolden);
  return {static_cast<std::uint32_t>(first % slot_count), static_cast<std::uint32_t>(second % (slot_count - 1) + 1)};
}

std::vector<std::uint32_t> maglev_quotas(std::span<const std::uint32_t> weights, std::uint32_t slot_count) {
  std::vector<std::uint32_t> quotas(weights.size());
  std::uint64_t total = std::accumulate(weights.begin(), weights.end(), std::uint64_t{0});
  std::uint64_t left = slot_count;
  // One slot for each weight whose share is below one; the shares of the rest shrink, so look again until none is new.
  for (bool again = weights.size() <= slot_count; again;) {
    again = false;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      if (quotas[i] != 0 || left * weights[i] >= total) continue;
      quotas[i] = 1;
      total -= weights[i];
      --left;
      again = true;
    }
  }

  std::vector<std::pair<std::uint64_t, std::size_t>> remainders;
  remainders.reserve(weights.size());
  std::uint64_t given = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (quotas[i] != 0) continue;
    const std::uint64_t exact = left * weights[i];  // ≤ 2^24 · 2^16
    quotas[i] = static_cast<std::uint32_t>(exact / total);
    given += quotas[i];
    remainders.emplace_back(exact % total, i);
  }
  std::stable_sort(remainders.begin(), remainders.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  for (std::size_t i = 0; given < left; ++i, ++given) ++quotas[remainders[i].second];
  return quotas;
}

void fill_maglev(std::span<const MaglevWalk> walks, std::span<const std::uint32_t> quotas, std::span<std::uint16_t> slots) {
  const auto slot_count = static_cast<std::uint32_t>(slots.size());
  std::vector<MaglevWalk> at(walks.begin(), walks.end());  // offset moves along the walk
  std::vector<std::uint64_t> taken((slots.size() + 63) / 64);
  const auto is_taken = [&](std::uint32_t slot) { return (taken[slot >> 6] >> (slot & 63) & 1) != 0; };
  const std::vector<std::uint16_t> order = turns(quotas, slots.size());
  const std::size_t last_turns = std::min(kLastTurns, order.size());
  for (const std::uint16_t target : std::span(order).first(order.size() - last_turns)) {
    const std::uint32_t skip = at[target].skip;
    std::uint32_t slot = at[target].offset;
    const auto advance = [&] {
      slot += skip;
      slot = slot >= slot_count ? slot - slot_count : slot;
    };
    while (is_taken(slot)) advance();
    taken[slot >> 6] |= std::uint64_t{1} << (slot & 63);
    slots[slot] = target;
    advance();
    at[target].offset = slot;
  }

  std::vector<std::uint32_t> free;
  for (std::uint32_t slot = 0; slot < slot_count; ++slot) {
    if (!is_taken(slot)) free.push_back(slot);
  }
  std::vector<std::uint64_t> inverses(at.size());
  for (const std::uint16_t target : std::span(order).last(last_turns)) {
    if (inverses[target] == 0) inverses[target] = inverse(at[target].skip, slot_count);
    // The walk reaches `slot` after (slot - offset) / skip steps, modulo the prime.
    const auto steps = [&](std::uint32_t slot) {
      return (std::uint64_t{slot} + slot_count - at[target].offset) * inverses[target] % slot_count;
    };
    const auto next = std::ranges::min_element(free, {}, steps);
    slots[*next] = target;
    *next = free.back();
    free.pop_back();
  }
}

void build_maglev(std::span<const MaglevTarget> targets, std::uint64_t fleet_seed, std::span<std::uint16_t> slots) {
  std::vector<MaglevWalk> walks;
  std::vector<std::uint32_t> weights;
  walks.reserve(targets.size());
  weights.reserve(targets.size());
  for (const MaglevTarget& target : targets) {
    walks.push_back(maglev_walk(target.identity, fleet_seed, static_cast<std::uint32_t>(slots.size())));
    weights.push_back(target.weight);
  }
  fill_maglev(walks, maglev_quotas(weights, static_cast<std::uint32_t>(slots.size())), slots);
}

std::uint64_t maglev_hash(std::span<const MaglevTarget> targets, std::span<const std::uint16_t> slots) {
  std::vector<std::uint64_t> identities;
  identities.reserve(targets.size());
  for (const MaglevTarget& target : targets) identities.push_back(mixed(target.identity + kGolden));
  std::uint64_t sum = 0;
  std::uint64_t place = slots.size() * kGolden;  // an odd factor per slot: a swap of two slots shows
  for (const std::uint16_t slot : slots) {
    sum += identities[slot] * (place | 1);
    place += kGolden;
  }
  return mixed(sum);
}

}  // namespace lb::cp
