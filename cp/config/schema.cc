#include "cp/config/schema.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "proto/config.pb.h"

namespace lb::cp {

namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

std::string quoted(std::string_view text) {
  return "\"" + std::string(text) + "\"";  // names and choices: plain ASCII without quotes
}

std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : ",") + part;
  return text;
}

// "TCP | UDP" as ["TCP","UDP"].
std::string choices_of(std::string_view text) {
  std::vector<std::string> words;
  while (!text.empty()) {
    const std::size_t bar = std::min(text.find(" | "), text.size());
    words.push_back(quoted(text.substr(0, bar)));
    text.remove_prefix(std::min(bar + 3, text.size()));
  }
  return "[" + joined(words) + "]";
}

// One value, not a list.
std::string value_of(const FieldDescriptor& field) {
  const auto& options = field.options();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_MESSAGE: return R"({"$ref":"#/$defs/)" + field.message_type()->name() + "\"}";
    case FieldDescriptor::CPPTYPE_BOOL: return R"({"type":"boolean"})";
    case FieldDescriptor::CPPTYPE_STRING: {
      if (options.HasExtension(config::choices))
        return R"({"enum":)" + choices_of(options.GetExtension(config::choices)) + "}";
      std::string text = R"({"type":["string","integer"])";  // 80 is a port as well as "80"
      if (options.HasExtension(config::length))
        text += R"(,"maxLength":)" + std::to_string(options.GetExtension(config::length));
      return text + "}";
    }
    default: break;
  }
  std::string text = R"({"type":"integer")";
  const bool ranged = options.HasExtension(config::range);
  text += R"(,"minimum":)" + std::to_string(ranged ? options.GetExtension(config::range).min() : 0);
  if (ranged) text += R"(,"maximum":)" + std::to_string(options.GetExtension(config::range).max());
  return text + "}";
}

std::string schema_of(const FieldDescriptor& field) {
  if (!field.is_repeated()) return value_of(field);
  std::string text = R"({"type":"array","items":)" + value_of(field);
  if (field.options().HasExtension(config::length))
    text += R"(,"maxItems":)" + std::to_string(field.options().GetExtension(config::length));
  return text + "}";
}

// A key with dots is a path: what lies in messages stands under its path too.
void add_properties(const Descriptor& message, const std::string& prefix, std::vector<std::string>& properties) {
  for (int i = 0; i < message.field_count(); ++i) {
    const FieldDescriptor& field = *message.field(i);
    const std::string path = prefix + field.name();
    properties.push_back(quoted(path) + ":" + schema_of(field));
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field.is_repeated())
      add_properties(*field.message_type(), path + ".", properties);
  }
}

std::string object_of(const Descriptor& message) {
  std::vector<std::string> properties;
  add_properties(message, "", properties);
  std::vector<std::string> required;
  for (int i = 0; i < message.field_count(); ++i) {
    if (message.field(i)->options().GetExtension(config::required)) required.push_back(quoted(message.field(i)->name()));
  }
  std::string text = R"("type":"object","additionalProperties":false,"properties":{)" + joined(properties) + "}";
  if (!required.empty()) text += R"(,"required":[)" + joined(required) + "]";
  return text;
}

// Messages that `message` is made of, each once.
void add_definitions(const Descriptor& message, std::vector<const Descriptor*>& found) {
  for (int i = 0; i < message.field_count(); ++i) {
    const Descriptor* type = message.field(i)->message_type();
    if (type == nullptr || std::ranges::find(found, type) != found.end()) continue;
    found.push_back(type);
    add_definitions(*type, found);
  }
}

}  // namespace

std::string config_schema() {
  const Descriptor& root = *config::Config::descriptor();
  std::vector<const Descriptor*> messages;
  add_definitions(root, messages);
  std::vector<std::string> definitions;
  for (const Descriptor* message : messages)
    definitions.push_back(quoted(message->name()) + ":{" + object_of(*message) + "}");
  return R"({"$schema":"https://json-schema.org/draft/2020-12/schema","title":"lb.yaml",)" + object_of(root) +
         R"(,"$defs":{)" + joined(definitions) + "}}\n";
}

}  // namespace lb::cp
