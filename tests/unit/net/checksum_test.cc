#include "dp/net/checksum.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "tests/unit/net/generators.h"

namespace lb::net {
namespace {

using test::Bytes;

// Sums stand in memory order; the naive twin gives host order.
std::uint16_t sum_of(const Bytes& bytes) {
  test::ExactFrame exact(bytes);
  return swap16(checksum_fold(checksum_sum(exact.data(), exact.length())));
}

TEST(Checksum, IsThatOfTheExampleInRfc1071) {
  EXPECT_EQ(sum_of({0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}), 0xddf2);
}

TEST(Checksum, FoldAddsEveryCarry) {
  EXPECT_EQ(checksum_fold(0), 0);
  EXPECT_EQ(checksum_fold(0xffff), 0xffff);
  EXPECT_EQ(checksum_fold(0x10000), 1);
  EXPECT_EQ(checksum_fold(0xffffffff), 0xffff);
  EXPECT_EQ(checksum_fold(0xffffffffffffffff), 0xffff);
  EXPECT_EQ(checksum_fold(0xfffeffff0001), 0xffff);
}

RC_GTEST_PROP(Checksum, EqualsTheNaiveSum, ()) {
  const Bytes bytes = *test::bytes_up_to(200);
  RC_ASSERT(sum_of(bytes) == test::naive_sum(bytes));
}

RC_GTEST_PROP(Checksum, OfPartsAddsUp, ()) {
  const Bytes bytes = *test::bytes_up_to(200);
  const std::size_t cut = *rc::gen::inRange<std::size_t>(0, bytes.size() / 2 + 1) * 2;
  const std::size_t head = std::min(cut, bytes.size());
  const std::uint64_t first = checksum_sum(bytes.data(), head);
  const std::uint64_t both = checksum_sum(bytes.data() + head, bytes.size() - head, first);
  RC_ASSERT(swap16(checksum_fold(both)) == test::naive_sum(bytes));
}

RC_GTEST_PROP(Checksum, OfAnIpv4HeaderEqualsTheGeneralOne, ()) {
  const Bytes header = *rc::gen::container<Bytes>(20, rc::gen::arbitrary<std::uint8_t>());
  RC_ASSERT(checksum_fold(ipv4_header_sum(header.data())) == checksum_fold(checksum_sum(header.data(), 20)));
}

RC_GTEST_PROP(Checksum, UpdatedIncrementallyStillHolds, ()) {
  Bytes bytes = *rc::gen::container<Bytes>(20, rc::gen::arbitrary<std::uint8_t>());
  store(bytes.data() + 10, std::uint16_t{0});
  store(bytes.data() + 10, checksum_finish(checksum_sum(bytes.data(), 20)));
  const std::size_t at = *rc::gen::element<std::size_t>(0, 2, 4, 6, 8, 12, 18);
  const auto before = load<std::uint16_t>(bytes.data() + at);
  const auto after = *rc::gen::arbitrary<std::uint16_t>();
  store(bytes.data() + at, after);
  store(bytes.data() + 10, checksum_update(load<std::uint16_t>(bytes.data() + 10), before, after));
  const std::uint16_t sum = checksum_fold(checksum_sum(bytes.data(), 20));
  // All-zero bytes have no checksum to hold: 0 and 0xffff are the same number in one's complement.
  RC_ASSERT(sum == 0xffff || std::all_of(bytes.begin(), bytes.end(), [](auto b) { return b == 0; }));
}

RC_GTEST_PROP(Checksum, OfThePseudoHeaderEqualsTheNaiveOne, ()) {
  const bool is_v6 = *rc::gen::arbitrary<bool>();
  const abi::IpAddress source = test::any_address(is_v6);
  const abi::IpAddress destination = test::any_address(is_v6);
  const auto protocol = *rc::gen::arbitrary<std::uint8_t>();
  const auto length = *rc::gen::arbitrary<std::uint16_t>();
  const Bytes naive = test::naive_pseudo_header(source, destination, is_v6, protocol, length);
  RC_ASSERT(swap16(checksum_fold(pseudo_header_sum(source, destination, is_v6, protocol, length))) ==
            test::naive_sum(naive));
}

}  // namespace
}  // namespace lb::net
