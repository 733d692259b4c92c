// Replies as JSON and YAML: every field of the message under its name in proto/api.proto, in its order, default values
// included; an optional field or message that is not set is null; 64-bit numbers are numbers.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace google::protobuf {
class Message;
}

namespace lb::cli {

enum class JsonLayout : unsigned char { pretty, line };

nlohmann::ordered_json to_document(const google::protobuf::Message& message);
// Both end in a newline.
std::string to_json(const nlohmann::ordered_json& document, JsonLayout layout);
std::string to_yaml(const nlohmann::ordered_json& document);

}  // namespace lb::cli
