#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/document.h"
#include "cli/table.h"
#include "cli/top_screen.h"
#include "cli/views.h"
#include "cli/waiting.h"
#include "proto/api.pb.h"

namespace lb::cli {
namespace {

using nlohmann::ordered_json;

TEST(Table, NumbersStandRightAndLastColumnHasNoTrailingBlanks) {
  Table table({{"NAME"}, {"COUNT", true}, {"NOTE"}});
  table.add({"a", "7", "x"});
  table.add({"long name", "12345", ""});
  EXPECT_EQ(table.render(kUnlimited, false),
            "NAME       COUNT  NOTE\n"
            "a              7  x\n"
            "long name  12345\n");
}

TEST(Table, OnlyShrinkingColumnsAreCutTheWidestFirst) {
  Table table({{"ADDRESS"}, {"A", false, true}, {"B", false, true}});
  table.add({"[2001:db8::1]:80", "aaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbb"});
  EXPECT_EQ(table.render(40, false), "ADDRESS           A           B\n[2001:db8::1]:80  aaaaaaaaa…  bbbbbbbbbb\n");
  EXPECT_EQ(table.render(10, false), "ADDRESS           A       B\n[2001:db8::1]:80  aaaaa…  bbbbb…\n");
}

TEST(Table, WidthCountsCharactersNotBytes) {
  EXPECT_EQ(display_width("ää…"), 3U);
  EXPECT_EQ(shorten("äöüß", 3), "äö…");
  EXPECT_EQ(shorten("äöüß", 4), "äöüß");
  EXPECT_EQ(shorten("abc", 1), "…");
}

TEST(TopList, NumbersAreSortedByValueTextsByLetterAndBothTheOtherWayRound) {
  TopList list{.columns = {{"NAME"}, {"RATE", true}}, .rows = {}};
  for (const auto& [name, rate] : {std::pair{"b", 9.0}, {"a", 10.0}, {"c", 100.0}})
    list.rows.push_back({{name, std::to_string(static_cast<int>(rate))}, {0, rate}});
  const auto order = [&](std::size_t column, bool reversed) {
    list.sorted = column;
    list.reversed = reversed;
    sort(list);
    return list.rows[0].cells[0].text + list.rows[1].cells[0].text + list.rows[2].cells[0].text;
  };
  EXPECT_EQ(order(1, false), "cab");
  EXPECT_EQ(order(1, true), "bac");
  EXPECT_EQ(order(0, false), "abc");
  EXPECT_EQ(order(0, true), "cba");
  EXPECT_EQ(render(list, 1, 1, 80, false), "NAME  RATE\nb        9\n");
}

// Tells when something has been written.
class Signalling : public std::stringbuf {
 public:
  void wait() {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return written_; });
  }

 protected:
  int sync() override {
    const std::lock_guard lock(mutex_);
    written_ = true;
    wake_.notify_all();
    return 0;
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  bool written_ = false;
};

TEST(Waiting, PeopleAtATerminalAreToldAndTheLineGoesAway) {
  std::istringstream in;
  std::ostringstream out;
  Signalling buffer;
  std::ostream err(&buffer);
  { const Waiting nobody({.in = in, .out = out, .err = err, .terminal = false, .wait = {}}, std::chrono::milliseconds(1)); }
  EXPECT_EQ(buffer.str(), "");
  {
    const Io io{.in = in, .out = out, .err = err, .terminal = true, .wait = {}};
    const Waiting waiting(io, std::chrono::milliseconds(1));
    buffer.wait();
  }
  EXPECT_TRUE(buffer.str().starts_with("\rlb-cp is at work: 0 s")) << buffer.str();
  EXPECT_TRUE(buffer.str().ends_with("\r\x1b[K"));
  EXPECT_EQ(out.str(), "");
}

TEST(Text, WrapsAtBlanks) {
  EXPECT_EQ(wrap("one two three four", 9, 0), "one two\nthree\nfour\n");
  EXPECT_EQ(wrap("one two three four", 9, 2), "  one two\n  three\n  four\n");
  EXPECT_EQ(wrap("unbreakablelong x", 5, 0), "unbreakablelong\nx\n");
}

TEST(Text, NumbersKeepThreeDigitsAboveFive) {
  EXPECT_EQ(compact_number(0), "0");
  EXPECT_EQ(compact_number(99'999), "99999");
  EXPECT_EQ(compact_number(100'000), "100K");
  EXPECT_EQ(compact_number(999'499), "999K");
  EXPECT_EQ(compact_number(999'500), "1.00M");
  EXPECT_EQ(compact_number(12'345'678), "12.3M");
  EXPECT_EQ(compact_number(18'446'744'073'709'551'615ULL), "18.4E");
}

TEST(Text, AgesUseTwoUnits) {
  EXPECT_EQ(age(-5), "0s");
  EXPECT_EQ(age(59'999), "59s");
  EXPECT_EQ(age(192'000), "3m12s");
  EXPECT_EQ(age(7'500'000), "2h05m");
  EXPECT_EQ(age(100 * 3'600'000LL), "4d04h");
}

TEST(Document, OptionalFieldsThatAreNotSetAreNullOthersHaveTheirDefault) {
  api::WhyReply reply;
  reply.set_verdict("tx");
  reply.set_worker(0);
  const ordered_json document = to_document(reply);
  EXPECT_EQ(document["verdict"], "tx");
  EXPECT_EQ(document["worker"], 0);
  EXPECT_TRUE(document["slot"].is_null());
  EXPECT_EQ(document["pinned_elsewhere"], false);
  EXPECT_EQ(document["steps"], ordered_json::array());
  EXPECT_EQ(document["generation"], 0);
}

TEST(Document, YamlQuotesWhatAReaderCouldTakeForSomethingElse) {
  const ordered_json document = {{"plain", "blue-1"}, {"number", "12"},      {"hex", "0x1f"},  {"word", "No"},
                                 {"empty", ""},       {"colon", "a: b"},     {"dash", "- a"},  {"tilde", "~"},
                                 {"tab", "a\tb"},     {"lines", "a\n\nb\n"}, {"half", "a\nb"}, {"list", {"x", 1.5}},
                                 {"none", nullptr}};
  EXPECT_EQ(to_yaml(document),
            "plain: blue-1\n"
            "number: \"12\"\n"
            "hex: \"0x1f\"\n"
            "word: \"No\"\n"
            "empty: \"\"\n"
            "colon: \"a: b\"\n"
            "dash: \"- a\"\n"
            "tilde: \"~\"\n"
            "tab: \"a\\tb\"\n"
            "lines: |\n"
            "  a\n"
            "\n"
            "  b\n"
            "half: \"a\\nb\"\n"
            "list:\n"
            "  - x\n"
            "  - 1.5\n"
            "none: null\n");
}

}  // namespace
}  // namespace lb::cli
