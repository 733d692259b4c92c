// Who owns how many slots: read back from a compiled snapshot, for `lbctl get targets`. Remembers groups whose table is the
// same as before. Thread: one.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>

#include "cp/snapshot/compile.h"

namespace lb::cp {

class SlotShares {
 public:
  struct Group {
    std::uint64_t table_hash = 0;
    std::unordered_map<std::uint32_t, double> share;  // of the slots, by target id, 0-1
  };

  // Thus far unseen tables are counted: one pass over their slots.
  void update(const CompiledSnapshot& snapshot);
  // nullptr: no such group in the last snapshot.
  [[nodiscard]] const Group* find(const std::string& group) const;

 private:
  struct Known {
    Group group;
    std::vector<std::uint32_t> targets;  // ids in slot-value order
  };
  std::map<std::string, Known> groups_;
};

}  // namespace lb::cp
