#include "cp/config/removal.h"

#include <algorithm>
#include <string_view>

namespace lb::cp {

std::optional<std::string> removes_too_much(const Config& from, const std::vector<Change>& changes) {
  const auto removed = [&](std::string_view kind) {
    return static_cast<std::size_t>(std::ranges::count_if(
        changes, [&](const Change& change) { return change.kind == "remove" && change.object.starts_with(kind); }));
  };
  std::size_t targets = 0;
  for (const TargetGroup& group : from.groups) targets += group.targets.size();
  const auto judge = [](std::size_t gone, std::size_t all, const char* what) -> std::optional<std::string> {
    if (gone * 100 <= all * kMaxRemovedPercent) return std::nullopt;
    return "it removes " + std::to_string(gone) + " of " + std::to_string(all) + " " + what + ", more than " +
           std::to_string(kMaxRemovedPercent) + " %";
  };
  if (auto vips = judge(removed("vip "), from.vips.size(), "VIPs")) return vips;
  return judge(removed("target "), targets, "targets");
}

}  // namespace lb::cp
