// Security groups → tables of the snapshot (dp/abi/security.h): rules in chains, prefixes in a trie.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "cp/model/model.h"
#include "dp/abi/security.h"

namespace lb::cp {

struct SecurityTables {
  std::vector<abi::SecurityGroup> groups;  // same order as given
  std::vector<abi::PrefixNode> nodes;
  std::vector<std::uint32_t> leaves;  // into rules, or abi::kNoIndex
  std::vector<abi::SecurityRule> rules;
  std::vector<char> names;
};

// Deterministic. Of the rules of one prefix, the first of the chain is the one that is asked first: the narrower port range,
// then a rule for one protocol before one for both, then deny before allow, then the one written first.
SecurityTables make_security_tables(std::span<const SecurityGroup> groups);

// rule 17, deny 203.0.113.0/24 TCP 80-443
std::string rule_text(const abi::SecurityRule& rule);

}  // namespace lb::cp
