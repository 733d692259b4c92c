#include "dp/io/config.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <map>
#include <sstream>
#include <utility>

namespace lb::io {
namespace {

constexpr std::size_t kMaxInterfaceName = 15;  // IFNAMSIZ - 1
constexpr std::size_t kMaxPorts = 32;          // abi::kMaxPorts
constexpr std::size_t kMaxWorkers = 64;
constexpr std::uint32_t kMaxAfXdpMbufBytes = 3840;  // one 4 KiB UMEM frame

constexpr auto kDrivers = std::to_array<std::pair<std::string_view, Driver>>({
    {"af_xdp", Driver::af_xdp},
    {"af_packet", Driver::af_packet},
    {"memif", Driver::memif},
    {"pcap", Driver::pcap},
    {"ring", Driver::ring},
    {"null", Driver::null},
    {"tap", Driver::tap},
    {"virtio_user", Driver::virtio_user},
    {"pci", Driver::pci},
});

constexpr auto kSwitch = std::to_array<std::pair<std::string_view, bool>>({{"on", true}, {"off", false}});

std::uint32_t line_of(const YAML::Node& node) {
  return node.Mark().is_null() ? 0 : static_cast<std::uint32_t>(node.Mark().line) + 1;
}

// One mapping of the file, read key by key; finish() reports the keys that nobody asked for.
class Section {
 public:
  Section(const YAML::Node& node, std::string field, const std::string& file, std::vector<std::string>& errors)
      : node_(node), field_(std::move(field)), file_(file), errors_(errors) {
    if (node_.IsDefined() && !node_.IsNull() && !node_.IsMap()) {
      error(line_of(node_), field_, "must be a mapping");
      node_ = YAML::Node();
    }
    if (!node_.IsMap()) return;
    for (const auto& entry : node_) {
      const std::string key = entry.first.Scalar();
      if (!unread_.emplace(key, line_of(entry.first)).second) error(line_of(entry.first), path(key), "given twice");
    }
  }

  [[nodiscard]] std::string path(const std::string& key) const { return field_.empty() ? key : field_ + "." + key; }
  [[nodiscard]] std::uint32_t line(const std::string& key) const {
    const YAML::Node node = find(key);
    return node.IsDefined() ? line_of(node) : line_of(node_);
  }

  void error(std::uint32_t line, const std::string& field, const std::string& text) {
    errors_.push_back(file_ + ":" + std::to_string(line) + ": " + (field.empty() ? "" : field + ": ") + text);
  }
  void error_at(const std::string& key, const std::string& text) { error(line(key), path(key), text); }

  // The node under `key`; undefined if absent.
  YAML::Node take(const std::string& key) {
    unread_.erase(key);
    return find(key);
  }

  Section section(const std::string& key) { return Section(take(key), path(key), file_, errors_); }

  bool text(const std::string& key, std::string& out) {
    const YAML::Node node = take(key);
    if (!node.IsDefined()) return false;
    if (!node.IsScalar() || node.Scalar().empty()) {
      error_at(key, "must be a text that is not empty");
      return false;
    }
    out = node.Scalar();
    return true;
  }

  bool number(const std::string& key, std::uint32_t low, std::uint32_t high, std::uint32_t& out) {
    const YAML::Node node = take(key);
    if (!node.IsDefined()) return false;
    const std::string given = node.IsScalar() ? node.Scalar() : "";
    const bool digits = !given.empty() && given.size() <= 10 && given.find_first_not_of("0123456789") == std::string::npos;
    const std::uint64_t value = digits ? std::stoull(given) : 0;
    if (!digits || value < low || value > high) {
      error_at(key, "must be a number from " + std::to_string(low) + " to " + std::to_string(high));
      return false;
    }
    out = static_cast<std::uint32_t>(value);
    return true;
  }

  bool absolute_path(const std::string& key, std::string& out) {
    if (!text(key, out)) return false;
    if (out.front() == '/') return true;
    error_at(key, "must be an absolute path");
    return false;
  }

  template <typename T, std::size_t N>
  bool choice(const std::string& key, const std::array<std::pair<std::string_view, T>, N>& choices, T& out) {
    std::string given = "null";  // a word that YAML takes for nothing: `driver: null`
    if (!take(key).IsNull() && !text(key, given)) return false;
    std::string known;
    for (const auto& [word, value] : choices) {
      if (word == given) {
        out = value;
        return true;
      }
      known += (known.empty() ? "" : ", ") + std::string(word);
    }
    error_at(key, "unknown value '" + given + "'; known: " + known);
    return false;
  }

