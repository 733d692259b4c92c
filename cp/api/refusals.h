// How calls are refused: with the field of the request, or with what there is instead.
#pragma once

#include <string>

namespace grpc {
class Status;
}

namespace lb::cp {

grpc::Status invalid(const std::string& field, const std::string& text);  // "FIELD: TEXT"
std::string quoted(const std::string& text);                              // `text`, as UTF-8

}  // namespace lb::cp
