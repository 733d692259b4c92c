// One change of a configuration, as an operator asks for it without a file: values are texts, to be judged like a file's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

namespace lb::cp {

enum class EditAction : std::uint8_t { add, set, remove };

struct TargetEdit {
  EditAction action = EditAction::add;
  std::string group;
  std::string target;  // ADDRESS:PORT
  std::optional<std::uint32_t> weight;
};

struct ListenerEdit {
  EditAction action = EditAction::add;  // add or remove
  std::string name;
  std::string vip;
  std::string protocol;
  std::string port;           // N | N-M | any
  std::string target_groups;  // blue:1,green:3
};

using Edit = std::variant<TargetEdit, ListenerEdit>;

}  // namespace lb::cp
