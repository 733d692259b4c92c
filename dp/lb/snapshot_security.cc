#include "dp/lb/snapshot_security.h"

#include <bit>

#include "dp/lb/snapshot_checks.h"

namespace lb {
namespace {

Check check_groups(const SecurityView& view) {
  for (std::size_t i = 0; i < view.groups.size(); ++i) {
    const abi::SecurityGroup& group = view.groups[i];
    if (group.root_v4 >= view.nodes.size() || group.root_v6 >= view.nodes.size()) {
      return refuse(kBounds, "security groups[%zu]: roots %u and %u of %zu nodes", i, group.root_v4, group.root_v6,
                    view.nodes.size());
    }
    if (group.allow_by_default > 1) return refuse(kBounds, "security groups[%zu]: default %u", i, group.allow_by_default);
    if (group.name.offset > view.names.size() || group.name.length > view.names.size() - group.name.offset)
      return refuse(kBounds, "security groups[%zu]: name at %u with %u bytes", i, group.name.offset, group.name.length);
  }
  return {};
}

// A lookup takes child or leaf number popcount(bits up to its slot) - 1: there must be one for every slot.
Check check_nodes(const SecurityView& view) {
  for (std::size_t i = 0; i < view.nodes.size(); ++i) {
    const abi::PrefixNode& node = view.nodes[i];
    const auto children = static_cast<std::size_t>(std::popcount(node.children));
    const auto leaves = static_cast<std::size_t>(std::popcount(node.leaves));
    if (children > 0 && (node.first_child > view.nodes.size() || children > view.nodes.size() - node.first_child))
      return refuse(kBounds, "security nodes[%zu]: %zu children at %u of %zu", i, children, node.first_child,
                    view.nodes.size());
    if (node.first_leaf > view.leaves.size() || leaves > view.leaves.size() - node.first_leaf)
      return refuse(kBounds, "security nodes[%zu]: %zu leaves at %u of %zu", i, leaves, node.first_leaf, view.leaves.size());
    const auto first = static_cast<std::uint32_t>(std::countr_one(node.children));  // slot without a child
    if (first < 64 && (node.leaves & ~std::uint64_t{0} >> (63 - first)) == 0)
      return refuse(kBounds, "security nodes[%zu]: slot %u has neither child nor leaf", i, first);
  }
  for (std::size_t i = 0; i < view.leaves.size(); ++i) {
    if (view.leaves[i] != abi::kNoIndex && view.leaves[i] >= view.rules.size())
      return refuse(kBounds, "security leaves[%zu]: rule %u of %zu", i, view.leaves[i], view.rules.size());
  }
  return {};
}

Check check_rules(const SecurityView& view) {
  for (std::size_t i = 0; i < view.rules.size(); ++i) {
    const abi::SecurityRule& rule = view.rules[i];
    if (rule.next != abi::kNoIndex && rule.next >= i) return refuse(kBounds, "security rules[%zu]: next %u", i, rule.next);
    if (rule.first_port > rule.last_port || rule.prefix_length > 128 || rule.allow > 1 || rule.any_source > 1 ||
        rule.protocols > (abi::kSecurityTcp | abi::kSecurityUdp)) {
      return refuse(kBounds, "security rules[%zu]: ports %u-%u, length %u, protocols %u, allow %u", i, rule.first_port,
                    rule.last_port, rule.prefix_length, rule.protocols, rule.allow);
    }
  }
  return {};
}

}  // namespace

tl::expected<SecurityView, SnapshotError> verify_security(SegmentBytes& segment) {
  if (segment.bytes.size() < sizeof(abi::SecurityRoot))
    return refuse(abi::Refusal::size, "security segment has %zu bytes", segment.bytes.size());
  const auto& root = *reinterpret_cast<const abi::SecurityRoot*>(segment.bytes.data());
  SecurityView view;
  const auto take = [&](auto& to, const abi::Table& table, std::uint64_t most, const char* what) -> Check {
    using Element = std::remove_cvref_t<decltype(to[0])>;
    auto found = table_of<Element>(segment.bytes, table, most, what);
    if (!found) return tl::unexpected(found.error());
    to = *found;
    return {};
  };
  Check ok = take(view.groups, root.groups, abi::kMaxSecurityGroups, "security groups")
                 .and_then([&] { return take(view.nodes, root.nodes, 1U << 26, "security nodes"); })
                 .and_then([&] { return take(view.leaves, root.leaves, 1U << 28, "security leaves"); })
                 .and_then([&] { return take(view.rules, root.rules, abi::kMaxSecurityRules, "security rules"); })
                 .and_then([&] { return take(view.names, root.names, 1U << 24, "security names"); });
  if (ok && !segment.security_verified) {
    ok = check_groups(view).and_then([&] { return check_nodes(view); }).and_then([&] { return check_rules(view); });
  }
  if (!ok) return tl::unexpected(ok.error());
  segment.security_verified = true;
  return view;
}

}  // namespace lb
