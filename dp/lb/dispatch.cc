#include "dp/lb/dispatch.h"

#include <array>
#include <cstdlib>

namespace lb {

std::span<const Kernel* const> kernels() {
  static constexpr std::array<const Kernel*, 3> kAll = {&kKernelV4, &kKernelV3, &kKernelV2};
  return kAll;
}

tl::expected<const Kernel*, std::string> choose_kernel(std::string_view wanted) {
  for (const Kernel* kernel : kernels()) {
    if (!wanted.empty() && wanted != kernel->name) continue;
    if (kernel->supported()) return kernel;
    if (!wanted.empty()) return tl::unexpected("LB_MARCH=" + std::string(wanted) + ": this CPU lacks its instructions");
  }
  return tl::unexpected("LB_MARCH=" + std::string(wanted) + ": want v2, v3 or v4");
}

const tl::expected<const Kernel*, std::string>& chosen_kernel() {
  static const auto chosen = [] {
    const char* wanted = std::getenv("LB_MARCH");
    return choose_kernel(wanted != nullptr ? wanted : "");
  }();
  return chosen;
}

}  // namespace lb
