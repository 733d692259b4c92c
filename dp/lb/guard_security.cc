#include "dp/lb/guard_security.h"

#include <bit>

#include "dp/base/endian.h"
#include "dp/lb/work.h"

namespace lb {
namespace {

__extension__ using Bits = unsigned __int128;

constexpr std::uint32_t kAddressBits = 128;

// The source, its first bit the highest; an IPv4 address ends after 32.
Bits source_bits(const net::FlowKey& key) {
  const Bits low = swap64(load<std::uint64_t>(key.source.bytes.data() + 8));
  if (key.is_v6 == 0) return low << 96;
  return Bits{swap64(load<std::uint64_t>(key.source.bytes.data()))} << 64 | low;
}

// Bits up to and including `slot`.
std::uint64_t up_to(std::uint32_t slot) {
  return ~std::uint64_t{0} >> (63 - slot);
}

// First rule of the chain of the longest prefix, or kNoIndex. Ends: every step consumes bits of the address.
std::uint32_t longest_match(const SecurityView& tables, std::uint32_t root, Bits source) {
  const abi::PrefixNode* node = &tables.nodes[root];
  for (std::uint32_t depth = 0; depth < kAddressBits; depth += abi::kPrefixStride) {
    const auto slot = static_cast<std::uint32_t>(source << depth >> (kAddressBits - abi::kPrefixStride));
    if ((node->children >> slot & 1) == 0) {
      const auto before = static_cast<std::uint32_t>(std::popcount(node->leaves & up_to(slot)));
      return tables.leaves[node->first_leaf + before - 1];
    }
    node = &tables.nodes[node->first_child + static_cast<std::uint32_t>(std::popcount(node->children & up_to(slot))) - 1];
  }
  return abi::kNoIndex;
}

}  // namespace

SecurityAnswer ask_security(const Snapshot& snapshot, const abi::Listener& listener, const net::FlowKey& key) {
  if (listener.security_group == abi::kNoIndex) return {};
  const SecurityView& tables = snapshot.security();
  const abi::SecurityGroup& group = tables.groups[listener.security_group];
  // A rule of one protocol says nothing of what is neither (gateway listeners).
  const std::uint32_t wanted = key.protocol == static_cast<std::uint8_t>(abi::Protocol::tcp) ? abi::kSecurityTcp
                               : key.protocol == static_cast<std::uint8_t>(abi::Protocol::udp)
                                   ? abi::kSecurityUdp
                                   : abi::kSecurityTcp | abi::kSecurityUdp;
  std::uint32_t at = longest_match(tables, key.is_v6 != 0 ? group.root_v6 : group.root_v4, source_bits(key));
  for (; at != abi::kNoIndex; at = tables.rules[at].next) {  // ends: `next` is below `at`
    const abi::SecurityRule& rule = tables.rules[at];
    if ((rule.protocols & wanted) != wanted || key.destination_port < rule.first_port ||
        key.destination_port > rule.last_port) {
      continue;
    }
    return {rule.allow != 0, at};
  }
  return {group.allow_by_default != 0, abi::kNoIndex};
}

bool refuse_by_security(Work& work, std::uint32_t i) {
  const abi::Listener& listener = work.snapshot->listeners()[work.burst->listener[i]];
  if (ask_security(*work.snapshot, listener, packet_of(work, i).key).allowed) return false;
  drop(work, i, abi::DropReason::security_group);
  return true;
}

}  // namespace lb
