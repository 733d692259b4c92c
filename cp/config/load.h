// lb.yaml → Config: text → YAML tree with lines → protobuf message (proto/config.proto) → checked model.
//
// Everything wrong is told in one go, as file, line, field path and what is allowed there, ordered by line. A file with a
// violation gives no Config; warnings do not stop anything.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>
#include <vector>

#include "cp/model/live.h"
#include "cp/model/model.h"

namespace lb::cp {

inline constexpr std::size_t kMaxViolations = 1000;  // then one more that says so

struct LoadResult {
  std::optional<Config> config;       // present exactly when there is no violation
  std::vector<Violation> violations;  // by line
  std::vector<Violation> warnings;    // by line
};

// `file` is the name shown in violations; nothing is read from disk. Never throws on bad input.
LoadResult load(std::string_view text, std::string_view file);

}  // namespace lb::cp
