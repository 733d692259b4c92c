// Rate limits as the data plane computes with them (dp/abi/rates.h).
#pragma once

#include "cp/model/model.h"
#include "dp/abi/rates.h"
#include "dp/abi/snapshot.h"

namespace lb::cp {

abi::RateLimits compile_rates(const RateLimits& limits, std::uint16_t identity = 0);

// What RateLimits::identity is made of: all that makes a listener the same one.
std::uint16_t rate_identity(const Listener& listener, const abi::Vip& vip);

}  // namespace lb::cp
