#include "cp/config/yaml_tree.h"

#include <yaml.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <stdexcept>

namespace lb::cp::yaml {
namespace {

std::uint32_t line_from(const yaml_mark_t& mark) {
  return static_cast<std::uint32_t>(mark.line) + 1;
}

std::string_view text_of(const yaml_char_t* text) {
  return text == nullptr ? std::string_view{} : std::string_view(reinterpret_cast<const char*>(text));
}

// The plain scalars that mean "nothing" (YAML 1.2 §10.2.1.1).
bool is_null(std::string_view plain) {
  return plain.empty() || plain == "~" || plain == "null" || plain == "Null" || plain == "NULL";
}

// Bytes of the well-formed UTF-8 sequence (RFC 3629) that `text` begins with; 0 if there is none.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const std::uint8_t lead = byte(0);
  const std::size_t length = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
  if (length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const bool overlong = (lead == 0xe0 && byte(1) < 0xa0) || (lead == 0xf0 && byte(1) < 0x90);
  const bool surrogate = lead == 0xed && byte(1) >= 0xa0;
  const bool beyond = lead == 0xf4 && byte(1) >= 0x90;
  return overlong || surrogate || beyond ? 0 : length;
}

struct Refused : std::runtime_error {
  Refused(std::uint32_t at_line, const std::string& text) : std::runtime_error(text), line(at_line) {}
  std::uint32_t line;
};

void check_bytes(std::string_view text) {
  std::uint32_t line = 1;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = utf8_length(text.substr(at));
    if (length == 0) throw Refused(line, "not UTF-8");
    if (text[at] == '\0') throw Refused(line, "NUL byte");
    if (text[at] == '\n') ++line;
    at += length;
  }
}

// Does a map key that may have dots stand for the beginning of `path`? Returns how many bytes of the path it takes, or 0.
std::size_t matches(std::string_view key, std::string_view path) {
  if (key.empty() || path.substr(0, key.size()) != key) return 0;
  if (path.size() == key.size() || path[key.size()] == '.' || path[key.size()] == '[') return key.size();
  return 0;
}

}  // namespace

// One pass over libyaml's events, which it gives out one by one without building a document of its own.
class TreeBuilder {
 public:
  TreeBuilder(Tree& tree, std::string_view text) : tree_(tree) {
    if (yaml_parser_initialize(&parser_) == 0) throw std::bad_alloc();
    yaml_parser_set_encoding(&parser_, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser_, reinterpret_cast<const unsigned char*>(text.data()), text.size());
  }
  TreeBuilder(const TreeBuilder&) = delete;
  TreeBuilder& operator=(const TreeBuilder&) = delete;
  ~TreeBuilder() { yaml_parser_delete(&parser_); }

  void build() {
    std::uint32_t documents = 0;
    for (bool more = true; more;) {
      Event event(parser_);
      more = event->type != YAML_STREAM_END_EVENT;
      if (event->type == YAML_DOCUMENT_START_EVENT && ++documents > 1) {
        throw Refused(line_from(event->start_mark), "file has more than one document");
      }
      take(*event);
    }
    if (documents == 0) throw Refused(1, "file is empty");
  }

 private:
  class Event {
   public:
    explicit Event(yaml_parser_t& parser) {
      if (yaml_parser_parse(&parser, &event_) != 0) return;
      if (parser.error == YAML_MEMORY_ERROR) throw std::bad_alloc();
      std::string problem = parser.problem == nullptr ? "unreadable" : parser.problem;
      if (parser.context != nullptr) problem = std::string(parser.context) + ", " + problem;
      throw Refused(line_from(parser.problem_mark), "not YAML: " + problem);
    }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
    ~Event() { yaml_event_delete(&event_); }
    const yaml_event_t* operator->() const { return &event_; }
    const yaml_event_t& operator*() const { return event_; }

   private:
    yaml_event_t event_{};
  };

  void take(const yaml_event_t& event) {
    const std::uint32_t line = line_from(event.start_mark);
    switch (event.type) {
      case YAML_ALIAS_EVENT: return take_alias(line, text_of(event.data.alias.anchor));
      case YAML_SCALAR_EVENT: return take_scalar(line, event);
      case YAML_SEQUENCE_START_EVENT:
        check_tag(line, text_of(event.data.sequence_start.tag));
        open_.push_back(&add(Kind::sequence, line, text_of(event.data.sequence_start.anchor)));
        return;
      case YAML_MAPPING_START_EVENT:
        check_tag(line, text_of(event.data.mapping_start.tag));
        open_.push_back(&add(Kind::map, line, text_of(event.data.mapping_start.anchor)));
        return;
      case YAML_SEQUENCE_END_EVENT:
      case YAML_MAPPING_END_EVENT: return close();
      default: return;  // starts and ends of stream and document
    }
  }

