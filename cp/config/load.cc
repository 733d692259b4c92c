#include "cp/config/load.h"

#include <algorithm>
#include <set>
#include <string>

#include "cp/config/message_reader.h"
#include "cp/config/validate.h"
#include "cp/config/yaml_tree.h"
#include "proto/config.pb.h"

namespace lb::cp {
namespace {

class Findings {
 public:
  explicit Findings(std::string_view file) : file_(file) {}

  void add(std::uint32_t line, std::string field, std::string text) {
    // What is said first about a field is said: a value that was refused is not also missing or in conflict.
    if (!field.empty() && !fields_.insert(field).second) return;
    if (list_.size() == kMaxViolations) more_ = true;
    if (list_.size() < kMaxViolations) list_.push_back({file_, line, std::move(field), std::move(text)});
  }

  std::vector<Violation> by_line() {
    std::stable_sort(list_.begin(), list_.end(), [](const Violation& a, const Violation& b) { return a.line < b.line; });
    if (more_) list_.push_back({file_, 0, "", "there are more; only " + std::to_string(kMaxViolations) + " are shown"});
    return std::move(list_);
  }

 private:
  std::string file_;
  std::vector<Violation> list_;
  std::set<std::string> fields_;
  bool more_ = false;
};

}  // namespace

LoadResult load(std::string_view text, std::string_view file) {
  Findings violations(file);
  Findings warnings(file);
  LoadResult result;

  const yaml::Tree tree = yaml::Tree::parse(text);
  for (const yaml::Error& error : tree.errors()) violations.add(error.line, "", error.text);
  if (tree.root() != nullptr) {
    config::Config message;
    yaml::read_message(*tree.root(), message, [&](std::uint32_t line, std::string field, std::string said) {
      violations.add(line, std::move(field), std::move(said));
    });
    const auto at_field = [&tree](Findings& findings) {
      return [&tree, &findings](std::string field, std::string said) {
        const std::uint32_t line = tree.line_of(field);
        findings.add(line, std::move(field), std::move(said));
      };
    };
    result.config = validate(message, {at_field(violations), at_field(warnings)});
  }

  result.violations = violations.by_line();
  result.warnings = warnings.by_line();
  if (!result.violations.empty()) result.config.reset();
  return result;
}

}  // namespace lb::cp
