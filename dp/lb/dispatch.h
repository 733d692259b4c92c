// Which build of the packet path this process runs: the best the CPU has, or what LB_MARCH=v2|v3|v4 in the environment asks
// for.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "dp/lb/kernel.h"

namespace lb {

// All builds, best first.
[[nodiscard]] std::span<const Kernel* const> kernels();

// `wanted`: "" for the best. Errors: an unknown name, or one this CPU lacks instructions for.
[[nodiscard]] tl::expected<const Kernel*, std::string> choose_kernel(std::string_view wanted);

// The choice by the environment, made at the first call; what main() reports. Errors as choose_kernel().
[[nodiscard]] const tl::expected<const Kernel*, std::string>& chosen_kernel();

}  // namespace lb
