#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <string_view>
#include <thread>

#include "cli/lbctl.h"

namespace {

bool is_colourful_terminal() {
  const char* term = std::getenv("TERM");
  return ::isatty(STDOUT_FILENO) == 1 && term != nullptr && std::string_view(term) != "dumb";
}

// A watch ends as any command does: by Ctrl-C, or when nobody reads its output any more.
bool wait_for(std::chrono::milliseconds time) {
  std::this_thread::sleep_for(time);
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  const bool terminal = is_colourful_terminal();
  const lb::cli::Io io{.in = std::cin,
                       .out = std::cout,
                       .err = std::cerr,
                       .terminal = terminal,
                       .screen = terminal && ::isatty(STDIN_FILENO) == 1,
                       .wait = wait_for};
  const int code = lb::cli::run({argv + 1, argv + argc}, io);
  std::cout.flush();
  return std::cout.good() ? code : lb::cli::kExitError;
}
