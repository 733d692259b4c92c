#include "dp/base/segment_checksum.h"

#include <nmmintrin.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace lb {
namespace {

constexpr std::size_t kLanes = 8;
constexpr std::size_t kBlockBytes = kLanes * sizeof(std::uint64_t);
using Lanes = std::array<std::uint64_t, kLanes>;

inline void add_block(Lanes& lanes, const std::byte* block) {
  std::array<std::uint64_t, kLanes> words;
  std::memcpy(words.data(), block, kBlockBytes);
  for (std::size_t i = 0; i < kLanes; ++i) lanes[i] = _mm_crc32_u64(lanes[i], words[i]);
}

// Block 0 with the checksum field as zero, or a last block with zeros behind it.
void add_partial_block(Lanes& lanes, std::span<const std::byte> bytes, bool first) {
  std::array<std::byte, kBlockBytes> block{};
  std::copy(bytes.begin(), bytes.end(), block.begin());
  if (first) std::memset(block.data() + kSegmentChecksumOffset, 0, sizeof(std::uint64_t));
  add_block(lanes, block.data());
}

}  // namespace

std::uint64_t segment_checksum(std::span<const std::byte> segment) {
  Lanes lanes;
  for (std::size_t i = 0; i < kLanes; ++i) lanes[i] = 0x9e3779b9U + i;  // lanes differ, so that swapped words show

  const std::size_t first = std::min(segment.size(), kBlockBytes);
  if (first > 0) add_partial_block(lanes, segment.first(first), true);
  std::size_t at = first;
  for (; at + kBlockBytes <= segment.size(); at += kBlockBytes) add_block(lanes, segment.data() + at);
  if (at < segment.size()) add_partial_block(lanes, segment.subspan(at), false);

  std::uint64_t hash = segment.size();
  for (const std::uint64_t lane : lanes) {
    hash = (hash ^ lane) * 0xd6e8feb86659fd93ULL;
    hash ^= hash >> 32;
  }
  return hash;
}

}  // namespace lb
