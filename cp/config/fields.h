// Every object of a configuration as (field, value) texts, under the names of the file: what diff compares and render
// writes.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "cp/model/model.h"

namespace lb::cp {

using Fields = std::vector<std::pair<std::string, std::string>>;  // name with dots → value; an empty value is left out

// Without `name`, and without lists of objects (targets).
Fields fields_of(const Vip& vip);
Fields fields_of(const Listener& listener);
Fields fields_of(const TargetGroup& group);
Fields fields_of(const Target& target);              // weight, server_id
Fields fields_of(const QuicConfig& config);          // its key only as "hidden"
Fields fields_of(const StaticNeighbour& neighbour);  // mac, interface
Fields fields_of(const SecurityGroup& group);        // default
Fields fields_of(const SecurityRule& rule);          // action
std::string format_scope(const SecurityRule& rule);  // whom a rule is about: 203.0.113.0/24 TCP 80-443
Fields global_fields_of(const Config& config);       // seed, tunnel_source

// blue:1,green:3
std::string format_shares(const std::vector<WeightedGroup>& groups);

}  // namespace lb::cp
