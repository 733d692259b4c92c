// The schema of lb.yaml for editors: JSON Schema (draft 2020-12), made from proto/config.proto and its options, so that it
// says what load() enforces field by field. What takes more than one field to judge is not in it.
#pragma once

#include <string>

namespace lb::cp {

std::string config_schema();

}  // namespace lb::cp
