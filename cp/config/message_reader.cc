#include "cp/config/message_reader.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <charconv>
#include <cstdint>
#include <limits>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "cp/config/yaml_tree.h"
#include "proto/config.pb.h"

namespace lb::cp::yaml {
namespace {

namespace pb = google::protobuf;

std::string_view kind_name(const Node& node) {
  switch (node.kind) {
    case Kind::null: return "nothing";
    case Kind::scalar: return "a single value";
    case Kind::sequence: return "a list";
    case Kind::map: return "a map";
  }
  return "?";
}

// What a person wrote, fit for a message: short, printable.
std::string shown(std::string_view text) {
  constexpr std::size_t kLongest = 60;
  std::string result = "'";
  for (const char c : text.substr(0, kLongest)) result += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return result + (text.size() > kLongest ? "…'" : "'");
}

bool is_choice(std::string_view choices, std::string_view text) {
  while (!choices.empty()) {
    const std::size_t end = choices.find(" | ");
    if (choices.substr(0, end) == text) return true;
    if (end == std::string_view::npos) return false;
    choices.remove_prefix(end + 3);
  }
  return false;
}

class Reader {
 public:
  explicit Reader(const Report& report) : report_(report) {}

  // `path_` is the message's own path.
  void read(const Node& node, pb::Message& message) {
    if (node.kind == Kind::null) return;  // `attributes:` with nothing below it is an empty message
    if (node.kind != Kind::map) {
      report_(node.line, path_, "must be a map of fields, not " + std::string(kind_name(node)));
      return;
    }
    std::unordered_set<std::string_view> seen;
    for (std::size_t i = 0; i + 1 < node.children.size(); i += 2) {
      const Node& key = *node.children[i];
      if (key.kind != Kind::scalar) {
        report_(key.line, path_, "a key must be a field's name, not " + std::string(kind_name(key)));
      } else if (!seen.insert(key.text).second) {
        report_(key.line, joined(key.text), "stands here twice");
      } else {
        read_key(key, key.text, *node.children[i + 1], message);
      }
    }
  }

  // After everything is read: fields may come from several keys with dots.
  void check_required(std::uint32_t line, const pb::Message& message) {
    const pb::Reflection& reflection = *message.GetReflection();
    for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
      const pb::FieldDescriptor& field = *message.GetDescriptor()->field(i);
      const bool set =
          field.is_repeated() ? reflection.FieldSize(message, &field) > 0 : reflection.HasField(message, &field);
      if (!set && field.options().GetExtension(config::required)) report_(line, joined(field.name()), "is missing");
    }
  }

 private:
  // A field by a key that may have dots: the first part is the field, the rest a path in it.
  void read_key(const Node& key, std::string_view name, const Node& value, pb::Message& message) {
    const std::size_t dot = name.find('.');
    const std::string_view first = name.substr(0, dot);
    const pb::FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(std::string(first));
    const std::size_t parent = path_.size();
    path_ = joined(first);
    if (field == nullptr) {
      report_(key.line, path_, "unknown field");
    } else if (dot != std::string_view::npos) {
      if (field->is_repeated() || field->message_type() == nullptr) {
        report_(key.line, path_, "has no fields of its own");
      } else {
        read_key(key, name.substr(dot + 1), value, *message.GetReflection()->MutableMessage(&message, field));
      }
    } else {
      read_field(key, *field, value, message);
    }
    path_.resize(parent);
  }

  void read_field(const Node& key, const pb::FieldDescriptor& field, const Node& value, pb::Message& message) {
    const pb::Reflection& reflection = *message.GetReflection();
    if (field.is_repeated()) {
      if (reflection.FieldSize(message, &field) > 0) return report_(key.line, path_, "stands here twice");
      return read_list(field, value, message);
    }
    if (field.message_type() != nullptr) return read(value, *reflection.MutableMessage(&message, &field));
    if (reflection.HasField(message, &field)) return report_(key.line, path_, "stands here twice");
    if (value.kind != Kind::scalar) {
      return report_(key.line, path_, "must be " + wanted(field) + ", not " + std::string(kind_name(value)));
    }
    read_scalar(field, value, message);
  }

