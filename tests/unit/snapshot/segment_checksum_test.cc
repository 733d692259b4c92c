#include "dp/base/segment_checksum.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <random>
#include <vector>

#include "dp/abi/snapshot.h"

namespace lb {
namespace {

static_assert(kSegmentChecksumOffset == offsetof(abi::SegmentHeader, checksum));

// The same checksum, a bit at a time.
std::uint32_t naive_crc32c(std::uint32_t crc, std::span<const std::uint8_t> bytes) {
  for (const std::uint8_t byte : bytes) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78U : 0U);
  }
  return crc;
}

std::uint64_t naive_checksum(std::vector<std::uint8_t> bytes) {
  const std::size_t size = bytes.size();
  for (std::size_t i = 40; i < 48 && i < size; ++i) bytes[i] = 0;
  bytes.resize((size + 63) / 64 * 64);
  std::array<std::uint32_t, 8> lanes;
  for (std::uint32_t i = 0; i < 8; ++i) lanes[i] = 0x9e3779b9U + i;
  for (std::size_t at = 0; at < bytes.size(); at += 8) {
    std::uint32_t& lane = lanes[at / 8 % 8];
    lane = naive_crc32c(lane, std::span(bytes).subspan(at, 8));
  }
  std::uint64_t hash = size;
  for (const std::uint32_t lane : lanes) {
    hash = (hash ^ lane) * 0xd6e8feb86659fd93ULL;
    hash ^= hash >> 32;
  }
  return hash;
}

std::vector<std::uint8_t> random_bytes(std::size_t size, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::uint8_t> bytes(size);
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
  return bytes;
}

std::uint64_t checksum(const std::vector<std::uint8_t>& bytes) {
  return segment_checksum(std::as_bytes(std::span(bytes)));
}

TEST(SegmentChecksum, AgreesWithItsNaiveTwinForEveryTail) {
  for (std::size_t size = 0; size <= 300; ++size) {
    const auto bytes = random_bytes(size, static_cast<std::uint32_t>(size));
    ASSERT_EQ(checksum(bytes), naive_checksum(bytes)) << size << " bytes";
  }
  const auto large = random_bytes(100'003, 7);
  EXPECT_EQ(checksum(large), naive_checksum(large));
}

TEST(SegmentChecksum, CountsItsOwnFieldAsZero) {
  auto bytes = random_bytes(640, 1);
  const std::uint64_t before = checksum(bytes);
  std::memset(bytes.data() + offsetof(abi::SegmentHeader, checksum), 0xa5, 8);
  EXPECT_EQ(checksum(bytes), before);
}

TEST(SegmentChecksum, ChangesWithEveryOtherBitAndWithTheLength) {
  auto bytes = random_bytes(200, 2);
  const std::uint64_t before = checksum(bytes);
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    if (bit / 8 >= 40 && bit / 8 < 48) continue;
    bytes[bit / 8] ^= static_cast<std::uint8_t>(1U << (bit % 8));
    ASSERT_NE(checksum(bytes), before) << "bit " << bit;
    bytes[bit / 8] ^= static_cast<std::uint8_t>(1U << (bit % 8));
  }
  bytes.push_back(0);
  EXPECT_NE(checksum(bytes), before);
}

}  // namespace
}  // namespace lb
