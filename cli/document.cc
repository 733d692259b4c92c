#include "cli/document.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <nlohmann/json.hpp>
#include <string_view>

namespace lb::cli {

namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using nlohmann::ordered_json;

ordered_json single(const Message& message, const FieldDescriptor& field) {
  const auto& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32: return reflection.GetInt32(message, &field);
    case FieldDescriptor::CPPTYPE_INT64: return reflection.GetInt64(message, &field);
    case FieldDescriptor::CPPTYPE_UINT32: return reflection.GetUInt32(message, &field);
    case FieldDescriptor::CPPTYPE_UINT64: return reflection.GetUInt64(message, &field);
    case FieldDescriptor::CPPTYPE_DOUBLE: return reflection.GetDouble(message, &field);
    case FieldDescriptor::CPPTYPE_FLOAT: return reflection.GetFloat(message, &field);
    case FieldDescriptor::CPPTYPE_BOOL: return reflection.GetBool(message, &field);
    case FieldDescriptor::CPPTYPE_ENUM: return reflection.GetEnum(message, &field)->name();
    case FieldDescriptor::CPPTYPE_STRING: return reflection.GetString(message, &field);
    case FieldDescriptor::CPPTYPE_MESSAGE: return to_document(reflection.GetMessage(message, &field));
  }
  return nullptr;
}

ordered_json element(const Message& message, const FieldDescriptor& field, int i) {
  const auto& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32: return reflection.GetRepeatedInt32(message, &field, i);
    case FieldDescriptor::CPPTYPE_INT64: return reflection.GetRepeatedInt64(message, &field, i);
    case FieldDescriptor::CPPTYPE_UINT32: return reflection.GetRepeatedUInt32(message, &field, i);
    case FieldDescriptor::CPPTYPE_UINT64: return reflection.GetRepeatedUInt64(message, &field, i);
    case FieldDescriptor::CPPTYPE_DOUBLE: return reflection.GetRepeatedDouble(message, &field, i);
    case FieldDescriptor::CPPTYPE_FLOAT: return reflection.GetRepeatedFloat(message, &field, i);
    case FieldDescriptor::CPPTYPE_BOOL: return reflection.GetRepeatedBool(message, &field, i);
    case FieldDescriptor::CPPTYPE_ENUM: return reflection.GetRepeatedEnum(message, &field, i)->name();
    case FieldDescriptor::CPPTYPE_STRING: return reflection.GetRepeatedString(message, &field, i);
    case FieldDescriptor::CPPTYPE_MESSAGE: return to_document(reflection.GetRepeatedMessage(message, &field, i));
  }
  return nullptr;
}

std::string dump(const ordered_json& value, int indent) {
  return value.dump(indent, ' ', false, ordered_json::error_handler_t::replace);
}

// A plain scalar only where no reader of YAML 1.1 or 1.2 could take it for a number, a boolean, null or a date.
bool is_plain(const std::string& text) {
  static constexpr std::array<std::string_view, 9> kWords = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"};
  const auto is_alpha = [](char c) {
    return std::isalpha(static_cast<unsigned char>(c)) != 0 && static_cast<unsigned char>(c) < 128;
  };
  if (text.empty() || !is_alpha(text.front())) return false;
  std::string lower = text;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (std::find(kWords.begin(), kWords.end(), lower) != kWords.end()) return false;
  return std::all_of(text.begin(), text.end(), [&](char c) {
    return is_alpha(c) || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.' || c == '/';
  });
}

bool is_block(const std::string& text) {
  return text.find('\n') != std::string::npos && text.front() != ' ' && text.front() != '\n' && text.back() == '\n' &&
         (text.size() < 2 || text[text.size() - 2] != '\n') && std::all_of(text.begin(), text.end(), [](char c) {
           return c == '\n' || (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
         });
}

void append_yaml(std::string& out, const ordered_json& value, std::size_t indent);

// A value behind "key:" or "-": on the same line, or as an indented block.
void append_value(std::string& out, const ordered_json& value, std::size_t indent) {
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    if (!text.empty() && is_block(text)) {
      out += " |\n";
      std::size_t at = 0;
      while (at < text.size()) {
        const std::size_t end = text.find('\n', at);
        if (end != at) out += std::string(indent, ' ') + text.substr(at, end - at);
        out += '\n';
        at = end + 1;
      }
      return;
    }
    out += ' ' + (is_plain(text) ? text : dump(value, -1)) + '\n';
  } else if ((value.is_object() || value.is_array()) && !value.empty()) {
    out += '\n';
    append_yaml(out, value, indent);
  } else {
    out += ' ' + dump(value, -1) + '\n';
  }
}

void append_yaml(std::string& out, const ordered_json& value, std::size_t indent) {
  const std::string blanks(indent, ' ');
  if (value.is_object()) {
    for (const auto& [key, member] : value.items()) {
      out += blanks + key + ':';
      append_value(out, member, indent + 2);
    }
    return;
  }
  for (const auto& item : value) {
    if (item.is_object() && !item.empty()) {  // the first key stands behind the dash
      std::string block;
      append_yaml(block, item, indent + 2);
      block[indent] = '-';
      out += block;
    } else {
      out += blanks + '-';
      append_value(out, item, indent + 2);
    }
  }
}

}  // namespace

ordered_json to_document(const Message& message) {
  const auto& descriptor = *message.GetDescriptor();
  const auto& reflection = *message.GetReflection();
  ordered_json document = ordered_json::object();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor& field = *descriptor.field(i);
    ordered_json& value = document[field.name()];
    if (field.is_repeated()) {
      value = ordered_json::array();
      for (int k = 0; k < reflection.FieldSize(message, &field); ++k) value.push_back(element(message, field, k));
    } else if (field.has_presence() && !reflection.HasField(message, &field)) {
      value = nullptr;
    } else {
      value = single(message, field);
    }
  }
  return document;
}

std::string to_json(const ordered_json& document, JsonLayout layout) {
  return dump(document, layout == JsonLayout::pretty ? 2 : -1) + '\n';
}

std::string to_yaml(const ordered_json& document) {
  if (document.empty()) return "{}\n";
  std::string out;
  append_yaml(out, document, 0);
  return out;
}

}  // namespace lb::cli