  void read_list(const pb::FieldDescriptor& field, const Node& value, pb::Message& message) {
    if (value.kind == Kind::null) return;
    if (value.kind != Kind::sequence)
      return report_(value.line, path_, "must be a list, not " + std::string(kind_name(value)));
    const std::uint32_t longest = field.options().GetExtension(config::length);
    if (value.children.size() > longest) {
      report_(
          value.line, path_,
          "has " + std::to_string(value.children.size()) + " entries, at most " + std::to_string(longest) + " are allowed");
      return;
    }
    const std::size_t parent = path_.size();
    for (std::size_t i = 0; i < value.children.size(); ++i) {
      path_ += '[' + std::to_string(i) + ']';
      pb::Message& element = *message.GetReflection()->AddMessage(&message, &field);
      const Node& node = *value.children[i];
      if (node.kind == Kind::null) {
        report_(node.line, path_, "must be a map of fields, not nothing");
      } else {
        read(node, element);
        if (node.kind == Kind::map) check_required(node.line, element);
      }
      path_.resize(parent);
    }
  }

  void read_scalar(const pb::FieldDescriptor& field, const Node& value, pb::Message& message) {
    const pb::Reflection& reflection = *message.GetReflection();
    const bool secret = field.options().GetExtension(config::secret);
    const auto refuse = [&] {
      report_(value.line, path_, "must be " + wanted(field) + (secret ? "" : ", not " + shown(value.text)));
    };
    switch (field.cpp_type()) {
      case pb::FieldDescriptor::CPPTYPE_BOOL:
        if (value.quoted || (value.text != "true" && value.text != "false")) return refuse();
        return reflection.SetBool(&message, &field, value.text == "true");
      case pb::FieldDescriptor::CPPTYPE_UINT32:
      case pb::FieldDescriptor::CPPTYPE_UINT64: {
        std::uint64_t number = 0;
        const char* end = value.text.data() + value.text.size();
        const auto [at, error] = std::from_chars(value.text.data(), end, number);
        const auto [low, high] = range(field);
        if (value.quoted || error != std::errc{} || at != end || number < low || number > high) return refuse();
        if (field.cpp_type() == pb::FieldDescriptor::CPPTYPE_UINT64) return reflection.SetUInt64(&message, &field, number);
        return reflection.SetUInt32(&message, &field, static_cast<std::uint32_t>(number));
      }
      default: {
        const std::string& choices = field.options().GetExtension(config::choices);
        const std::uint32_t longest = field.options().GetExtension(config::length);
        if (value.text.empty() || (!choices.empty() && !is_choice(choices, value.text)) ||
            (longest != 0 && value.text.size() > longest)) {
          return refuse();
        }
        return reflection.SetString(&message, &field, value.text);
      }
    }
  }

  static std::pair<std::uint64_t, std::uint64_t> range(const pb::FieldDescriptor& field) {
    if (field.options().HasExtension(config::range)) {
      const config::Range& given = field.options().GetExtension(config::range);
      return {given.min(), given.max()};
    }
    const bool wide = field.cpp_type() == pb::FieldDescriptor::CPPTYPE_UINT64;
    return {0, wide ? std::numeric_limits<std::uint64_t>::max() : std::numeric_limits<std::uint32_t>::max()};
  }

  static std::string wanted(const pb::FieldDescriptor& field) {
    switch (field.cpp_type()) {
      case pb::FieldDescriptor::CPPTYPE_BOOL: return "true or false";
      case pb::FieldDescriptor::CPPTYPE_UINT32:
      case pb::FieldDescriptor::CPPTYPE_UINT64: {
        const auto [low, high] = range(field);
        return low == high ? std::to_string(low) : "a whole number " + std::to_string(low) + "-" + std::to_string(high);
      }
      default: {
        const std::string& choices = field.options().GetExtension(config::choices);
        if (!choices.empty()) return choices;
        return "text of 1-" + std::to_string(field.options().GetExtension(config::length)) + " bytes";
      }
    }
  }

  std::string joined(std::string_view name) const {
    return path_.empty() ? std::string(name) : path_ + '.' + std::string(name);
  }

  const Report& report_;
  std::string path_;
};

}  // namespace

void read_message(const Node& root, pb::Message& message, const Report& report) {
  Reader reader(report);
  reader.read(root, message);
  if (root.kind == Kind::map) reader.check_required(root.line, message);
}

}  // namespace lb::cp::yaml
