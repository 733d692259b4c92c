#include "cp/config/diff.h"

#include <map>
#include <string>

#include "cp/config/fields.h"

namespace lb::cp {
namespace {

class Differ {
 public:
  void fields(const std::string& object, const Fields& from, const Fields& to) {
    std::map<std::string, std::string> old_values(from.begin(), from.end());
    for (const auto& [name, value] : to) {
      const std::string old_value = old_values[name];
      if (old_value != value) changes_.push_back({"change", object, name, old_value, value});
      old_values.erase(name);
    }
    for (const auto& [name, value] : old_values) {
      if (!value.empty()) changes_.push_back({"change", object, name, value, ""});
    }
  }

  // `key_of` names an object; `inside(old or null, new or null)` tells what lies in it.
  template <typename Object, typename KeyOf, typename Inside>
  void lists(const std::string& kind, const std::vector<Object>& from, const std::vector<Object>& to, KeyOf key_of,
             Inside inside) {
    std::map<std::string, std::pair<const Object*, const Object*>> pairs;
    for (const Object& object : from) pairs[key_of(object)].first = &object;
    for (const Object& object : to) pairs[key_of(object)].second = &object;
    for (const auto& [key, pair] : pairs) {
      if (pair.second != nullptr) continue;
      changes_.push_back({"remove", kind + " " + key, "", "", ""});
      inside(pair.first, nullptr);
    }
    for (const auto& [key, pair] : pairs) {
      if (pair.second == nullptr) continue;
      if (pair.first == nullptr) {
        changes_.push_back({"add", kind + " " + key, "", "", ""});
      } else {
        fields(kind + " " + key, fields_of(*pair.first), fields_of(*pair.second));
      }
      inside(pair.first, pair.second);
    }
  }

  void groups(const std::vector<TargetGroup>& from, const std::vector<TargetGroup>& to) {
    const auto name = [](const TargetGroup& group) { return group.name; };
    lists("target-group", from, to, name, [this](const TargetGroup* old_group, const TargetGroup* new_group) {
      const std::vector<Target> none;
      lists(
          "target " + (new_group != nullptr ? new_group : old_group)->name, old_group != nullptr ? old_group->targets : none,
          new_group != nullptr ? new_group->targets : none,
          [](const Target& target) { return format_address_port(target.address, target.port); },
          [](const void*, const void*) {});
      const std::vector<QuicConfig> no_configs;
      const std::string kind = "quic-config " + (new_group != nullptr ? new_group : old_group)->name;
      lists(
          kind, old_group != nullptr ? old_group->quic : no_configs, new_group != nullptr ? new_group->quic : no_configs,
          [](const QuicConfig& config) { return std::to_string(config.id); },
          [&](const QuicConfig* old_config, const QuicConfig* new_config) { key_change(kind, old_config, new_config); });
    });
  }

  void security_groups(const std::vector<SecurityGroup>& from, const std::vector<SecurityGroup>& to) {
    const auto name = [](const SecurityGroup& group) { return group.name; };
    lists("security-group", from, to, name, [this](const SecurityGroup* old_group, const SecurityGroup* new_group) {
      const std::vector<SecurityRule> none;
      lists(
          "security-rule " + (new_group != nullptr ? new_group : old_group)->name,
          old_group != nullptr ? old_group->rules : none, new_group != nullptr ? new_group->rules : none,
          [](const SecurityRule& rule) { return format_scope(rule); }, [](const void*, const void*) {});
    });
  }

  std::vector<Change> take() { return std::move(changes_); }

 private:
  // Two keys look the same where they are hidden.
  void key_change(const std::string& kind, const QuicConfig* from, const QuicConfig* to) {
    if (from == nullptr || to == nullptr || !from->key || !to->key || from->key == to->key) return;
    changes_.push_back({"change", kind + " " + std::to_string(to->id), "key", "hidden", "hidden, another one"});
  }

  std::vector<Change> changes_;
};

}  // namespace

std::vector<Change> diff(const Config& from, const Config& to) {
  const auto name = [](const auto& object) { return object.name; };
  const auto nothing_inside = [](const void*, const void*) {};
  Differ differ;
  differ.fields("config", global_fields_of(from), global_fields_of(to));
  differ.lists("vip", from.vips, to.vips, name, nothing_inside);
  differ.lists("listener", from.listeners, to.listeners, name, nothing_inside);
  differ.groups(from.groups, to.groups);
  if (from.security_groups != to.security_groups) differ.security_groups(from.security_groups, to.security_groups);
  differ.lists(
      "static-neighbour", from.static_neighbours, to.static_neighbours,
      [](const StaticNeighbour& neighbour) { return format_address(neighbour.address); }, nothing_inside);
  return differ.take();
}

}  // namespace lb::cp
