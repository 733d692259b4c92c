#include "cp/snapshot/security_table.h"

#include <algorithm>
#include <bit>
#include <deque>
#include <tuple>

namespace lb::cp {
namespace {

__extension__ using Bits = unsigned __int128;  // an address, its first bit the highest

constexpr std::uint32_t kStride = abi::kPrefixStride;
constexpr std::uint32_t kV4InV6 = 96;

Bits bits_of(const abi::IpAddress& address) {
  Bits bits = 0;
  for (const std::uint8_t byte : address.bytes) bits = bits << 8 | byte;
  return bits;
}

// A prefix of one family and the head of its chain.
struct Prefix {
  Bits bits = 0;
  std::uint32_t length = 0;
  std::uint32_t head = abi::kNoIndex;
};

bool covers(const Prefix& outer, const Prefix& inner) {
  return outer.length == 0 || (outer.length <= inner.length && (outer.bits ^ inner.bits) >> (128 - outer.length) == 0);
}

class Builder {
 public:
  explicit Builder(SecurityTables& tables) : tables_(tables) {}

  void add(const SecurityGroup& group) {
    abi::SecurityGroup made;
    made.name = {static_cast<std::uint32_t>(tables_.names.size()), static_cast<std::uint32_t>(group.name.size())};
    tables_.names.insert(tables_.names.end(), group.name.begin(), group.name.end());
    made.allow_by_default = group.allow_by_default ? 1 : 0;
    made.root_v4 = trie(chains(group, true));
    made.root_v6 = trie(chains(group, false));
    tables_.groups.push_back(made);
  }

 private:
  // The rules of one family, each prefix's in a chain that goes on with the next shorter prefix around it. A rule's `next`
  // is always below its own index: whoever follows a chain comes to an end.
  std::vector<Prefix> chains(const SecurityGroup& group, bool v4) {
    struct Item {
      Prefix prefix;
      const SecurityRule* rule;
      std::uint32_t number;
    };
    std::vector<Item> items;
    for (std::uint32_t i = 0; i < group.rules.size(); ++i) {
      const SecurityRule& rule = group.rules[i];
      if (rule.any_source) {
        items.push_back({{}, &rule, i});
      } else if (rule.source.address.is_v4() == v4) {
        const Bits bits = bits_of(rule.source.address);
        items.push_back(v4 ? Item{{bits << kV4InV6, rule.source.length - kV4InV6}, &rule, i}
                           : Item{{bits, rule.source.length}, &rule, i});
      }
    }
    std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) {  // what is asked first stands last
      const auto key = [](const Item& item) {
        const SecurityRule& rule = *item.rule;
        return std::tuple(item.prefix.bits, item.prefix.length, -(rule.last_port - rule.first_port),
                          rule.protocol == ListenerProtocol::tcp_udp ? 0 : 1, rule.allow ? 0 : 1,
                          -static_cast<std::int64_t>(item.number));
      };
      return key(a) < key(b);
    });
    std::vector<Prefix> prefixes;
    std::vector<Prefix> around;  // of the prefix at hand, shortest first
    for (const Item& item : items) {
      const bool same =
          !prefixes.empty() && prefixes.back().bits == item.prefix.bits && prefixes.back().length == item.prefix.length;
      if (!same) {
        if (!prefixes.empty()) around.push_back(prefixes.back());
        while (!around.empty() && !covers(around.back(), item.prefix)) around.pop_back();
        prefixes.push_back(item.prefix);
        prefixes.back().head = around.empty() ? abi::kNoIndex : around.back().head;
      }
      tables_.rules.push_back(rule(*item.rule, item.number, prefixes.back().head));
      prefixes.back().head = static_cast<std::uint32_t>(tables_.rules.size() - 1);
    }
    return prefixes;
  }

  static abi::SecurityRule rule(const SecurityRule& from, std::uint32_t number, std::uint32_t next) {
    abi::SecurityRule to;
    to.source = from.source.address;
    to.prefix_length = from.source.length;
    to.any_source = from.any_source ? 1 : 0;
    to.first_port = from.first_port;
    to.last_port = from.last_port;
    to.protocols = from.protocol == ListenerProtocol::tcp   ? abi::kSecurityTcp
                   : from.protocol == ListenerProtocol::udp ? abi::kSecurityUdp
                                                            : abi::kSecurityTcp | abi::kSecurityUdp;
    to.allow = from.allow ? 1 : 0;
    to.number = number;
    to.next = next;
    return to;
  }

