#include "cp/snapshot/security_store.h"

#include <cstring>

#include "cp/snapshot/security_table.h"
#include "cp/snapshot/segment_bytes.h"

namespace lb::cp {

tl::expected<std::shared_ptr<const SegmentMemory>, std::string> SecurityStore::update(
    const std::vector<SecurityGroup>& groups, std::uint64_t epoch) {
  if (groups == groups_) return memory_;
  if (groups.empty()) {
    groups_.clear();
    memory_.reset();
    return memory_;
  }
  const SecurityTables tables = make_security_tables(groups);
  if (tables.rules.size() > abi::kMaxSecurityRules) {
    return tl::unexpected(std::to_string(tables.rules.size()) + " security rules (any source counts twice), at most " +
                          std::to_string(abi::kMaxSecurityRules) + " fit into a snapshot");
  }
  std::vector<std::byte> bytes(aligned(sizeof(abi::SecurityRoot)));
  const auto add = [&](const auto& elements) -> abi::Table {
    const std::size_t offset = bytes.size();
    const std::size_t size = elements.size() * sizeof(elements[0]);
    bytes.resize(aligned(offset + size));
    if (size != 0) std::memcpy(bytes.data() + offset, elements.data(), size);
    return {offset, static_cast<std::uint32_t>(elements.size()), 0};
  };
  auto root = abi::SecurityRoot();  // value-initialized, padding too
  root.groups = add(tables.groups);
  root.nodes = add(tables.nodes);
  root.leaves = add(tables.leaves);
  root.rules = add(tables.rules);
  root.names = add(tables.names);
  std::memcpy(bytes.data(), &root, sizeof root);
  const std::uint64_t id = epoch << 32 | next_segment_++;
  write_segment_header(bytes, abi::SegmentKind::security, id);
  auto memory = seal(bytes, id);
  if (!memory) return tl::unexpected(memory.error());
  groups_ = groups;
  memory_ = std::move(*memory);
  return memory_;
}

}  // namespace lb::cp