  void finish() {
    for (const auto& [key, line] : unread_) error(line, path(key), "unknown key");
  }

 private:
  [[nodiscard]] YAML::Node find(const std::string& key) const {
    // An absent key gives a node that may not even be asked for its type: Undefined instead.
    if (node_.IsMap() && node_[key].IsDefined()) return node_[key];
    return YAML::Node(YAML::NodeType::Undefined);
  }

  YAML::Node node_;
  std::string field_;
  const std::string& file_;
  std::vector<std::string>& errors_;
  std::map<std::string, std::uint32_t> unread_;  // with lines
};

// The elements of a list under `key`, each as a Section; an absent or empty list is an error.
template <typename Read>
void read_list(Section& parent, const std::string& key, const std::string& file, std::vector<std::string>& errors,
               std::size_t max_count, Read read) {
  const YAML::Node list = parent.take(key);
  if (!list.IsDefined() || !list.IsSequence() || list.size() == 0) {
    parent.error_at(key, "must be a list with at least one element");
    return;
  }
  if (list.size() > max_count) parent.error_at(key, "has more than " + std::to_string(max_count) + " elements");
  for (std::size_t i = 0; i < list.size(); ++i) {
    Section element(list[i], parent.path(key) + "[" + std::to_string(i) + "]", file, errors);
    read(element, line_of(list[i]));
    element.finish();
  }
}

bool check_interface_name(Section& section, const std::string& key, const std::string& name) {
  if (name.size() <= kMaxInterfaceName && name.find_first_of("/ \t:") == std::string::npos && name != "." && name != "..")
    return true;
  section.error_at(key, "must be an interface name: 1 to 15 bytes without '/', ':' and blanks");
  return false;
}

void read_port(Section& section, std::uint32_t line, DpConfig& config) {
  PortConfig port;
  port.line = line;
  if (section.text("name", port.name)) {
    check_interface_name(section, "name", port.name);
    for (const PortConfig& other : config.ports) {
      if (other.name == port.name) section.error_at("name", "'" + port.name + "' is the name of another port");
    }
  } else if (!section.take("name").IsDefined()) {
    section.error(line, section.path("name"), "missing");
  }
  if (!section.choice("driver", kDrivers, port.driver) && !section.take("driver").IsDefined()) {
    section.error(line, section.path("driver"), "missing");
  }
  const bool netdev = port.driver == Driver::af_xdp || port.driver == Driver::af_packet;
  port.interface = port.name;
  if (section.text("interface", port.interface)) {
    if (!netdev && port.driver != Driver::tap) {
      section.error_at("interface", "only for af_xdp, af_packet and tap");
    } else {
      check_interface_name(section, "interface", port.interface);
    }
  }
  const bool has_address = section.text("address", port.address);
  if (has_address && port.driver != Driver::pci) section.error_at("address", "only for pci");
  if (!has_address && port.driver == Driver::pci)
    section.error(line, section.path("address"), "missing: the device's PCI address");
  section.text("devargs", port.devargs);

  const bool tap_by_default =
      port.driver == Driver::memif || port.driver == Driver::virtio_user || port.driver == Driver::pci;
  port.twin = netdev ? Twin::netdev : tap_by_default ? Twin::tap : Twin::none;
  constexpr auto kTwins = std::to_array<std::pair<std::string_view, Twin>>({{"tap", Twin::tap}, {"none", Twin::none}});
  const YAML::Node given = section.take("kernel_twin");
  if (given.IsDefined() && netdev) {
    section.error_at("kernel_twin", "not for af_xdp and af_packet: the interface itself is the twin");
  } else if (given.IsDefined()) {
    section.choice("kernel_twin", kTwins, port.twin);
  }
  config.ports.push_back(std::move(port));
}

void read_root(Section& root, const std::string& file, std::vector<std::string>& errors, DpConfig& config) {
  if (root.text("name", config.name)) {
    if (config.name.size() > 32 || config.name.find_first_of("/ \t") != std::string::npos) {
      root.error_at("name", "must be 1 to 32 bytes without '/' and blanks");
    }
  }
  config.bpf_dir = "/run/lb/bpf/" + config.name;
  root.absolute_path("control_socket", config.control_socket);
  if (config.control_socket.size() > 107) root.error_at("control_socket", "longer than the 107 bytes a Unix socket allows");
  root.absolute_path("state_dir", config.state_dir);
  root.absolute_path("bpf_dir", config.bpf_dir);

  Section idle = root.section("idle");
  idle.number("after_empty_polls", 0, 1U << 30, config.idle.after_empty_polls);
  idle.number("sleep_us", 1, 1000, config.idle.sleep_us);
  idle.finish();

  config.workers_line = root.line("workers");
  read_list(root, "workers", file, errors, kMaxWorkers, [&](Section& section, std::uint32_t line) {
    WorkerConfig worker;
    if (section.number("lcore", 0, 1023, worker.cpu)) {
      for (const WorkerConfig& other : config.workers) {
        if (other.cpu != worker.cpu || config.idle.after_empty_polls != 0) continue;
        section.error_at("lcore",
                         "CPU " + std::to_string(worker.cpu) +
                             " already has a worker, and only those that sleep (idle.after_empty_polls) can share one");
      }
    } else if (!section.take("lcore").IsDefined()) {
      section.error(line, section.path("lcore"), "missing");
    }
    config.workers.push_back(worker);
  });
  read_list(root, "ports", file, errors, kMaxPorts,
            [&](Section& section, std::uint32_t line) { read_port(section, line, config); });
}

void read_tunables(Section& root, DpConfig& config) {
  Section memory = root.section("memory");
  constexpr auto kModes = std::to_array<std::pair<std::string_view, MemoryMode>>(
      {{"auto", MemoryMode::automatic}, {"hugepages", MemoryMode::hugepages}, {"no_huge", MemoryMode::no_huge}});
  config.memory.line = root.line("memory");
  memory.choice("mode", kModes, config.memory.mode);
  memory.number("size_mb", 64, 1U << 20, config.memory.size_mb);
  memory.number("mbufs", 1024, 1U << 24, config.memory.mbufs);
  memory.number("mbuf_bytes", 2176, 9600, config.memory.mbuf_bytes);
  for (const PortConfig& port : config.ports) {
    if (port.driver == Driver::af_xdp && config.memory.mbuf_bytes > kMaxAfXdpMbufBytes) {
      memory.error_at("mbuf_bytes", "must be at most " + std::to_string(kMaxAfXdpMbufBytes) + " with an af_xdp port");
      break;
    }
  }
  memory.finish();

  Section flow_table = root.section("flow_table");
  flow_table.number("flows_per_worker", 1024, 1U << 28, config.flow_table.flows_per_worker);
  flow_table.number("translations_per_worker", 1024, 1U << 24, config.flow_table.translations_per_worker);
  flow_table.absolute_path("path", config.flow_table.path);
  flow_table.finish();

  Section capacity = root.section("capacity");
  capacity.number("targets", 1, 1U << 20, config.capacity.targets);
  capacity.number("listeners", 1, 1U << 16, config.capacity.listeners);
  capacity.finish();

  Section punt = root.section("punt");
  if (punt.text("tap", config.punt.tap)) {
    if (config.punt.tap == "none") {
      config.punt.tap.clear();
    } else {
      check_interface_name(punt, "tap", config.punt.tap);
    }
  }
  punt.number("packets_per_second", 1, 1U << 24, config.punt.packets_per_second);
  punt.finish();

  Section sandbox = root.section("sandbox");
  config.sandbox.user_required = sandbox.text("user", config.sandbox.user);
  sandbox.choice("seccomp", kSwitch, config.sandbox.seccomp);
  sandbox.finish();
}

}  // namespace

std::string_view to_string(Driver driver) {
  for (const auto& [word, value] : kDrivers) {
    if (value == driver) return word;
  }
  return "?";
}

tl::expected<DpConfig, std::vector<std::string>> parse_config(const std::string& text, const std::string& file) {
  std::vector<std::string> errors;
  DpConfig config;
  config.file = file;
  try {
    const YAML::Node document = YAML::Load(text);
    if (!document.IsMap()) return tl::unexpected(std::vector{file + ":1: must be a mapping"});
    Section root(document, "", file, errors);
    read_root(root, file, errors, config);
    read_tunables(root, config);
    root.finish();
  } catch (const YAML::Exception& e) {
    errors.push_back(file + ":" + std::to_string(e.mark.line + 1) + ": " + e.msg);
  }
  if (!errors.empty()) return tl::unexpected(std::move(errors));
  return config;
}

tl::expected<DpConfig, std::vector<std::string>> load_config(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  if (in) text << in.rdbuf();  // fails on an empty file, which is then told as what it is
  if (!in || in.bad()) return tl::unexpected(std::vector{path + ": " + std::strerror(errno)});
  return parse_config(text.str(), path);
}

}  // namespace lb::io