  // Breadth-first, so that the children of a node stand side by side. `prefixes`: by address, then length.
  std::uint32_t trie(const std::vector<Prefix>& prefixes) {
    struct Job {
      std::uint32_t node;
      std::uint32_t depth;
      std::uint32_t inherited;
      std::vector<Prefix> prefixes;  // longer than depth; by length where they fill the same slots
    };
    const auto root = static_cast<std::uint32_t>(tables_.nodes.size());
    tables_.nodes.emplace_back();
    Job first{root, 0, abi::kNoIndex, {}};
    for (const Prefix& prefix : prefixes) {
      if (prefix.length == 0)
        first.inherited = prefix.head;
      else
        first.prefixes.push_back(prefix);
    }
    std::deque<Job> jobs;
    jobs.push_back(std::move(first));
    while (!jobs.empty()) {
      const Job job = std::move(jobs.front());
      jobs.pop_front();
      std::uint32_t slots[64];
      std::fill(std::begin(slots), std::end(slots), job.inherited);
      std::uint64_t children = 0;
      // By address, then length: a prefix comes after those around it, and overwrites what they filled.
      for (const Prefix& prefix : job.prefixes) {
        const std::uint32_t at = static_cast<std::uint32_t>(prefix.bits << job.depth >> (128 - kStride));
        if (prefix.length > job.depth + kStride) {
          children |= std::uint64_t{1} << at;
        } else {
          std::fill_n(slots + at, std::size_t{1} << (job.depth + kStride - prefix.length), prefix.head);
        }
      }
      abi::PrefixNode node;
      node.children = children;
      node.first_child = static_cast<std::uint32_t>(tables_.nodes.size());
      node.first_leaf = static_cast<std::uint32_t>(tables_.leaves.size());
      std::vector<Job> below;
      bool fresh = true;
      for (std::uint32_t slot = 0; slot < 64; ++slot) {
        if ((children >> slot & 1) != 0) {
          below.push_back({static_cast<std::uint32_t>(tables_.nodes.size()), job.depth + kStride, slots[slot], {}});
          tables_.nodes.emplace_back();
        } else if (fresh || tables_.leaves.back() != slots[slot]) {
          node.leaves |= std::uint64_t{1} << slot;
          tables_.leaves.push_back(slots[slot]);
          fresh = false;
        }
      }
      for (const Prefix& prefix : job.prefixes) {
        if (prefix.length <= job.depth + kStride) continue;
        const std::uint32_t at = static_cast<std::uint32_t>(prefix.bits << job.depth >> (128 - kStride));
        below[static_cast<std::size_t>(std::popcount(children & ((std::uint64_t{1} << at) - 1)))].prefixes.push_back(prefix);
      }
      tables_.nodes[job.node] = node;
      for (Job& next : below) jobs.push_back(std::move(next));
    }
    return root;
  }

  SecurityTables& tables_;
};

}  // namespace

SecurityTables make_security_tables(std::span<const SecurityGroup> groups) {
  SecurityTables tables;
  Builder builder(tables);
  for (const SecurityGroup& group : groups) builder.add(group);
  return tables;
}

std::string rule_text(const abi::SecurityRule& rule) {
  std::string text = "rule " + std::to_string(rule.number) + (rule.allow != 0 ? ", allow " : ", deny ");
  if (rule.any_source != 0) {
    text += "any";
  } else {
    const bool v4 = rule.source.is_v4();
    text += format_address(rule.source) + "/" + std::to_string(v4 ? rule.prefix_length - kV4InV6 : rule.prefix_length);
  }
  if (rule.protocols == abi::kSecurityTcp) text += " TCP";
  if (rule.protocols == abi::kSecurityUdp) text += " UDP";
  if (rule.first_port == 0 && rule.last_port == 65535) return text;
  text += " " + std::to_string(rule.first_port);
  return rule.first_port == rule.last_port ? text : text + "-" + std::to_string(rule.last_port);
}

}  // namespace lb::cp
