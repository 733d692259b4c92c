// How much of what is in force a change of configuration would take away.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cp/model/live.h"
#include "cp/model/model.h"

namespace lb::cp {

inline constexpr std::size_t kMaxRemovedPercent = 10;  // of the VIPs, and of the targets of all groups

// nullopt: at most kMaxRemovedPercent of each go. Else what would go, as a sentence. `changes` is diff(from, …).
std::optional<std::string> removes_too_much(const Config& from, const std::vector<Change>& changes);

}  // namespace lb::cp
