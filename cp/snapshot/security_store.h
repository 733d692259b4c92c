// The sealed segment of all security groups (dp/abi/security.h), shared by the generations in which no rule has changed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "cp/snapshot/compile.h"

namespace lb::cp {

class SecurityStore {
 public:
  // nullptr: there are no groups. Error: too many rules for a snapshot, or what the operating system refused; nothing has
  // changed then. `epoch` goes into the id of a new segment.
  tl::expected<std::shared_ptr<const SegmentMemory>, std::string> update(const std::vector<SecurityGroup>& groups,
                                                                         std::uint64_t epoch);

 private:
  std::vector<SecurityGroup> groups_;
  std::shared_ptr<const SegmentMemory> memory_;
  std::uint32_t next_segment_ = 1U << 31;  // TableStore counts from 1
};

}  // namespace lb::cp
