#include "replay/events.h"

#include <gtest/gtest.h>

namespace lb::replay {
namespace {

std::vector<cp::Violation> violations_of(const std::string& text) {
  auto events = parse_events(text, "dir/events.yaml");
  EXPECT_FALSE(events.has_value());
  return events ? std::vector<cp::Violation>{} : events.error();
}

TEST(Events, EveryKindIsRead) {
  const auto events = parse_events(R"(
- {at: 0, apply: v2.yaml}
- {at: 1.5, drain: "10.0.0.1:80"}
- at: 2
  undrain: "10.0.0.1:80"
- {at: 3, unhealthy: "[2001:db8::2]:8080"}
- {at: 4, healthy: "[2001:db8::2]:8080"}
)",
                                   "dir/events.yaml");
  ASSERT_TRUE(events.has_value());
  ASSERT_EQ(events->size(), 5U);
  EXPECT_EQ((*events)[0].kind, EventKind::apply);
  EXPECT_EQ((*events)[0].file, "dir/v2.yaml");
  EXPECT_EQ((*events)[0].line, 2U);
  EXPECT_EQ((*events)[1].kind, EventKind::drain);
  EXPECT_EQ((*events)[1].at_ns, 1'500'000'000U);
  EXPECT_EQ((*events)[1].address, abi::IpAddress::v4(10, 0, 0, 1));
  EXPECT_EQ((*events)[1].port, 80);
  EXPECT_EQ((*events)[2].kind, EventKind::undrain);
  EXPECT_EQ((*events)[3].kind, EventKind::unhealthy);
  EXPECT_EQ((*events)[3].port, 8080);
  EXPECT_FALSE((*events)[3].address.is_v4());
  EXPECT_EQ((*events)[4].kind, EventKind::healthy);
}

TEST(Events, TheyComeInTheOrderOfTimeAndThenOfTheFile) {
  const auto events = parse_events(
      "- {at: 2, drain: \"10.0.0.1:1\"}\n- {at: 1, drain: \"10.0.0.1:2\"}\n- {at: 2, drain: \"10.0.0.1:3\"}\n", "e");
  ASSERT_TRUE(events.has_value());
  EXPECT_EQ((*events)[0].port, 2);
  EXPECT_EQ((*events)[1].port, 1);
  EXPECT_EQ((*events)[2].port, 3);
}

TEST(Events, AnAbsoluteFileIsTakenAsItIs) {
  const auto events = parse_events("- {at: 0, apply: /etc/lb.yaml}", "dir/events.yaml");
  ASSERT_TRUE(events.has_value());
  EXPECT_EQ((*events)[0].file, "/etc/lb.yaml");
}

TEST(Events, AnEmptyFileHasNoEvents) {
  EXPECT_TRUE(parse_events("", "e")->empty());
  EXPECT_TRUE(parse_events("# nothing\n", "e")->empty());
}

TEST(Events, EveryViolationNamesFileLineAndField) {
  const auto violations = violations_of(
      "- {at: -1, drain: \"10.0.0.1:80\"}\n"
      "- {at: soon, drain: \"10.0.0.1:80\"}\n"
      "- {at: 1, drain: 10.0.0.1}\n"
      "- {at: 1}\n"
      "- {drain: \"10.0.0.1:80\"}\n"
      "- {at: 1, drain: \"10.0.0.1:80\", undrain: \"10.0.0.1:80\"}\n"
      "- {at: 1, explode: now, drain: \"10.0.0.1:80\"}\n"
      "- 7\n"
      "- {at: 1, apply: [a]}\n");
  ASSERT_EQ(violations.size(), 9U);
  const char* const kFields[] = {"[0].at", "[1].at", "[2].drain", "[3]", "[4].at", "[5]", "[6].explode", "[7]", "[8].apply"};
  for (std::uint32_t i = 0; i < violations.size(); ++i) {
    EXPECT_EQ(violations[i].file, "dir/events.yaml");
    EXPECT_EQ(violations[i].line, i + 1);
    EXPECT_EQ(violations[i].field, kFields[i]);
    EXPECT_FALSE(violations[i].text.empty());
  }
}

TEST(Events, TextThatIsNoYamlNamesItsLine) {
  const auto violations = violations_of("- {at: 1, drain: \"10.0.0.1:80\"}\n- {at: 1, drain: [\n");
  ASSERT_EQ(violations.size(), 1U);
  EXPECT_GE(violations[0].line, 2U);
}

TEST(Events, AMapIsNoListOfEvents) {
  EXPECT_EQ(violations_of("at: 1\n").at(0).text, "must be a list of events");
}

TEST(Events, AMissingFileIsNamed) {
  const auto events = load_events("/nonexistent/events.yaml");
  ASSERT_FALSE(events.has_value());
  EXPECT_EQ(events.error().at(0).file, "/nonexistent/events.yaml");
}

}  // namespace
}  // namespace lb::replay
