#include "cp/config/yaml_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <charconv>
#include <istream>
#include <stdexcept>
#include <streambuf>
#include <unordered_map>

namespace lb::cp::yaml {
namespace {

// Reads the caller's bytes where they are.
class ViewBuffer : public std::streambuf {
 public:
  explicit ViewBuffer(std::string_view text) {
    char* begin = const_cast<char*>(text.data());  // a get area is never written to
    setg(begin, begin, begin + text.size());
  }
};

std::uint32_t line_from(const YAML::Mark& mark) {
  return mark.line < 0 ? 0 : static_cast<std::uint32_t>(mark.line) + 1;
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

class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(Tree& tree) : tree_(tree) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { add(Kind::null, mark, anchor); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) throw Refused(line_from(mark), "alias without an anchor");
    for (const Node* open : open_) {
      if (open == found->second) throw Refused(line_from(mark), "alias to a node that contains it");
    }
    place(found->second);
    grow(line_from(mark), found->second->unfolded);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, const std::string& value) override {
    check_tag(mark, tag);
    Node& node = add(Kind::scalar, mark, anchor);
    node.text = value;
    node.quoted = tag == "!";
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    check_tag(mark, tag);
    open_.push_back(&add(Kind::sequence, mark, anchor));
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    check_tag(mark, tag);
    open_.push_back(&add(Kind::map, mark, anchor));
  }
  void OnMapEnd() override { close(); }

 private:
  static void check_tag(const YAML::Mark& mark, const std::string& tag) {
    if (!tag.empty() && tag != "?" && tag != "!") throw Refused(line_from(mark), "tags are not allowed (" + tag + ")");
  }

  Node& add(Kind kind, const YAML::Mark& mark, YAML::anchor_t anchor) {
    Node& node = tree_.nodes_.emplace_back();
    node.kind = kind;
    node.line = line_from(mark);
    if (anchor != 0) anchors_[anchor] = &node;
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
  std::vector<Node*> open_;
  std::unordered_map<YAML::anchor_t, const Node*> anchors_;
};

Tree Tree::parse(std::string_view text) {
  Tree tree;
  if (text.size() > kMaxFileBytes) {
    tree.errors_.push_back({0, "file is longer than " + std::to_string(kMaxFileBytes >> 20) + " MiB"});
    return tree;
  }
  try {
    check_bytes(text);
    ViewBuffer buffer(text);
    std::istream stream(&buffer);
    YAML::Parser parser(stream);
    TreeBuilder builder(tree);
    if (!parser.HandleNextDocument(builder)) throw Refused(1, "file is empty");
    const Node* first = tree.root_;
    if (parser.HandleNextDocument(builder)) throw Refused(tree.root_->line, "file has more than one document");
    tree.root_ = first;
  } catch (const Refused& refused) {
    tree.errors_.push_back({refused.line, refused.what()});
  } catch (const YAML::Exception& exception) {
    tree.errors_.push_back({line_from(exception.mark), "not YAML: " + exception.msg});
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
