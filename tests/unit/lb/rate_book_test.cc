#include "dp/lb/rate_book.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "cp/snapshot/rates.h"
#include "dp/lb/rate_memory.h"
#include "dp/lb/rate_view.h"

namespace lb {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr std::uint64_t kStart = 1000 * kSecond;
constexpr std::uint32_t kListener = 3;
constexpr RateUnits kPacket = {0, 1, 100};
constexpr RateUnits kFlow = {1, 0, 0};

RateSource source_of(std::uint32_t address) {
  RateSource source;
  source.listener = kListener;
  source.prefix = abi::IpAddress::v4(static_cast<std::uint8_t>(address >> 24), static_cast<std::uint8_t>(address >> 16),
                                     static_cast<std::uint8_t>(address >> 8), static_cast<std::uint8_t>(address));
  source.prefix_length = 128;
  net::FlowKey key;
  key.source = source.prefix;
  static const HashKeys keys = make_hash_keys(NodeSecret{7});
  source.hash = flow_hash(keys, key);
  return source;
}

// Workers' books on memory that they share.
struct Books {
  explicit Books(std::uint32_t workers) {
    for (std::uint32_t w = 0; w < workers; ++w) memory.push_back(std::make_unique<RateMemory>(8));
    for (const auto& each : memory) tables.push_back(each->tables()[0]);
    for (std::uint32_t w = 0; w < workers; ++w) books.emplace_back(tables, w);
  }
  RateAnswer take(std::uint32_t worker, const abi::RateLimits& limits, const RateSource& source, const RateUnits& units,
                  std::uint64_t now_ns) {
    RateBook& book = books[worker];
    return book.take(limits, source, book.meter_of(source, now_ns), units, units == kFlow, now_ns);
  }
  std::vector<RateView> views() const {
    std::vector<RateView> all;
    for (const RateTable& table : tables) all.push_back({table.lines, table.meters, table.listeners});
    return all;
  }
  std::vector<std::unique_ptr<RateMemory>> memory;
  std::vector<RateTable> tables;
  std::vector<RateBook> books;
};

abi::RateLimits per_source(const cp::RateSet& set) {
  return cp::compile_rates({.per_source = set});
}
abi::RateLimits per_listener(const cp::RateSet& set) {
  return cp::compile_rates({.per_listener = set});
}

// How many of `per_second` packets a second pass in `seconds`.
std::uint64_t offer(Books& books, std::uint32_t worker, const abi::RateLimits& limits, const RateUnits& units,
                    std::uint64_t per_second, std::uint64_t seconds) {
  const RateSource source = source_of(1);
  std::uint64_t passed = 0;
  for (std::uint64_t n = 0; n < per_second * seconds; ++n) {
    const std::uint64_t now = kStart + n * kSecond / per_second;
    passed += books.take(worker, limits, source, units, now) == RateAnswer::pass;
  }
  return passed;
}

TEST(RateBook, ASourceGetsItsRateAndWhatItsBucketHeld) {
  Books books(1);
  const std::uint64_t passed = offer(books, 0, per_source({.packets_per_second = 1000}), kPacket, 5000, 10);
  EXPECT_GE(passed, 10'990U);
  EXPECT_LE(passed, 11'001U);
}

TEST(RateBook, BelowItsRateEverythingPasses) {
  Books books(1);
  EXPECT_EQ(offer(books, 0, per_source({.packets_per_second = 1000}), kPacket, 999, 10), 9990U);
}

TEST(RateBook, BytesAreCountedByTheirNumber) {
  Books books(1);
  // 100,000 bytes a second are 1,000 of these packets; the first second's worth is in the bucket.
  const std::uint64_t passed = offer(books, 0, per_source({.bytes_per_second = 100'000}), kPacket, 5000, 10);
  EXPECT_NEAR(static_cast<double>(passed), 11'000, 11);
}

TEST(RateBook, TheSmallestRateLetsOneFlowASecondPass) {
  Books books(1);
  EXPECT_EQ(offer(books, 0, per_source({.new_flows_per_second = 1}), kFlow, 10, 10), 11U);  // two at once, then one each
}

TEST(RateBook, SourcesDoNotShareALimit) {
  Books books(1);
  const abi::RateLimits limits = per_source({.packets_per_second = 2});
  for (std::uint32_t address = 1; address <= 1000; ++address) {
    for (int n = 0; n < 2; ++n)
      ASSERT_EQ(books.take(0, limits, source_of(address), kPacket, kStart), RateAnswer::pass) << address;
    ASSERT_EQ(books.take(0, limits, source_of(address), kPacket, kStart), RateAnswer::source_over) << address;
  }
}

TEST(RateBook, AFlowOnOneOfManyWorkersHasTheWholeLimit) {
  Books books(4);
  EXPECT_GE(offer(books, 2, per_source({.packets_per_second = 1000}), kPacket, 5000, 10), 10'990U);
}

// Whichever worker a source's packets come to.
void expect_shared(std::uint32_t workers, std::uint64_t per_second, const std::function<std::uint32_t(std::uint64_t)>& pick,
                   bool of_listener) {
  Books books(workers);
  const cp::RateSet set{.packets_per_second = 1000};
  const abi::RateLimits limits = of_listener ? per_listener(set) : per_source(set);
  const RateSource source = source_of(1);
  constexpr std::uint64_t kSeconds = 20;
  std::uint64_t passed = 0;
  for (std::uint64_t n = 0; n < per_second * kSeconds; ++n) {
    const std::uint64_t now = kStart + n * kSecond / per_second;
    passed += books.take(pick(n), limits, source, kPacket, now) == RateAnswer::pass;
  }
  EXPECT_LE(passed, 1000 * kSeconds + 1250 + workers);
  EXPECT_GE(passed, 1000 * kSeconds * 99 / 100);
}

TEST(RateBook, WorkersTogetherAdmitAtMostAQuarterOfABucketMore) {
  std::mt19937_64 random(1);
  for (const bool of_listener : {false, true}) {
    for (const std::uint32_t workers : {2U, 16U}) {
      expect_shared(
          workers, 5000, [&](std::uint64_t n) { return static_cast<std::uint32_t>(n % workers); }, of_listener);
      expect_shared(
          workers, 5000, [&](std::uint64_t) { return static_cast<std::uint32_t>(random() % workers); }, of_listener);
      // One after the other, for a second and a half each; and one has nearly all.
      expect_shared(
          workers, 3000, [&](std::uint64_t n) { return static_cast<std::uint32_t>(n / 4500 % workers); }, of_listener);
      expect_shared(
          workers, 5000, [&](std::uint64_t n) { return n % 100 == 0 ? 1U : 0U; }, of_listener);
    }
  }
}

TEST(RateBook, AFloodOfSourcesNeitherFreesAHeavyOneNorCostsALightOne) {
  Books books(1);
  const abi::RateLimits limits = per_source({.packets_per_second = 100});
  std::mt19937_64 random(2);
  std::uint64_t heavy = 0;
  std::uint64_t refused_strangers = 0;
  constexpr std::uint64_t kSeconds = 3;
  for (std::uint64_t ms = 0; ms < 1000 * kSeconds; ++ms) {  // 300,000 sources a second: the table has room for 32,768
    const std::uint64_t now = kStart + ms * 1'000'000;
    heavy += books.take(0, limits, source_of(1), kPacket, now) == RateAnswer::pass;
    for (int n = 0; n < 300; ++n)
      refused_strangers += books.take(0, limits, source_of(static_cast<std::uint32_t>(random() | 1U << 31)), kPacket, now) !=
                           RateAnswer::pass;
  }
  EXPECT_LE(heavy, 100 * kSeconds + 101);
  EXPECT_EQ(refused_strangers, 0U);
}

// Ten sources that a listener has known for a while.
void make_known(Books& books, const abi::RateLimits& limits, std::uint64_t& now) {
  for (int second = 0; second < 12; ++second, now += kSecond) {
    for (std::uint32_t address = 1; address <= 10; ++address) {
      ASSERT_EQ(books.take(0, limits, source_of(address), kFlow, now), RateAnswer::pass);
    }
  }
}

TEST(RateBook, AnAttackerWithManySourcesTakesNothingFromKnownOnes) {
  Books books(1);
  const abi::RateLimits limits = per_listener({.new_flows_per_second = 1000});
  std::uint64_t now = kStart;
  make_known(books, limits, now);
  std::mt19937_64 random(3);
  std::uint64_t known = 0;
  std::uint64_t strangers = 0;
  constexpr std::uint64_t kSeconds = 15;  // long enough for an attacker to be seen twice
  for (std::uint64_t ms = 0; ms < 1000 * kSeconds; ++ms, now += 1'000'000) {
    for (int n = 0; n < 50; ++n)  // 20,000 sources, fifty times what the listener takes
      strangers += books.take(0, limits, source_of(static_cast<std::uint32_t>(1U << 31 | random() % 20'000)), kFlow, now) ==
                   RateAnswer::pass;
    if (ms % 50 == 0) {
      for (std::uint32_t address = 1; address <= 10; ++address)
        known += books.take(0, limits, source_of(address), kFlow, now) == RateAnswer::pass;
    }
  }
  EXPECT_EQ(known, 10 * 20 * kSeconds);
  EXPECT_LE(known + strangers, 1000 * (kSeconds + 1) + 1);
  EXPECT_GE(known + strangers, 1000 * kSeconds * 99 / 100);
}

TEST(RateBook, AKnownSourceGetsNoMoreThanItsShareFromTheOthers) {
  Books books(1);
  const abi::RateLimits limits = per_listener({.new_flows_per_second = 1000});
  std::uint64_t now = kStart;
  make_known(books, limits, now);
  std::uint64_t modest = 0;
  std::uint64_t greedy = 0;
  constexpr std::uint64_t kSeconds = 10;
  for (std::uint64_t ms = 0; ms < 1000 * kSeconds; ++ms, now += 1'000'000) {
    for (int n = 0; n < 5; ++n) greedy += books.take(0, limits, source_of(1), kFlow, now) == RateAnswer::pass;
    if (ms % 12 != 0) continue;
    for (std::uint32_t address = 2; address <= 10; ++address)  // 83 a second each, less than a tenth of the limit
      modest += books.take(0, limits, source_of(address), kFlow, now) == RateAnswer::pass;
  }
  EXPECT_EQ(modest, 9 * (1000 * kSeconds / 12 + 1));
  EXPECT_GE(greedy + modest, 1000 * kSeconds * 99 / 100);
}

TEST(RateBook, ConcurrentFlowsAreThoseOfAllWorkers) {
  Books books(2);
  const abi::RateLimits limits = per_source({.concurrent_flows = 3});
  const RateSource source = source_of(1);
  for (std::uint32_t n = 0; n < 3; ++n) {
    const std::uint32_t worker = n % 2;
    ASSERT_EQ(books.take(worker, limits, source, kFlow, kStart), RateAnswer::pass);
    books.books[worker].add_flow(kListener, books.books[worker].meter_of(source, kStart));
  }
  EXPECT_EQ(books.take(0, limits, source, kFlow, kStart), RateAnswer::source_over);
  EXPECT_EQ(books.take(1, limits, source, kFlow, kStart), RateAnswer::source_over);
  const std::uint32_t meter = books.books[1].meter_of(source, kStart);
  books.books[1].remove_flow(kListener, meter, books.books[1].birth_of(meter));
  EXPECT_EQ(books.take(0, limits, source, kFlow, kStart), RateAnswer::pass);
}

TEST(RateBook, AListenersConcurrentFlowsLeaveRoomForKnownSources) {
  Books books(1);
  const abi::RateLimits limits = per_listener({.concurrent_flows = 16});
  std::uint64_t now = kStart;
  make_known(books, limits, now);
  for (std::uint32_t address = 100; address < 114; ++address) {
    ASSERT_EQ(books.take(0, limits, source_of(address), kFlow, now), RateAnswer::pass) << address;
    books.books[0].add_flow(kListener, books.books[0].meter_of(source_of(address), now));
  }
  EXPECT_EQ(books.take(0, limits, source_of(200), kFlow, now), RateAnswer::listener_over);
  for (std::uint32_t address = 1; address <= 2; ++address) {
    EXPECT_EQ(books.take(0, limits, source_of(address), kFlow, now), RateAnswer::pass);
    books.books[0].add_flow(kListener, books.books[0].meter_of(source_of(address), now));
  }
  EXPECT_EQ(books.take(0, limits, source_of(3), kFlow, now), RateAnswer::listener_over);
}

TEST(RateBook, AListenerWithTheCounterIndexOfAnotherBeginsAnew) {
  Books books(2);
  const abi::RateLimits all = cp::compile_rates({.per_listener = {.new_flows_per_second = 4}}, 1);
  RateSource before = source_of(1);
  before.listener = abi::rate_listener(kListener, all);
  for (std::uint32_t worker = 0; worker < 2; ++worker) {
    ASSERT_EQ(books.take(worker, all, before, kFlow, kStart), RateAnswer::pass);
    books.books[worker].add_flow(before.listener, books.books[worker].meter_of(before, kStart));
  }
  ASSERT_EQ(books.take(0, all, before, kFlow, kStart), RateAnswer::listener_over);
  const std::uint32_t old_meter = books.books[0].meter_of(before, kStart);

  RateSource after = before;  // the same source, hash and place
  after.listener = abi::rate_listener(kListener, cp::compile_rates({}, 2));
  ASSERT_EQ(abi::counter_index_of(after.listener), kListener);
  EXPECT_EQ(books.take(0, all, after, kFlow, kStart), RateAnswer::pass);
  books.books[0].add_flow(after.listener, books.books[0].meter_of(after, kStart));
  EXPECT_EQ(rate_standing(books.views(), after.listener)->refused, 0U);
  EXPECT_EQ(rate_standing(books.views(), after.listener)->flows, 1U) << "the other worker's are still the old one's";
  books.books[0].remove_flow(before.listener, old_meter, books.books[0].birth_of(old_meter));
  EXPECT_EQ(rate_standing(books.views(), after.listener)->flows, 1U) << "a flow of the old listener ends";
}

TEST(RateBook, TwoListenersAreTheSameOnlyIfAllThatNamesThemIs) {
  const cp::Listener listener{.name = "web", .vip = "v", .first_port = 80, .last_port = 80};
  abi::Vip vip;
  vip.address = abi::IpAddress::v4(192, 0, 2, 1);
  cp::Listener name = listener;
  name.name = "wec";
  cp::Listener port = listener;
  port.first_port = 81;
  cp::Listener protocol = listener;
  protocol.protocol = cp::ListenerProtocol::udp;
  for (const cp::Listener& other : {name, port, protocol})
    EXPECT_NE(cp::rate_identity(listener, vip), cp::rate_identity(other, vip));
  abi::Vip moved = vip;
  moved.address.bytes[15] = 2;
  EXPECT_NE(cp::rate_identity(listener, vip), cp::rate_identity(listener, moved));
  cp::Listener limited = listener;
  limited.rate_limits.per_source.new_flows_per_second = 5;
  EXPECT_EQ(cp::rate_identity(listener, vip), cp::rate_identity(limited, vip));
}

TEST(RateBook, WhoWasRefusedCanBeReadByOthers) {
  Books books(2);
  const abi::RateLimits limits = per_source({.packets_per_second = 2});
  for (std::uint32_t worker = 0; worker < 2; ++worker) {
    for (int n = 0; n < 5; ++n) books.take(worker, limits, source_of(9), kPacket, kStart);
  }
  books.take(0, limits, source_of(8), kPacket, kStart);
  auto standings = rate_sources(books.views(), kStart + kSecond);
  std::ranges::sort(standings, {}, &RateStanding::refused);
  ASSERT_EQ(standings.size(), 2U);
  EXPECT_EQ(standings[0].refused, 0U);
  EXPECT_EQ(standings[1].prefix, source_of(9).prefix);
  EXPECT_EQ(standings[1].refused, 8U);
  EXPECT_EQ(standings[1].over, 1U << static_cast<unsigned>(abi::RateKind::packets));
  EXPECT_NEAR(static_cast<double>(standings[1].idle_ns), 1e9, 2e6);
}

}  // namespace
}  // namespace lb
