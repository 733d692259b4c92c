// The data plane's log lines would bury the test runner's own: what matters in them is asserted where it is produced.
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

namespace lb {
namespace {

class Quiet : public testing::Environment {
 public:
  void SetUp() override { spdlog::set_level(spdlog::level::off); }
};

[[maybe_unused]] const testing::Environment* const kQuiet = testing::AddGlobalTestEnvironment(new Quiet);

}  // namespace
}  // namespace lb
