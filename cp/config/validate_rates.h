// A listener's rate limits, and their translation into the model.
#pragma once

#include <string>

#include "cp/config/validate.h"
#include "cp/model/model.h"

namespace lb::config {
class Listener;
}

namespace lb::cp {

// `path`: listeners[N].rate_limits, which are there.
RateLimits validate_rates(const lb::config::Listener& listener, const std::string& path, const Judgements& judgements);

}  // namespace lb::cp
