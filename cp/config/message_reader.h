// YAML tree → protobuf message, by reflection: the schema is the parser. Checks what the schema's options say (range,
// choices, length, required).
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace google::protobuf {
class Message;
}

namespace lb::cp::yaml {

struct Node;

// line: of the offending node.
using Report = std::function<void(std::uint32_t line, std::string field, std::string text)>;

// Fills `message` from the map `root`. A field that is reported is left unset.
void read_message(const Node& root, google::protobuf::Message& message, const Report& report);

}  // namespace lb::cp::yaml
