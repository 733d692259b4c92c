// What the API asks of the control loop. Implemented by cp/control; every call is safe from any thread and blocks until the
// controller's thread has done it.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "cp/explain/why.h"
#include "cp/model/live.h"

namespace lb::cp {

struct ApplyOutcome {
  std::vector<Violation> violations;  // not empty: nothing was changed
  std::vector<Violation> warnings;
  std::vector<Change> changes;
  abi::Generation generation;
  bool active = false;
  std::string note;
};

class Operations {
 public:
  virtual ~Operations() = default;
  // Parses, validates, stores, compiles and publishes; waits up to `timeout` for the workers.
  virtual ApplyOutcome apply(const std::string& text, const std::string& file, std::chrono::milliseconds timeout) = 0;
  // As apply, but changes nothing.
  virtual ApplyOutcome diff(const std::string& text, const std::string& file) = 0;
  virtual std::shared_ptr<const LiveState> live() = 0;
  // Drains or undrains the targets at address:port, in one group or (nullopt) in all. Error: no such target.
  virtual tl::expected<std::vector<TargetKey>, std::string> drain(const abi::IpAddress& address, std::uint16_t port,
                                                                  const std::optional<std::string>& group, bool drain) = 0;
  // The snapshot in force and the workers' flow tables, for `why`.
  virtual explain::Context explain_context() = 0;
  // A configuration, or the part of one that is to be shown, as YAML with defaults filled in (cp/config/render).
  virtual std::string render(const Config& config) = 0;
};

}  // namespace lb::cp
