#include "cp/snapshot/maglev.h"

#include <algorithm>
#include <array>
#include <bit>
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
// the largest quota; within a round by index. order.size() is the sum of the quotas. A counting sort, so the cost does not
// depend on how unequal the quotas are.
void turns(std::span<const std::uint32_t> quotas, std::vector<std::uint16_t>& order) {
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
  for_each_turn(
      [&](std::size_t target, std::uint64_t round) { order[place[round]++] = static_cast<std::uint16_t>(target); });
}

// The slots of one table while they are taken, turn by turn.
class Filler {
 public:
  Filler(std::span<const MaglevWalk> walks, std::span<std::uint16_t> slots)
      : slot_count_(static_cast<std::uint32_t>(slots.size())), slots_(slots) {
    free_.assign(slots.size() + 8, 1);
    walkers_.reserve(walks.size());
    for (const MaglevWalk& walk : walks) {
      const std::uint32_t two_skips = 2 * walk.skip % slot_count_;
      walkers_.push_back({walk.offset, walk.skip, two_skips, 2 * two_skips % slot_count_});
    }
  }

  void take(std::span<const std::uint16_t> order) {
    const std::size_t last = std::min(kLastTurns, order.size());
    const std::size_t half = std::min(slots_.size() / 2, order.size() - last);
    take_next<4>(order.first(half));
    take_next<8>(order.subspan(half, order.size() - last - half));
    take_last(order.last(last));
  }

 private:
  // When few slots are free a walk finds one after thousands of steps. So for the last turns it is asked the other way
  // round: which of the free slots comes first on the walk?
  void take_last(std::span<const std::uint16_t> order) {
    std::vector<std::uint32_t> free = free_slots();
    std::vector<std::uint64_t> inverses(walkers_.size());
    const double per_slot = 1.0 / slot_count_;
    for (const std::uint16_t target : order) {
      const Walker& walker = walkers_[target];
      if (inverses[target] == 0) inverses[target] = inverse(walker.skip, slot_count_);
      std::size_t next = 0;
      std::uint64_t least = slot_count_;
      for (std::size_t i = 0; i < free.size(); ++i) {
        // The walk reaches the slot after (slot - offset) / skip steps, modulo the prime; the product is below 2^49, so the
        // quotient is at most one off.
        const std::uint64_t product = (std::uint64_t{free[i]} + slot_count_ - walker.offset) * inverses[target];
        std::int64_t steps = static_cast<std::int64_t>(product) -
                             static_cast<std::int64_t>(static_cast<double>(product) * per_slot) * slot_count_;
        steps += steps < 0 ? slot_count_ : steps >= slot_count_ ? -std::int64_t{slot_count_} : 0;
        if (static_cast<std::uint64_t>(steps) >= least) continue;
        least = static_cast<std::uint64_t>(steps);
        next = i;
      }
      slots_[free[next]] = target;
      free[next] = free.back();
      free.pop_back();
    }
  }

  static constexpr std::size_t kLastTurns = 128;

  struct Walker {
    std::uint32_t offset, skip, two_skips, four_skips;  // modulo the number of slots; offset moves along the walk
  };

  // The first free slot of the walk becomes the target's. kAtOnce steps are looked at together: none of them waits for the
  // one before, and the CPU need not guess which it will be. A byte a slot, since neighbours in a word would wait for each
  // other's writes.
  template <std::uint32_t kAtOnce>
  void take_next(std::span<const std::uint16_t> order) {
    const std::uint32_t slot_count = slot_count_;
    std::uint8_t* const free = free_.data();
    std::uint16_t* const slots = slots_.data();
    Walker* const walkers = walkers_.data();
    const auto after = [slot_count](std::uint32_t slot, std::uint32_t by) {
      const std::uint32_t sum = slot + by;
      return std::min(sum, sum - slot_count);  // what is below 0 is a large number
    };
    for (const std::uint16_t target : order) {
      Walker& walker = walkers[target];
      std::array<std::uint32_t, kAtOnce> on_walk;
      on_walk[0] = walker.offset;
      while (true) {
        on_walk[1] = after(on_walk[0], walker.skip);
        on_walk[2] = after(on_walk[0], walker.two_skips);
        on_walk[3] = after(on_walk[1], walker.two_skips);
        std::uint32_t found = free[on_walk[0]] | free[on_walk[1]] << 1 | free[on_walk[2]] << 2 | free[on_walk[3]] << 3;
        if constexpr (kAtOnce == 8) {
#pragma GCC unroll 4
          for (std::size_t i = 0; i < 4; ++i) {
            on_walk[i + 4] = after(on_walk[i], walker.four_skips);
            found |= std::uint32_t{free[on_walk[i + 4]]} << (i + 4);
          }
        }
        if (found == 0) {
          on_walk[0] = after(on_walk[kAtOnce - 4], walker.four_skips);
          continue;
        }
        const std::uint32_t slot = on_walk[static_cast<std::size_t>(std::countr_zero(found))];
        free[slot] = 0;
        slots[slot] = target;
        walker.offset = after(slot, walker.skip);
        break;
      }
    }
  }

  [[nodiscard]] std::vector<std::uint32_t> free_slots() const {
    std::vector<std::uint32_t> free;
    free.reserve(kLastTurns);
    for (std::uint32_t first = 0; first < slot_count_; first += 8) {
      std::uint64_t eight = 0;
      std::memcpy(&eight, free_.data() + first, sizeof eight);  // there are eight more bytes than slots
      if (eight == 0) continue;
      for (std::uint32_t slot = first; slot < std::min(first + 8, slot_count_); ++slot) {
        if (free_[slot] != 0) free.push_back(slot);
      }
    }
    return free;
  }

  const std::uint32_t slot_count_;
  const std::span<std::uint16_t> slots_;
  static thread_local std::vector<std::uint8_t> free_;  // 1: free. Fresh memory would cost as much as the walks
  std::vector<Walker> walkers_;
};

thread_local std::vector<std::uint8_t> Filler::free_;

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
  thread_local std::vector<std::uint16_t> order;  // kept: fresh memory would cost more than the sort
  order.resize(slots.size());
  turns(quotas, order);
  Filler(walks, slots).take(order);
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
