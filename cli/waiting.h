// Tells people at a terminal, on standard error, for how long lb-cp has been at work: each second after the first, on one
// line, which is gone when the answer is there. Nothing else may be written to either stream meanwhile.
#pragma once

#include <chrono>
#include <thread>

#include "cli/lbctl.h"

namespace lb::cli {

class Waiting {
 public:
  explicit Waiting(const Io& io, std::chrono::milliseconds every = std::chrono::seconds(1));

 private:
  std::jthread thread_;
};

}  // namespace lb::cli
