// What a target group says by itself, without its listeners.
#pragma once

#include <string>

#include "cp/config/validate.h"
#include "cp/model/model.h"

namespace lb::config {
class TargetGroup;
}

namespace lb::cp {

// `path` is the group's, as target_groups[3]. Targets whose address is refused are not in the result; a target without a
// port of its own has the group's, or 0.
TargetGroup validate_group(const lb::config::TargetGroup& file, const std::string& path, const Judgements& judgements);

// TCP for text that the reader has refused.
ListenerProtocol listener_protocol(const std::string& text);

}  // namespace lb::cp
