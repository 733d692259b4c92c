// What a snapshot's listeners say of their guards: part of the checks of Snapshot::open().
#pragma once

#include <cstddef>
#include <span>

#include "dp/abi/rates.h"
#include "dp/abi/snapshot.h"
#include "dp/lb/snapshot_checks.h"

namespace lb {

// `security_groups`: how many there are.
Check check_guards(std::span<const abi::Listener> listeners, std::size_t security_groups,
                   std::span<const abi::RateLimits> rate_limits);

}  // namespace lb
