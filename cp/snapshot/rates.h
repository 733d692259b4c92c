// Rate limits as the data plane computes with them (dp/abi/rates.h).
#pragma once

#include "cp/model/model.h"
#include "dp/abi/rates.h"

namespace lb::cp {

abi::RateLimits compile_rates(const RateLimits& limits);

}  // namespace lb::cp
