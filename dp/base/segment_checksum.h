// The checksum in every segment's header: detects torn, truncated and flipped bytes; it is no defence against an author who
// means harm (the verifier's bounds checks are).
//
//   block      0        8        16             56
//   0        [ word 0 | word 1 | word 2 | … | word 7 ]     word i of every block goes to CRC32C lane i:
//   1        [ word 0 | word 1 | word 2 | … | word 7 ]     eight chains that do not wait for each other,
//   …                                                      8 bytes a cycle (one core of 2026: about 15 GB/s)
//   last     [ padded with zeros to 64 bytes         ]
//
// The lanes and the length are then mixed into 64 bits. Bytes 40…47, SegmentHeader::checksum, count as zero.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace lb {

// Where the checksum itself stands in a segment; equal to offsetof(abi::SegmentHeader, checksum).
inline constexpr std::size_t kSegmentChecksumOffset = 40;

// Any length, any alignment. Reads each byte once.
[[nodiscard]] std::uint64_t segment_checksum(std::span<const std::byte> segment);

}  // namespace lb
