// A target group's `quic` block and its targets' server IDs.
#pragma once

#include <string>

#include "cp/config/validate.h"
#include "cp/model/model.h"

namespace lb::config {
class TargetGroup;
}

namespace lb::cp {

// The server IDs of a target as the model has them. `path` is the field's.
std::string read_server_id(const std::string& text, const std::string& path, const Judgements& judgements);

// `group` has its targets, mode, protocol and algorithm; gets its quic configs.
void validate_quic(const lb::config::TargetGroup& file, const std::string& path, const Judgements& judgements,
                   TargetGroup& group);

// The two groups of a listener whose configs have an id in common, and so cannot be told apart: "'a' and 'b' … config 2".
// Empty: there are none.
std::string quic_clash(const std::vector<const TargetGroup*>& groups);

}  // namespace lb::cp
