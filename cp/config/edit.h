// Single changes of a configuration, without a file.
#pragma once

#include <string>
#include <tl/expected.hpp>

#include "cp/model/edit.h"
#include "cp/model/live.h"
#include "cp/model/model.h"

namespace lb::cp {

// The configuration after `change`. Error: a violation with the field of the change (not of a file) and what is wrong with
// it. What needs the whole configuration to be judged (ports that clash, address families) is left to load().
tl::expected<Config, Violation> edit(Config config, const Edit& change);

// "target add blue 10.77.2.2:80": what is done, for messages and the history.
std::string describe(const Edit& change);

}  // namespace lb::cp
