// Segments in the making: bytes that grow table by table, then get their header.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "dp/abi/snapshot.h"

namespace lb::cp {

constexpr std::uint64_t aligned(std::uint64_t offset) {
  return (offset + abi::kCacheLineBytes - 1) / abi::kCacheLineBytes * abi::kCacheLineBytes;
}

// Writes the header of a finished segment, checksum last. bytes.size() ≥ sizeof(SegmentHeader).
void write_segment_header(std::span<std::byte> bytes, abi::SegmentKind kind, std::uint64_t id);

// A root's tables one behind the other, each on a cache line of its own.
class RootBytes {
 public:
  explicit RootBytes(std::size_t expected_bytes) {
    bytes_.reserve(expected_bytes);
    bytes_.resize(aligned(sizeof(abi::Root)));
  }

  template <typename T>
  abi::Table add(std::span<const T> elements) {
    const std::size_t offset = bytes_.size();
    bytes_.resize(aligned(offset + elements.size_bytes()));
    if (!elements.empty()) std::memcpy(bytes_.data() + offset, elements.data(), elements.size_bytes());
    return {offset, static_cast<std::uint32_t>(elements.size()), 0};
  }

  // `root` with its tables filled in; its header is written here.
  std::vector<std::byte> finish(const abi::Root& root);

 private:
  std::vector<std::byte> bytes_;
};

}  // namespace lb::cp
