// lbctl: the operator's tool. It talks to lb-cp alone.
#pragma once

#include <chrono>
#include <functional>
#include <iosfwd>
#include <string>
#include <vector>

namespace lb::cli {

inline constexpr int kExitOk = 0;
inline constexpr int kExitError = 1;
inline constexpr int kExitDiffers = 2;

// The world around a command, so that tests can stand in for it.
struct Io {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  bool terminal = false;  // out is a terminal: colours, and --watch redraws
  bool screen = false;    // in and out are the process's own terminal: `top` may take it whole
  // Waits between two rounds of --watch; false ends it.
  std::function<bool(std::chrono::milliseconds)> wait;
};

// `arguments` without the program's name. Returns an exit code.
int run(const std::vector<std::string>& arguments, const Io& io);

}  // namespace lb::cli