  void take_alias(std::uint32_t line, std::string_view anchor) {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) throw Refused(line, "alias without an anchor");
    for (const Node* open : open_) {
      if (open == found->second) throw Refused(line, "alias to a node that contains it");
    }
    place(found->second);
    grow(line, found->second->unfolded);
  }

  void take_scalar(std::uint32_t line, const yaml_event_t& event) {
    const auto& scalar = event.data.scalar;
    check_tag(line, text_of(scalar.tag));
    const bool quoted = scalar.style != YAML_PLAIN_SCALAR_STYLE;
    const std::string_view text(reinterpret_cast<const char*>(scalar.value), scalar.length);
    const bool null = !quoted && is_null(text);
    Node& node = add(null ? Kind::null : Kind::scalar, line, text_of(scalar.anchor));
    node.quoted = quoted;
    if (!null) node.text = text;
  }

  static void check_tag(std::uint32_t line, std::string_view tag) {
    if (!tag.empty() && tag != "!") throw Refused(line, "tags are not allowed (" + std::string(tag) + ")");
  }

  Node& add(Kind kind, std::uint32_t line, std::string_view anchor) {
    Node& node = tree_.nodes_.emplace_back();
    node.kind = kind;
    node.line = line;
    if (!anchor.empty()) anchors_.insert_or_assign(std::string(anchor), &node);
    place(&node);
    if (kind == Kind::null || kind == Kind::scalar) grow(node.line, 1);
    return node;
  }

  // The innermost open node has `count` more nodes below it.
  void grow(std::uint32_t line, std::uint64_t count) {
    if (open_.empty()) return;
    open_.back()->unfolded += count;
    if (open_.back()->unfolded <= kMaxNodes) return;
    throw Refused(line, "more than " + std::to_string(kMaxNodes) + " values, aliases followed");
  }

  void close() {
    const Node& closed = *open_.back();
    open_.pop_back();
    grow(closed.line, closed.unfolded);
  }

  void place(const Node* node) {
    if (open_.empty()) {
      tree_.root_ = node;
    } else {
      open_.back()->children.push_back(node);
    }
  }

  Tree& tree_;
  yaml_parser_t parser_{};
  std::vector<Node*> open_;
  std::map<std::string, const Node*, std::less<>> anchors_;
};

Tree Tree::parse(std::string_view text) {
  Tree tree;
  if (text.size() > kMaxFileBytes) {
    tree.errors_.push_back({0, "file is longer than " + std::to_string(kMaxFileBytes >> 20) + " MiB"});
    return tree;
  }
  try {
    check_bytes(text);
    TreeBuilder(tree, text).build();
  } catch (const Refused& refused) {
    tree.errors_.push_back({refused.line, refused.what()});
  }
  if (!tree.errors_.empty()) tree.root_ = nullptr;
  return tree;
}

std::uint32_t Tree::line_of(std::string_view path) const {
  const Node* node = root_;
  if (node == nullptr) return 0;
  std::uint32_t line = node->line;
  while (!path.empty()) {
    const Node* next = nullptr;
    std::size_t taken = 0;
    const bool element = path[0] == '[';
    if (element && node->kind == Kind::sequence) {
      std::size_t index = 0;
      const char* end = std::from_chars(path.data() + 1, path.data() + path.size(), index).ptr;
      taken = static_cast<std::size_t>(end - path.data()) + 1;
      if (index < node->children.size()) next = node->children[index];
    } else if (node->kind == Kind::map) {
      // Two keys can begin the same path (`tcp` and `tcp.idle_timeout`): the longest leads on.
      for (std::size_t i = 0; i + 1 < node->children.size(); i += 2) {
        const std::size_t length = matches(node->children[i]->text, path);
        if (length > taken) {
          taken = length;
          next = node->children[i + 1];
          line = node->children[i]->line;
        }
      }
    }
    if (next == nullptr) return line;
    node = next;
    // A map or list under a key begins where its key stands, not where its first entry does.
    if (element || node->kind == Kind::scalar) line = node->line;
    path.remove_prefix(std::min(taken, path.size()));
    if (!path.empty() && path[0] == '.') path.remove_prefix(1);
  }
  return line;
}

}  // namespace lb::cp::yaml
