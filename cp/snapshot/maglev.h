// Weighted Maglev tables (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, §3.4).
//
//   target t walks the slots in an order of its own:  offset[t], offset[t] + skip[t], offset[t] + 2·skip[t], …  (mod M)
//   in turn, each takes the first slot of its walk that is still free, until it has its quota:
//
//   M = 7, (offset, skip) = (3,4) (0,2) (3,1)      turn   1  2  3 │ 1  2  3 │ 1
//   slots   [1][0][1][0][2][2][0]                  takes  3  0  4 │ 1* 2  5 │ 6       * after walking over taken slots
//
// A table depends on sorted target identity, weight and the fleet seed alone: every node and every restart builds the same
// bytes. Weights are shares by quota, fixed before the first turn, and a target of smaller quota takes its turns evenly
// spread among those of the largest, so that a change of one target moves few slots of the others.
//
// Cost: about M·ln M steps, each an addition, a comparison and a bit test (no modulo); 65,537 slots × 1,000 targets
// in 1.0–1.3 ms.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cp/model/model.h"

namespace lb::cp {

// Who takes slots. Walks follow from identity and seed.
struct MaglevTarget {
  std::uint64_t identity = 0;
  std::uint32_t weight = 1;  // 1-65535, kRampSteps times that where one ramps
  friend auto operator<=>(const MaglevTarget&, const MaglevTarget&) = default;
};

// A target's walk over the slots.
struct MaglevWalk {
  std::uint32_t offset = 0;  // 0 … M-1
  std::uint32_t skip = 1;    // 1 … M-1
};

// Hash of (group name, address, port): equal on every node and after every restart.
[[nodiscard]] std::uint64_t target_identity(const TargetKey& key);

// The same for many targets of one group, whose name is hashed once.
class TargetIdentities {
 public:
  explicit TargetIdentities(const std::string& group);
  [[nodiscard]] std::uint64_t of(const abi::IpAddress& address, std::uint16_t port) const;

 private:
  std::uint64_t group_;
};

[[nodiscard]] MaglevWalk maglev_walk(std::uint64_t identity, std::uint64_t fleet_seed, std::uint32_t slot_count);

// How many slots each weight gets; sums up to slot_count. Largest remainder: every quota is within one slot of the exact
// share, except that no positive weight gets none as long as there is a slot for each (what that costs is taken from the
// others in proportion). Ties go to the earlier one. weights: at least one, each above 0.
[[nodiscard]] std::vector<std::uint32_t> maglev_quotas(std::span<const std::uint32_t> weights, std::uint32_t slot_count);

// Fills `slots` with indices into walks and quotas. slots.size() is prime, quotas sum up to it, fewer than 65,536 walks.
void fill_maglev(std::span<const MaglevWalk> walks, std::span<const std::uint32_t> quotas, std::span<std::uint16_t> slots);

// All of it. `targets` sorted by identity; their indices are the slots' values.
void build_maglev(std::span<const MaglevTarget> targets, std::uint64_t fleet_seed, std::span<std::uint16_t> slots);

// Of the slots by identity: equal tables of two nodes have equal hashes, whatever ids and indices they use.
[[nodiscard]] std::uint64_t maglev_hash(std::span<const MaglevTarget> targets, std::span<const std::uint16_t> slots);

}  // namespace lb::cp
