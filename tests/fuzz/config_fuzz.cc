// Any bytes as a configuration file: load() answers with violations or a Config, never otherwise. What it accepts, render()
// writes so that load() reads the same Config again, and diff() finds nothing between the two.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "cp/config/diff.h"
#include "cp/config/load.h"
#include "cp/config/render.h"

namespace {

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const lb::cp::LoadResult result = lb::cp::load({reinterpret_cast<const char*>(data), size}, "fuzz.yaml");
  require(result.config.has_value() == result.violations.empty(), "a Config exactly when there is no violation");
  for (const lb::cp::Violation& violation : result.violations)
    require(!violation.text.empty(), "a violation says something");
  if (!result.config) return 0;
  const std::string text = lb::cp::render(*result.config);
  const lb::cp::LoadResult again = lb::cp::load(text, "rendered.yaml");
  require(again.config.has_value(), "what was rendered loads");
  require(*again.config == *result.config, "what was rendered loads as the same Config");
  require(lb::cp::diff(*result.config, *again.config).empty(), "no difference");
  return 0;
}
