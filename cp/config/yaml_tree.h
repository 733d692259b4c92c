// A YAML file as a tree that remembers lines. Bounded: what a file may be is named here, and a file beyond it is refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

namespace lb::cp::yaml {

inline constexpr std::size_t kMaxFileBytes = 64U << 20;
// Nodes of the file with every alias unfolded: an alias bomb is refused where it stands, before anything walks it.
inline constexpr std::size_t kMaxNodes = 8'000'000;

enum class Kind : std::uint8_t { null, scalar, sequence, map };

struct Node {
  Kind kind = Kind::null;
  bool quoted = false;         // scalar in quotes: a string, whatever it looks like
  std::uint32_t line = 0;      // from 1
  std::uint64_t unfolded = 1;  // nodes in and below this one, aliases followed
  std::string text;            // scalar
  // Sequence: elements. Map: key, value, key, value, … An aliased node stands in several places.
  std::vector<const Node*> children;
};

struct Error {
  std::uint32_t line = 0;
  std::string text;
};

class Tree {
 public:
  // Errors: not YAML, more than one document, over a limit, an alias to a node that contains it, a tag of the file's own.
  // root is null then. At most one error of syntax, as nothing behind it can be trusted.
  static Tree parse(std::string_view text);

  [[nodiscard]] const Node* root() const { return root_; }
  [[nodiscard]] const std::vector<Error>& errors() const { return errors_; }
  // The line of the node at a path such as `listeners[0].target_groups[1].weight`; keys with dots count as paths. Where the
  // path leaves the tree: the line of the last node on it.
  [[nodiscard]] std::uint32_t line_of(std::string_view path) const;

 private:
  friend class TreeBuilder;
  std::deque<Node> nodes_;  // never moved: children point into it
  const Node* root_ = nullptr;
  std::vector<Error> errors_;
};

}  // namespace lb::cp::yaml
