// Whole command lines against a server that listens on a real socket.
#include "cli/lbctl.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/client.h"
#include "cli/table.h"
#include "tests/unit/cli/lbctl_fixture.h"

namespace lb::cli {
namespace {

using nlohmann::ordered_json;

TEST_F(LbctlTest, TargetsAreATableOfAtMost80Columns) {
  const Outcome outcome = lbctl({"get", "targets"});
  EXPECT_EQ(outcome.code, kExitOk);
  EXPECT_EQ(outcome.err, "");
  EXPECT_EQ(outcome.out,
            "GROUP  ADDRESS              WEIGHT  STATE        REASON             SHARE  FLOWS\n"
            "blue   10.77.2.2:80              1  healthy                         50.0%     41\n"
            "blue   10.77.2.3:80              1  unhealthy    Timeout            50.0%      0\n"
            "blue   10.77.2.4:80              1  draining 0s  DeregistrationIn…  50.0%      0\n"
            "green  [2001:db8:77::2]:80       1  initial      InitialHealthChe…  50.0%      0\n");
}

TEST_F(LbctlTest, NoTableIsWiderThan80ColumnsHoweverLongNamesAndNumbersAre) {
  const std::string name(60, 'n');
  cp::LiveState& state = operations_.state;
  for (auto& listener : state.listeners) listener.name = name;
  for (auto& group : state.groups) {
    group.name = name;
    for (auto& target : group.targets) target.key.group = name;
  }
  for (const char* kind : {"vips", "listeners", "target-groups", "targets", "workers"}) {
    EXPECT_LE(widest_line(lbctl({"get", kind}).out), 80U) << kind;
  }
  EXPECT_LE(widest_line(lbctl({"drops"}).out), 80U);
}

TEST_F(LbctlTest, WideShowsWholeNamesAndExactNumbers) {
  const Outcome outcome = lbctl({"get", "listeners", "-o", "wide"});
  EXPECT_NE(outcome.out.find("123456789012"), std::string::npos) << outcome.out;
  EXPECT_NE(lbctl({"get", "listeners"}).out.find("123G"), std::string::npos);
  const std::string targets = lbctl({"-o", "wide", "get", "targets", "blue"}).out;
  EXPECT_NE(targets.find("DeregistrationInProgress"), std::string::npos);
  EXPECT_NE(targets.find("02:00:00:00:00:70 via lb1"), std::string::npos);
}

TEST_F(LbctlTest, WhatAProbeAnsweredCannotCommandTheTerminal) {
  const std::string wide = lbctl({"get", "targets", "-o", "wide"}).out;
  EXPECT_EQ(wide.find('\x1b'), std::string::npos);
  EXPECT_NE(wide.find("timed ?[2Jout"), std::string::npos) << wide;
}

TEST_F(LbctlTest, ColoursOnATerminalOnly) {
  EXPECT_NE(lbctl({"get", "targets"}, "", true).out.find("\x1b[31munhealthy"), std::string::npos);
  EXPECT_EQ(lbctl({"get", "targets"}, "", false).out.find('\x1b'), std::string::npos);
  EXPECT_EQ(lbctl({"get", "targets", "-o", "json"}, "", true).out.find('\x1b'), std::string::npos);
}

TEST_F(LbctlTest, JsonHasEveryFieldUnderItsProtobufNameAndNumbersAreNumbers) {
  const auto workers = ordered_json::parse(lbctl({"get", "workers", "-o", "json"}).out);
  EXPECT_EQ(workers["workers"][0]["rx_packets"], 18'446'744'073'709'551'615ULL);
  EXPECT_TRUE(workers["workers"][0]["rx_packets"].is_number_unsigned());
  EXPECT_EQ(workers["workers"][0]["punted_packets"], 0);
  const auto targets = ordered_json::parse(lbctl({"get", "targets", "blue", "--json"}).out);
  ASSERT_EQ(targets["targets"].size(), 3U);
  EXPECT_EQ(targets["targets"][0]["address"], "10.77.2.2:80");
  EXPECT_EQ(targets["targets"][0]["drain_remaining_ms"], -1);
  EXPECT_EQ(targets["targets"][0]["reason"], "");
  EXPECT_EQ(targets["targets"][0]["share"], 0.5);
  operations_.state.groups.clear();
  EXPECT_EQ(ordered_json::parse(lbctl({"get", "targets", "-o", "json"}).out).dump(), R"({"targets":[],"freeze":null})");
}

TEST_F(LbctlTest, YamlSaysTheSame) {
  EXPECT_EQ(lbctl({"get", "vips", "web", "-o", "yaml"}).out,
            "vips:\n"
            "  - name: web\n"
            "    address: \"192.0.2.10\"\n"
            "    listeners: 1\n"
            "    packets: 123456789012\n"
            "    bytes: 99000000000000\n"
            "    new_flows: 1234\n");
  operations_.state.groups.clear();
  EXPECT_EQ(lbctl({"get", "targets", "-o", "yaml"}).out, "targets: []\nfreeze: null\n");
  const std::string described = lbctl({"describe", "target-group", "green", "-o", "yaml"}).out;
  EXPECT_EQ(described, "");  // gone: an error, nothing on standard output
}

TEST_F(LbctlTest, DescribeShowsTextOrTheMessage) {
  const Outcome text = lbctl({"describe", "target-group", "blue"});
  EXPECT_EQ(text.code, kExitOk);
  for (const char* part : {"Target group     blue\n", "1 healthy, 1 unhealthy, 1 draining, 3 in all", "\nTargets\n",
                           "\nEvents\n", "2026-11-21 02:00:00Z", "\nConfiguration\n  target-group blue with 3\n"}) {
    EXPECT_NE(text.out.find(part), std::string::npos) << part << " in\n" << text.out;
  }
  EXPECT_LE(widest_line(text.out), 80U) << text.out;
  EXPECT_NE(lbctl({"describe", "listener", "web-80"}).out.find("Z listener web-80: active\n"), std::string::npos);
  const auto json = ordered_json::parse(lbctl({"describe", "vip", "web", "-o", "json"}).out);
  EXPECT_EQ(json["vip"]["name"], "web");
  EXPECT_TRUE(json["target_group"].is_null());
  EXPECT_NE(lbctl({"describe", "vip", "web", "-o", "yaml"}).out.find("config: |\n  vip web\n"), std::string::npos);
  EXPECT_NE(lbctl({"describe", "target", "10.77.2.3:80"}).out.find("unhealthy, Timeout"), std::string::npos);
}

TEST_F(LbctlTest, UnknownNamesSayWhatExists) {
  const Outcome outcome = lbctl({"get", "targets", "bleu"});
  EXPECT_EQ(outcome.code, kExitError);
  EXPECT_EQ(outcome.out, "");
  EXPECT_EQ(outcome.err, "lbctl: no target group `bleu`; there are: blue, green\n");
}

TEST_F(LbctlTest, ApplyShowsChangesAndThatWorkersForwardByThem) {
  operations_.outcome = {.violations = {},
                         .warnings = {},
                         .changes = {{"add", "vip new", "", "", ""},
                                     {"remove", "listener old", "", "", ""},
                                     {"change", "target blue 10.77.2.2:80", "weight", "1", "5"}},
                         .generation = {3, 8},
                         .active = true,
                         .note = ""};
  const std::string name = file("version: 1\n");
  const Outcome outcome = lbctl({"apply", "-f", name, "--timeout", "2.5"});
  EXPECT_EQ(outcome.code, kExitOk);
  EXPECT_EQ(outcome.out,
            "+ vip new\n"
            "- listener old\n"
            "~ target blue 10.77.2.2:80  weight: 1 → 5\n"
            "applied: all workers forward by generation 3.8\n");
  EXPECT_EQ(operations_.applied_text, "version: 1\n");
  EXPECT_EQ(operations_.applied_file, name);
  EXPECT_EQ(operations_.applied_options.timeout, std::chrono::milliseconds(2500));
  operations_.outcome.changes.clear();
  EXPECT_EQ(lbctl({"apply", "-f", "-"}, "from stdin").out, "no changes: all workers forward by generation 3.8\n");
  EXPECT_EQ(operations_.applied_text, "from stdin");
}

TEST_F(LbctlTest, ApplyFailsWhereWorkersDoNotForwardByIt) {
  operations_.outcome.generation = {3, 8};
  operations_.outcome.note = "lb-dp refused it: capacity";
  const Outcome outcome = lbctl({"apply", "-f", file("x")});
  EXPECT_EQ(outcome.code, kExitError);
  EXPECT_NE(outcome.err.find("not in force: lb-dp refused it: capacity"), std::string::npos) << outcome.err;
}

TEST_F(LbctlTest, ViolationsAreFileLineFieldText) {
  operations_.outcome.violations = {{"lb.yaml", 12, "listeners[0].port", "is 70000; 1-65535 is allowed"},
                                    {"lb.yaml", 0, "", "is empty"}};
  operations_.outcome.warnings = {{"lb.yaml", 3, "seed", "is 0"}};
  const std::string expected =
      "lb.yaml:3: seed: warning: is 0\n"
      "lb.yaml:12: listeners[0].port: is 70000; 1-65535 is allowed\n"
      "lb.yaml: is empty\n";
  const Outcome applied = lbctl({"apply", "-f", file("x")});
  EXPECT_EQ(applied.code, kExitError);
  EXPECT_EQ(applied.err, expected + "lbctl: nothing was changed\n");
  EXPECT_EQ(applied.out, "");
  const Outcome compared = lbctl({"diff", "-f", file("x")});
  EXPECT_EQ(compared.code, kExitError);
  EXPECT_EQ(compared.err, expected);
}

TEST_F(LbctlTest, DiffTellsByItsExitCode) {
  EXPECT_EQ(lbctl({"diff", "-f", file("x")}).code, kExitOk);
  operations_.outcome.changes = {{"add", "vip new", "", "", ""}};
  const Outcome differs = lbctl({"diff", "-f", file("x")});
  EXPECT_EQ(differs.code, kExitDiffers);
  EXPECT_EQ(differs.out, "+ vip new\n");
  const Outcome json = lbctl({"diff", "-f", file("x"), "-o", "json"});
  EXPECT_EQ(json.code, kExitDiffers);
  EXPECT_EQ(ordered_json::parse(json.out)["changes"][0]["object"], "vip new");
}

TEST_F(LbctlTest, ManyChangesAreCutUnlessWide) {
  operations_.outcome.changes.assign(102, {"add", "vip new", "", "", ""});
  const auto lines = [](const Outcome& outcome) { return std::count(outcome.out.begin(), outcome.out.end(), '\n'); };
  const Outcome cut = lbctl({"diff", "-f", file("x")});
  EXPECT_EQ(lines(cut), 101);
  EXPECT_NE(cut.out.find("… and 2 more changes (-o wide shows all)\n"), std::string::npos);
  EXPECT_EQ(lines(lbctl({"diff", "-f", file("x"), "-o", "wide"})), 102);
  operations_.outcome.changes.resize(100);
  EXPECT_EQ(lines(lbctl({"diff", "-f", file("x")})), 100);
}

TEST_F(LbctlTest, FileThatCannotBeReadIsNamed) {
  const Outcome outcome = lbctl({"apply", "-f", directory_.path() + "/none.yaml"});
  EXPECT_EQ(outcome.code, kExitError);
  EXPECT_NE(outcome.err.find("none.yaml: No such file"), std::string::npos) << outcome.err;
  EXPECT_EQ(lbctl({"apply", "-f", directory_.path()}).code, kExitError);
}

TEST_F(LbctlTest, DrainAndUndrainShowTheTarget) {
  const Outcome drained = lbctl({"drain", "10.77.2.2:80", "--group", "blue"});
  EXPECT_EQ(drained.code, kExitOk);
  EXPECT_NE(drained.out.find("draining"), std::string::npos) << drained.out;
  EXPECT_NE(lbctl({"undrain", "[2001:db8:77::2]:80"}).out.find("initial"), std::string::npos);
  const Outcome unknown = lbctl({"drain", "10.9.9.9:80"});
  EXPECT_EQ(unknown.code, kExitError);
  EXPECT_NE(unknown.err.find("there are: 10.77.2.2:80"), std::string::npos);
}

TEST_F(LbctlTest, DropsShowWhatHappenedAndWideAllReasons) {
  EXPECT_EQ(lbctl({"drops"}).out,
            "REASON       PACKETS  MEANING\n"
            "truncated          3  frame shorter than its headers or their lengths say\n"
            "no_listener       12  destination is a VIP, but no listener takes this protocol…\n");
  EXPECT_NE(lbctl({"drops", "-o", "wide"}).out.find("tx_full"), std::string::npos);
  EXPECT_EQ(ordered_json::parse(lbctl({"drops", "-o", "json"}).out)["drops"].size(), abi::kDropReasonCount - 1);
  operations_.state.workers.clear();
  EXPECT_EQ(lbctl({"drops"}).out, "no drops\n");
}

TEST_F(LbctlTest, WhyPrintsTheKeysOfAReplayLine) {
  const Outcome outcome = lbctl({"why", "tcp", "10.77.1.2", "40000", "192.0.2.10", "80", "-o", "json"});
  EXPECT_EQ(outcome.code, kExitOk) << outcome.err;
  const auto answer = ordered_json::parse(outcome.out);
  std::vector<std::string> keys;
  for (const auto& [key, value] : answer.items()) keys.push_back(key);
  const std::vector<std::string> replay = {"n",      "verdict", "reason", "listener", "target_group",
                                           "target", "flow",    "worker", "out_len",  "out"};
  ASSERT_GT(keys.size(), replay.size());
  EXPECT_EQ(std::vector<std::string>(keys.begin(), keys.begin() + 10), replay);
  EXPECT_EQ(answer["verdict"], "drop");
  EXPECT_EQ(answer["reason"], "no_snapshot");
  EXPECT_TRUE(answer["listener"].is_null());
  EXPECT_TRUE(answer["worker"].is_null());
  EXPECT_EQ(answer["flow"], "none");
}

TEST_F(LbctlTest, WhyChecksItsArguments) {
  EXPECT_NE(lbctl({"why", "tcp", "10.77.1.2", "x", "192.0.2.10", "80"}).err.find("source port: `x`"), std::string::npos);
  EXPECT_NE(lbctl({"why", "tcp", "10.77.1", "1", "192.0.2.10", "80"}).err.find("source: `10.77.1` is not"),
            std::string::npos);
  EXPECT_EQ(lbctl({"why", "tcp", "10.77.1.2"}).code, kExitError);
  EXPECT_EQ(lbctl({"why", "udp", "[2001:db8::1]", "1", "2001:db8::10", "53"}).code, kExitOk);
}

TEST_F(LbctlTest, WatchAppendsInAPipeAndRedrawsOnATerminal) {
  const Outcome piped = lbctl({"get", "vips", "--watch", "0.5"}, "", false, 3);
  EXPECT_EQ(piped.code, kExitOk);
  std::size_t tables = 0;
  for (std::size_t at = piped.out.find("ADDRESS"); at != std::string::npos; at = piped.out.find("ADDRESS", at + 1)) ++tables;
  EXPECT_EQ(tables, 3U);
  EXPECT_EQ(piped.out.find('\x1b'), std::string::npos);
  const Outcome drawn = lbctl({"drops", "--watch"}, "", true, 2);
  EXPECT_EQ(drawn.out.substr(0, 7), "\x1b[H\x1b[2J");
  const Outcome lines = lbctl({"get", "vips", "-o", "json", "--watch"}, "", false, 2);
  EXPECT_EQ(std::count(lines.out.begin(), lines.out.end(), '\n'), 2);
}

TEST_F(LbctlTest, WatchOutlivesAnAbsentServerButDoesNotStartWithoutOne) {
  between_rounds_ = [&] { server_.stop(); };
  const Outcome lost = lbctl({"get", "vips", "--watch"}, "", false, 3);
  EXPECT_EQ(lost.code, kExitOk);
  EXPECT_NE(lost.err.find("is it running?"), std::string::npos) << lost.err;
  EXPECT_EQ(lbctl({"get", "vips", "--watch"}).code, kExitError);
}

TEST_F(LbctlTest, AbsentServerIsSaidSo) {
  server_.stop();
  const Outcome outcome = lbctl({"get", "vips"});
  EXPECT_EQ(outcome.code, kExitError);
  EXPECT_EQ(outcome.err, "lbctl: cannot reach lb-cp at " + path_ + ": is it running?\n");
}

TEST_F(LbctlTest, WorkersSayWhyThereAreNone) {
  operations_.state.workers.clear();
  operations_.state.data_plane_connected = false;
  operations_.state.data_plane_note = "no such file";
  EXPECT_EQ(lbctl({"get", "workers"}).out, "no workers\nlb-dp is not connected: no such file\n");
}

TEST_F(LbctlTest, VersionShowsBothSides) {
  const Outcome outcome = lbctl({"version"});
  EXPECT_EQ(outcome.code, kExitOk);
  EXPECT_EQ(outcome.out, "lbctl       0.1.0\nlb-cp       0.1.0\nGeneration  3.7\nlb-dp       connected\n");
}

TEST_F(LbctlTest, HistoryMarksWhatIsInForceAndExportGivesTheBytesBack) {
  EXPECT_EQ(lbctl({"history"}).out,
            "NUMBER  APPLIED               GENERATION  CHANGES  CAUSE                 FILE\n"
            "   8 *  2026-11-21 02:00:00Z  3.7               1  target add blue 10.…\n"
            "   7    2026-11-21 01:58:20Z  3.2               9  apply                 lb.yaml\n");
  EXPECT_EQ(ordered_json::parse(lbctl({"history", "-o", "json"}).out)["configurations"][1]["in_force"], false);
  EXPECT_EQ(lbctl({"export"}).out, "text 8\n");
  EXPECT_EQ(lbctl({"export", "7"}).out, "text 7\n");
  const Outcome none = lbctl({"export", "3"});
  EXPECT_EQ(none.code, kExitError);
  EXPECT_EQ(none.out, "");
}

TEST_F(LbctlTest, TermsOfAChangeReachLbCp) {
  operations_.outcome.active = true;
  EXPECT_EQ(lbctl({"apply", "-f", file("x"), "--force", "--if-generation", "3.12"}).code, kExitOk);
  EXPECT_TRUE(operations_.applied_options.force);
  EXPECT_EQ(operations_.applied_options.if_generation, (abi::Generation{3, 12}));
  EXPECT_EQ(lbctl({"rollback", "7"}).code, kExitOk);
  EXPECT_EQ(operations_.applied_text, "text 7\n");
  EXPECT_FALSE(operations_.applied_options.force);
  EXPECT_FALSE(operations_.applied_options.if_generation);
  for (const char* wrong : {"3", "3.", ".3", "3.x", "3.1.2", "-1.2"}) {
    const Outcome outcome = lbctl({"rollback", "7", std::string("--if-generation=") + wrong});
    EXPECT_EQ(outcome.code, kExitError) << wrong;
    EXPECT_NE(outcome.err.find("is not a generation"), std::string::npos) << outcome.err;
  }
}

TEST_F(LbctlTest, RefusedChangeShowsWhatItWouldHaveDoneAndFails) {
  operations_.outcome.refused = "it removes 1 of 1 VIPs, more than 10 %";
  operations_.outcome.changes = {{"remove", "vip web", "", "", ""}};
  const Outcome outcome = lbctl({"apply", "-f", file("x")});
  EXPECT_EQ(outcome.code, kExitError);
  EXPECT_EQ(outcome.out, "- vip web\n");
  EXPECT_EQ(outcome.err, "lbctl: nothing was changed: it removes 1 of 1 VIPs, more than 10 %; --force does it\n");
}

TEST_F(LbctlTest, SingleChangesAreSentAsTheyAreMeant) {
  operations_.outcome.active = true;
  EXPECT_EQ(lbctl({"target", "add", "blue", "10.77.2.9:80", "--weight", "5"}).code, kExitOk);
  const auto& target = std::get<cp::TargetEdit>(*operations_.edited);
  EXPECT_EQ(target.action, cp::EditAction::add);
  EXPECT_EQ(target.group + " " + target.target, "blue 10.77.2.9:80");
  EXPECT_EQ(target.weight, 5U);
  EXPECT_EQ(lbctl({"target", "remove", "blue", "10.77.2.9:80"}).code, kExitOk);
  EXPECT_EQ(std::get<cp::TargetEdit>(*operations_.edited).action, cp::EditAction::remove);
  EXPECT_EQ(lbctl({"target", "set", "blue", "10.77.2.9:80"}).code, kExitError) << "a weight is needed";
  EXPECT_EQ(
      lbctl({"listener", "add", "l", "--vip", "web", "--protocol", "UDP", "--port", "5-9", "--target-groups", "a:2,b"}).code,
      kExitOk);
  const auto& listener = std::get<cp::ListenerEdit>(*operations_.edited);
  EXPECT_EQ(listener.name + listener.vip + listener.protocol + listener.port + listener.target_groups, "lwebUDP5-9a:2,b");
  EXPECT_EQ(lbctl({"listener", "remove", "l"}).code, kExitOk);
  EXPECT_EQ(std::get<cp::ListenerEdit>(*operations_.edited).action, cp::EditAction::remove);
  EXPECT_EQ(lbctl({"target"}).code, kExitError);
}

TEST_F(LbctlTest, EventsAreToldOldestFirstAndFiltered) {
  EXPECT_EQ(lbctl({"events"}).out,
            "2026-11-21 01:58:20Z listener web-80: active\n"
            "2026-11-21 02:00:00Z target blue 10.77.2.3:80: healthy → unhealthy, Timeout\n"
            "  (no answer)\n");
  EXPECT_EQ(lbctl({"events", "listener"}).out, "2026-11-21 01:58:20Z listener web-80: active\n");
  EXPECT_EQ(lbctl({"events", "-n", "1", "-o", "wide"}).out.substr(0, 27), "2026-11-21 02:00:00Z target");
  EXPECT_EQ(lbctl({"events", "nobody"}).out, "no events\n");
  const auto json = ordered_json::parse(lbctl({"events", "-o", "json"}).out);
  EXPECT_EQ(json["events"][1]["sequence"], 2);
}

TEST_F(LbctlTest, WatchedEventsComeOnceEachAsTheyHappen) {
  between_rounds_ = [&] {
    const std::lock_guard lock(operations_.mutex);
    operations_.state.events.push_front({1'795'226'500'000, "data-plane", "connected", "disconnected", "", "gone", 3});
    between_rounds_ = nullptr;
  };
  const Outcome outcome = lbctl({"events", "-w", "-o", "json"}, "", false, 2);
  EXPECT_EQ(outcome.code, kExitOk);
  std::istringstream lines(outcome.out);
  std::vector<std::string> objects;
  for (std::string line; std::getline(lines, line);) objects.push_back(ordered_json::parse(line)["object"]);
  EXPECT_EQ(objects, (std::vector<std::string>{"listener web-80", "target blue 10.77.2.3:80", "data-plane"}));
}

TEST_F(LbctlTest, PlanShowsSlotsFlowsAndTheirFate) {
  operations_.planned_text = "new";
  cp::explain::Plan& plan = operations_.planned;
  plan.changes = {{"remove", "target blue 10.77.2.4:80", "", "", ""}};
  plan.flows = {41, 0, 9, 0};
  plan.flows_known = true;
  plan.snapshot_bytes_before = 200'000;
  plan.snapshot_bytes_after = 150'000;
  plan.sent_bytes = 5'000;
  cp::explain::PlannedGroup group{.name = "blue", .change = "change", .slots_before = 65537, .slots_after = 65537};
  group.slots_moved = 21846;
  group.flows = plan.flows;
  group.targets = {
      {.key = {"blue", *cp::parse_address("10.77.2.2"), 80}, .share_before = 0.333, .share_after = 0.5, .flows = 41},
      {.key = {"blue", *cp::parse_address("10.77.2.4"), 80},
       .change = "remove",
       .share_before = 0.333,
       .slots_lost = 21846,
       .flows = 9,
       .fate = cp::explain::Fate::drain,
       .drain_ms = 300'000,
       .then = "leave"}};
  plan.groups = {group};
  const Outcome outcome = lbctl({"plan", "-f", file("new")});
  EXPECT_EQ(outcome.code, kExitOk);
  EXPECT_EQ(outcome.out,
            "- target blue 10.77.2.4:80\n"
            "\n"
            "Target group blue: 21846 of 65537 slots move; flows: 41 stay, 9 drain\n"
            "   TARGET        SHARE  NEW-SHARE  GAINED   LOST  FLOWS  FATE\n"
            "   10.77.2.2:80  33.3%      50.0%       0      0     41  stay\n"
            "-  10.77.2.4:80  33.3%       0.0%       0  21846      9  drain 5m00s, leave\n"
            "\n"
            "Tracked flows: 41 stay, 9 drain\n"
            "Snapshot: 200KB → 150KB; lb-dp holds both while workers move; about 5000 B are new\n");
  const auto json = ordered_json::parse(lbctl({"plan", "-f", file("new"), "-o", "json"}).out);
  EXPECT_EQ(json["target_groups"][0]["targets"][1]["fate"], "drain");
  operations_.outcome.violations = {{"lb.yaml", 3, "seed", "must be a number"}};
  const Outcome wrong = lbctl({"plan", "-f", file("old")});
  EXPECT_EQ(wrong.code, kExitError);
  EXPECT_EQ(wrong.err, "lb.yaml:3: seed: must be a number\n");
}

TEST_F(LbctlTest, FlowsRefuseAStateThatThereIsNot) {
  EXPECT_EQ(lbctl({"flows"}).out, "no flows\n");
  const Outcome outcome = lbctl({"flows", "--state", "open"});
  EXPECT_EQ(outcome.code, kExitError);
  EXPECT_NE(outcome.err.find("`open` is none of new | assumed"), std::string::npos) << outcome.err;
  EXPECT_EQ(lbctl({"flows", "--listener", "none"}).code, kExitError);
}

TEST_F(LbctlTest, TopShowsRatesBusiestFirst) {
  between_rounds_ = [&] {
    const std::lock_guard lock(operations_.mutex);
    operations_.state.listeners[1].counters.packets += 1'000'000'000;
  };
  const Outcome outcome = lbctl({"top", "-n", "2"}, "", false, 2);
  EXPECT_EQ(outcome.code, kExitOk);
  const std::size_t busy = outcome.out.find("web6-any");
  ASSERT_NE(busy, std::string::npos) << outcome.out;
  EXPECT_LT(busy, outcome.out.find("web-80"));
  EXPECT_NE(outcome.out.find("… and 2 more (-n)"), std::string::npos) << outcome.out;
  EXPECT_LE(widest_line(outcome.out), 80U) << outcome.out;
  const auto json = ordered_json::parse(lbctl({"top", "-o", "json"}, "", false, 2).out);
  EXPECT_GT(json["listeners"][1]["packets_per_second"], 1000.0);
}

TEST_F(LbctlTest, SeveralTargetsAreDrainedAndWaitedFor) {
  between_rounds_ = [&] {
    const std::lock_guard lock(operations_.mutex);
    auto& status = operations_.state.groups[0].targets[0].status;
    status.flows = status.flows > 1 ? 1 : 0;
  };
  operations_.state.groups[0].targets[0].status.drain_ends_unix_ms = 4'000'000'000'000;
  const Outcome outcome = lbctl({"drain", "10.77.2.2:80", "10.77.2.3:80", "--wait"}, "", false, 9);
  EXPECT_EQ(outcome.code, kExitOk);
  EXPECT_NE(outcome.out.find("blue 10.77.2.3:80: drained: 0 flows have ended\n"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("blue 10.77.2.2:80: 1 of 41 flows left, "), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("blue 10.77.2.2:80: drained: 41 flows have ended\n"), std::string::npos) << outcome.out;
  const Outcome partly = lbctl({"drain", "10.9.9.9:80", "10.77.2.3:80"});
  EXPECT_EQ(partly.code, kExitError);
  EXPECT_NE(partly.out.find("10.77.2.3:80"), std::string::npos) << "the others are drained all the same";
}

TEST_F(LbctlTest, DoctorNamesWhatIsBad) {
  const Outcome outcome = lbctl({"doctor", "-o", "wide"});
  EXPECT_EQ(outcome.code, kExitError);
  for (const char* finding :
       {"bad   target group green", "fail-open", "no next hop", "look  blue 10.77.2.3:80", "ok    socket"})
    EXPECT_NE(outcome.out.find(finding), std::string::npos) << finding << " in\n" << outcome.out;
  EXPECT_LE(widest_line(lbctl({"doctor"}).out), 80U);
  cp::LiveState& state = operations_.state;
  state.groups.erase(state.groups.begin() + 1);
  state.groups[0].targets.resize(1);
  EXPECT_EQ(lbctl({"doctor"}).code, kExitOk);
  state.data_plane_connected = false;
  state.data_plane_note = "no such file";
  EXPECT_EQ(lbctl({"doctor"}).code, kExitError);
  server_.stop();
  EXPECT_NE(lbctl({"doctor", "-o", "wide"}).out.find("is it running?"), std::string::npos);
}

// What bash offers behind a line, by the script itself.
std::string offered(const std::string& script, const std::string& line) {
  const TemporaryDirectory directory;
  std::ofstream(directory.path() + "/lbctl") << script;
  std::ofstream(directory.path() + "/ask") << ". " << directory.path() << "/lbctl; COMP_WORDS=(" << line
                                           << "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _lbctl; echo \"${COMPREPLY[*]}\"\n";
  FILE* pipe = ::popen(("bash " + directory.path() + "/ask").c_str(), "r");
  std::array<char, 4096> buffer{};
  std::string text;
  while (std::fgets(buffer.data(), buffer.size(), pipe) != nullptr) text += buffer.data();
  ::pclose(pipe);
  return text;
}

TEST_F(LbctlTest, BashCompletesVerbsChoicesAndOptions) {
  const std::string script = lbctl({"completion", "bash"}).out;
  EXPECT_EQ(offered(script, "lbctl hist"), "history\n");
  EXPECT_EQ(offered(script, "lbctl get target"), "target-groups targets\n");
  EXPECT_EQ(offered(script, "lbctl target s"), "set\n");
  EXPECT_EQ(offered(script, "lbctl -o wide target add blue 10.0.0.1:80 --we"), "--weight\n");
  EXPECT_EQ(offered(script, "lbctl get vips -o y"), "yaml\n");
  EXPECT_EQ(offered(script, "lbctl completion z"), "zsh\n");
}

// What stands behind `before` at the beginning of a line, up to two blanks or the line's end.
std::vector<std::string> listed(const std::string& text, const std::string& before) {
  std::vector<std::string> found;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(before) && line.size() > before.size() && line[before.size()] != ' ')
      found.push_back(line.substr(before.size(), line.find("  ", before.size()) - before.size()));
  }
  return found;
}

TEST_F(LbctlTest, EveryShellAndTheManPageKnowEveryVerb) {
  const std::string zsh = lbctl({"completion", "zsh"}).out;
  const std::string fish = lbctl({"completion", "fish"}).out;
  const std::string man = lbctl({"man"}).out;
  const std::string help = lbctl({"--help"}).out;
  const std::vector<std::string> verbs =
      listed(help.substr(help.find("\nSubcommands:"), help.find("\nExample:") - help.find("\nSubcommands:")), "  ");
  EXPECT_GT(verbs.size(), 20U);
  for (const std::string& verb : verbs) {
    EXPECT_NE(zsh.find("'" + verb + ":"), std::string::npos) << verb;
    EXPECT_NE(fish.find("-a '" + verb + "'"), std::string::npos) << verb;
    EXPECT_NE(man.find(".SS lbctl " + verb), std::string::npos) << verb;
  }
  EXPECT_NE(man.find(".SS lbctl target add\n"), std::string::npos);
  EXPECT_EQ(lbctl({"completion", "csh"}).code, kExitError);
  // groff finds nothing to complain of.
  const std::string page = file(man);
  EXPECT_EQ(std::system(("test -z \"$(groff -man -Tutf8 -ww -z " + page + " 2>&1)\"").c_str()), 0);
}

TEST_F(LbctlTest, EveryVerbExplainsItselfWithAnExample) {
  const std::vector<std::string> verbs = listed(lbctl({"man"}).out, ".SS lbctl ");
  EXPECT_GT(verbs.size(), 25U);
  for (const std::string& verb : verbs) {
    std::istringstream words(verb + " --help");
    const std::vector<std::string> asked{std::istream_iterator<std::string>(words), {}};
    const Outcome outcome = lbctl(asked);
    EXPECT_EQ(outcome.code, kExitOk) << verb;
    EXPECT_NE(outcome.out.find(std::string("Example:\n  lbctl ") + verb), std::string::npos) << outcome.out;
    EXPECT_LE(widest_line(outcome.out), 110U) << outcome.out;
  }
}

TEST_F(LbctlTest, WrongUseIsAnErrorNotADifference) {
  EXPECT_EQ(lbctl({}).code, kExitError);
  EXPECT_EQ(lbctl({"get"}).code, kExitError);
  EXPECT_EQ(lbctl({"get", "pods"}).code, kExitError);
  EXPECT_EQ(lbctl({"frobnicate"}).code, kExitError);
  EXPECT_EQ(lbctl({"get", "vips", "-o", "xml"}).code, kExitError);
  EXPECT_EQ(lbctl({"get", "vips", "--timeout", "0"}).code, kExitError);
}

TEST(LbctlVersions, TheOlderSideIsNamed) {
  EXPECT_EQ(compare_versions("0.1.0", "0.1.0"), "");
  EXPECT_EQ(compare_versions("0.9.0", "0.10.0"), "lbctl 0.9.0 is older than lb-cp 0.10.0");
  EXPECT_EQ(compare_versions("1.0", "0.10.7"), "lbctl 1.0 is newer than lb-cp 0.10.7");
}

}  // namespace
}  // namespace lb::cli
