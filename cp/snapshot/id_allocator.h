// Dense numbers, lowest free first: target ids and listener counter indexes. In memory; their owner keeps them on disk.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

namespace lb::cp {

class IdAllocator {
 public:
  explicit IdAllocator(std::uint32_t limit) : limit_(limit) {}  // ids are 0 … limit-1

  // The lowest free id. nullopt: none left.
  std::optional<std::uint32_t> take() {
    if (first_free_ == limit_) return std::nullopt;
    const std::uint32_t id = first_free_;
    if (id == used_.size()) used_.push_back(false);
    used_[id] = true;
    skip_used();
    return id;
  }
  // Marks an id from disk. False: taken already, or out of range.
  bool restore(std::uint32_t id) {
    if (id >= limit_) return false;
    if (id >= used_.size()) used_.resize(id + 1, false);
    if (used_[id]) return false;
    used_[id] = true;
    skip_used();
    return true;
  }
  void release(std::uint32_t id) {
    used_[id] = false;
    first_free_ = std::min(first_free_, id);
  }

 private:
  void skip_used() {
    while (first_free_ < used_.size() && used_[first_free_]) ++first_free_;
  }

  std::uint32_t limit_;
  std::uint32_t first_free_ = 0;  // the lowest
  std::vector<bool> used_;
};

}  // namespace lb::cp
