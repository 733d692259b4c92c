#include "replay/events.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>

namespace lb::replay {
namespace {

constexpr double kMaxAtSeconds = 1e9;  // 31 years: far inside 64 bits of nanoseconds

struct KindName {
  std::string_view name;
  EventKind kind;
};
constexpr std::array kKinds = {
    KindName{"apply", EventKind::apply},         KindName{"drain", EventKind::drain},
    KindName{"undrain", EventKind::undrain},     KindName{"healthy", EventKind::healthy},
    KindName{"unhealthy", EventKind::unhealthy},
};

std::uint32_t line_of(const YAML::Mark& mark) {
  return mark.line < 0 ? 0 : static_cast<std::uint32_t>(mark.line) + 1;
}

// Collects violations of one file while its events are read.
class Reader {
 public:
  explicit Reader(std::string file) : file_(std::move(file)) {}

  tl::expected<std::vector<Event>, std::vector<cp::Violation>> read(const YAML::Node& root) {
    std::vector<Event> events;
    if (root.IsDefined() && !root.IsNull()) {
      if (!root.IsSequence()) {
        violation(root, "", "must be a list of events");
      } else {
        for (std::size_t i = 0; i < root.size(); ++i) {
          if (auto event = read_event(root[i], "[" + std::to_string(i) + "]")) events.push_back(*std::move(event));
        }
      }
    }
    if (!violations_.empty()) return tl::unexpected(std::move(violations_));
    std::stable_sort(events.begin(), events.end(), [](const Event& a, const Event& b) { return a.at_ns < b.at_ns; });
    return events;
  }

 private:
  void violation(const YAML::Node& node, const std::string& field, const std::string& text) {
    violations_.push_back({file_, line_of(node.Mark()), field, text});
  }

  std::optional<Event> read_event(const YAML::Node& node, const std::string& field) {
    const std::size_t violations_before = violations_.size();
    if (!node.IsMap()) {
      violation(node, field, "must be a map {at: SECONDS, apply|drain|undrain|healthy|unhealthy: …}");
      return std::nullopt;
    }
    Event event;
    event.line = line_of(node.Mark());
    bool has_at = false;
    int kinds = 0;
    for (const auto& entry : node) {
      const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "?";
      const std::string path = field + "." + key;
      if (key == "at") {
        has_at = true;
        read_at(entry.second, path, event);
      } else if (const auto* kind =
                     std::find_if(kKinds.begin(), kKinds.end(), [&](const KindName& k) { return k.name == key; });
                 kind != kKinds.end()) {
        ++kinds;
        event.kind = kind->kind;
        read_argument(entry.second, path, event);
      } else {
        violation(entry.first, path, "unknown field; an event has at and one of apply, drain, undrain, healthy, unhealthy");
      }
    }
    if (!has_at) violation(node, field + ".at", "is missing");
    if (kinds != 1) violation(node, field, "must have exactly one of apply, drain, undrain, healthy, unhealthy");
    if (violations_.size() != violations_before) return std::nullopt;
    return event;
  }

  void read_at(const YAML::Node& node, const std::string& field, Event& event) {
    double seconds = 0;
    if (!node.IsScalar() || !YAML::convert<double>::decode(node, seconds) || !(seconds >= 0 && seconds <= kMaxAtSeconds)) {
      violation(node, field, "must be a number of seconds, 0 to 1e9");
      return;
    }
    event.at_ns = static_cast<std::uint64_t>(std::llround(seconds * 1e9));
  }

  void read_argument(const YAML::Node& node, const std::string& field, Event& event) {
    if (event.kind == EventKind::apply) {
      if (!node.IsScalar() || node.Scalar().empty())
        return violation(node, field, "must be the name of a configuration file");
      event.file = (std::filesystem::path(file_).parent_path() / node.Scalar()).string();
      return;
    }
    const auto target = node.IsScalar() ? cp::parse_address_port(node.Scalar()) : std::nullopt;
    if (!target) return violation(node, field, "must be ADDRESS:PORT, as \"10.77.2.2:80\" or \"[2001:db8::2]:80\"");
    event.address = target->address;
    event.port = target->port;
  }

  std::string file_;
  std::vector<cp::Violation> violations_;
};

}  // namespace

tl::expected<std::vector<Event>, std::vector<cp::Violation>> parse_events(const std::string& text, const std::string& file) {
  try {
    return Reader(file).read(YAML::Load(text));
  } catch (const YAML::Exception& error) {
    return tl::unexpected(std::vector<cp::Violation>{{file, line_of(error.mark), "", error.msg}});
  }
}

tl::expected<std::vector<Event>, std::vector<cp::Violation>> load_events(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream text;
  if (!stream || !(text << stream.rdbuf() || stream.peek() == std::ifstream::traits_type::eof())) {
    return tl::unexpected(std::vector<cp::Violation>{{file, 0, "", std::strerror(errno)}});
  }
  return parse_events(text.str(), file);
}

}  // namespace lb::replay
