// What follows from one target group alone: its targets' rows and the recipe of its Maglev table. Kept from generation to
// generation, so that a change of one target does not have all other groups sorted and written out again.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "cp/snapshot/compile.h"
#include "cp/snapshot/table_store.h"

namespace lb::cp {

struct GroupPart {
  std::uint64_t version = 0;         // GroupInput's; 0: made for one generation
  std::vector<abi::Target> targets;  // as in the input; `group`, out_port and geneve's tunnel_word are the snapshot's to say
  std::vector<std::uint32_t> ids;    // theirs, same order
  std::vector<std::uint32_t> interfaces;  // of resolved ones: index into interface_names, same order
  std::vector<std::string> interface_names;
  std::vector<std::uint32_t> rotation;        // ids in the order of slot values
  std::shared_ptr<const TableRecipe> recipe;  // nullptr: none is in rotation
  std::uint16_t weight_unit = 1;              // greatest common divisor of the weights in rotation
};

// Error: names group or target, and the limit that was exceeded.
tl::expected<std::shared_ptr<const GroupPart>, std::string> make_group_part(const GroupInput& input);

}  // namespace lb::cp
