#include "dp/net/geneve.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <vector>

#include "dp/base/endian.h"
#include "dp/net/checksum.h"
#include "tests/unit/net/generators.h"

namespace lb::net {
namespace {

using test::Bytes;

constexpr std::uint32_t kBytes = kGeneveBytes + kGeneveOptionsBytes;

Bytes written(const GeneveOptions& options, bool is_v6 = false, std::uint16_t option_class = 0x0108) {
  Bytes header(kBytes, 0xcc);
  write_geneve(header.data(), option_class, options, is_v6);
  return header;
}

GeneveOptions any_options() {
  return {*rc::gen::arbitrary<std::uint64_t>(), *rc::gen::arbitrary<std::uint64_t>(), *rc::gen::arbitrary<std::uint32_t>()};
}

RC_GTEST_PROP(Geneve, WhatIsWrittenIsReadBack, ()) {
  const GeneveOptions options = any_options();
  const bool is_v6 = *rc::gen::arbitrary<bool>();
  const auto option_class = *rc::gen::arbitrary<std::uint16_t>();
  const Bytes header = written(options, is_v6, option_class);
  const GeneveHeader read = read_geneve(header.data(), kBytes);
  RC_ASSERT(read.bytes == kBytes && read.inner_is_v6 == is_v6);
  GeneveOptions back;
  RC_ASSERT(read_geneve_options(header.data(), read.bytes, option_class, back));
  RC_ASSERT(back == options);
}

// Exact allocations: ASan sees any read behind them.
RC_GTEST_PROP(Geneve, NoBytesMakeTheReaderLeaveThem, ()) {
  Bytes header = written(any_options());
  header.resize(*rc::gen::inRange<std::size_t>(0, kBytes + 1));
  for (int i = *rc::gen::inRange(0, 4); i > 0 && !header.empty(); --i) {
    header[*rc::gen::inRange<std::size_t>(0, header.size())] = *rc::gen::arbitrary<std::uint8_t>();
  }
  const std::vector<std::uint8_t> exact(header.begin(), header.end());
  const GeneveHeader read = read_geneve(exact.data(), static_cast<std::uint32_t>(exact.size()));
  RC_ASSERT(read.bytes <= exact.size());
  GeneveOptions options;
  if (read.bytes != 0) read_geneve_options(exact.data(), read.bytes, 0x0108, options);
}

TEST(Geneve, OptionsStandInAnyOrderButEachOnce) {
  const Bytes header = written({1, 2, 3});
  Bytes turned(header.begin(), header.begin() + kGeneveBytes);
  turned.insert(turned.end(), header.begin() + kGeneveBytes + 24, header.end());  // the cookie first
  turned.insert(turned.end(), header.begin() + kGeneveBytes, header.begin() + kGeneveBytes + 24);
  GeneveOptions options;
  ASSERT_TRUE(read_geneve_options(turned.data(), kBytes, 0x0108, options));
  EXPECT_EQ(options, (GeneveOptions{1, 2, 3}));
  turned.insert(turned.end(), header.begin() + kGeneveBytes + 24, header.end());  // and once more
  EXPECT_FALSE(read_geneve_options(turned.data(), kBytes + 8, 0x0108, options));
}

TEST(Geneve, EcnIsCombinedAsRfc6040Says) {
  constexpr int kDrop = -1;
  constexpr int kTable[4][4] = {{0, 0, 0, kDrop}, {1, 1, 1, 3}, {2, 1, 2, 3}, {3, 3, 3, 3}};  // [inner][outer]
  for (const bool is_v6 : {false, true}) {
    for (std::uint8_t inner = 0; inner < 4; ++inner) {
      for (std::uint8_t outer = 0; outer < 4; ++outer) {
        std::uint8_t ip[kIpv6Bytes] = {};
        if (is_v6) {
          store_be32(ip, 0x60000000U | (0x28U | inner) << 20 | 0x12345);
        } else {
          store_be32(ip, 0x45000014U | (0x28U | inner) << 16);
          store(ip + kIpv4ChecksumAt, checksum_finish(ipv4_header_sum(ip)));
        }
        const bool passes = take_outer_ecn(ip, is_v6, static_cast<std::uint8_t>(0xb8 | outer));
        ASSERT_EQ(passes, kTable[inner][outer] != kDrop);
        if (!passes) continue;
        const unsigned left = is_v6 ? load_be32(ip) >> 20 & 0xff : ip[1];
        EXPECT_EQ(left, 0x28U | static_cast<unsigned>(kTable[inner][outer])) << int{inner} << " in " << int{outer};
        if (is_v6) {
          EXPECT_EQ(load_be32(ip) & 0xfffff, 0x12345U);
        } else {
          EXPECT_EQ(checksum_fold(ipv4_header_sum(ip)), 0xffff);
        }
      }
    }
  }
}

}  // namespace
}  // namespace lb::net
