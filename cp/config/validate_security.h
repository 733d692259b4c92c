// The rules of one security group, and its translation into the model.
#pragma once

#include <string>

#include "cp/config/validate.h"
#include "cp/model/model.h"

namespace lb::config {
class SecurityGroup;
}

namespace lb::cp {

// `path`: security_groups[N]. Two rules of the same source, protocol and ports are refused: they contradict each other, or
// one is of no use.
SecurityGroup validate_security_group(const lb::config::SecurityGroup& from, const std::string& path,
                                      const Judgements& judgements);

}  // namespace lb::cp
