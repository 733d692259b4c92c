// The rules of a configuration that take more than one field to judge, and its translation into the model.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "cp/model/model.h"

namespace lb::config {
class Config;
}

namespace lb::cp {

// What a snapshot can hold (dp/abi/snapshot.h has the same numbers; a test compares them).
inline constexpr std::uint32_t kMaxTargets = 1U << 20;
inline constexpr std::uint32_t kMaxListeners = 1U << 16;  // TCP_UDP counts twice

// Where judgements go: field path and text.
struct Judgements {
  std::function<void(std::string field, std::string text)> violation;
  std::function<void(std::string field, std::string text)> warning;
};

// Defaults filled in. What comes back is of use only when no violation was told here or while the file was read: fields the
// reader refused are unset.
Config validate(const lb::config::Config& file, const Judgements& judgements);

}  // namespace lb::cp
