// What differs between two configurations, for `lbctl diff`, `apply` and the event log.
#pragma once

#include <vector>

#include "cp/model/live.h"
#include "cp/model/model.h"

namespace lb::cp {

// In the order config, vips, listeners, target groups (each followed by its targets), static neighbours; within one list
// removed objects by name, then the others by name. Added or removed objects are one Change each, without their fields; the
// targets of an added or removed group are told one by one. Order in the files does not matter. Empty: the configurations
// mean the same.
std::vector<Change> diff(const Config& from, const Config& to);

}  // namespace lb::cp
