// Whole command lines against a server that listens on a real socket.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "cli/lbctl.h"
#include "cli/table.h"
#include "cp/api/server.h"
#include "tests/unit/api/fake_operations.h"

namespace lb::cli {

using cp::api_test::FakeOperations;
using cp::api_test::TemporaryDirectory;

struct Outcome {
  int code = 0;
  std::string out;
  std::string err;
};

class LbctlTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto started = server_.start();
    ASSERT_TRUE(started) << started.error();
  }

  Outcome lbctl(std::vector<std::string> arguments, const std::string& input = "", bool terminal = false, int rounds = 1) {
    arguments.insert(arguments.end(), {"--socket", path_});
    std::istringstream in(input);
    std::ostringstream out;
    std::ostringstream err;
    const Io io{.in = in, .out = out, .err = err, .terminal = terminal, .wait = [&](std::chrono::milliseconds time) {
                  waited_ = time;
                  if (between_rounds_) between_rounds_();
                  return --rounds > 0;
                }};
    Outcome outcome;
    outcome.code = run(arguments, io);
    outcome.out = out.str();
    outcome.err = err.str();
    return outcome;
  }

  std::string file(const std::string& content) {
    const std::string name = directory_.path() + "/lb.yaml";
    std::ofstream(name) << content;
    return name;
  }

  static std::size_t widest_line(const std::string& text) {
    std::istringstream lines(text);
    std::size_t widest = 0;
    for (std::string line; std::getline(lines, line);) widest = std::max(widest, display_width(line));
    return widest;
  }

  TemporaryDirectory directory_;
  std::string path_ = directory_.path() + "/cp.sock";
  FakeOperations operations_;
  cp::ApiServer server_{operations_, {.socket_path = path_, .group = ""}};
  std::chrono::milliseconds waited_{0};
  std::function<void()> between_rounds_;
};

}  // namespace lb::cli
