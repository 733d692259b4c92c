// What a worker writes down for `lbctl trace`, read back as lb-cp does.
#include "cp/explain/trace.h"

#include <gtest/gtest.h>

#include <memory>

#include "dp/lb/tracer.h"
#include "tests/unit/net/frames.h"

namespace lb {
namespace {

using cp::explain::TraceFeed;
using net::test::Bytes;
using net::test::FrameSpec;

constexpr std::uint64_t kSecondNs = 1'000'000'000;
constexpr std::uint64_t kNow = 1000 * kSecondNs;

class TracerTest : public testing::Test {
 protected:
  static abi::TraceOrder order() {
    abi::TraceOrder order;
    order.session = 7;
    order.until_ns = kNow + 5 * kSecondNs;
    order.packets_per_second = 1000;
    order.snap_bytes = abi::kTraceSnapBytes;
    return order;
  }
  static FrameSpec spec(std::uint16_t port) {
    FrameSpec spec;
    spec.source = abi::IpAddress::v4(198, 51, 100, 7);
    spec.destination = abi::IpAddress::v4(192, 0, 2, 10);
    spec.destination_port = port;
    return spec;
  }
  // One burst: what comes, and what the packet path makes of it.
  void send(const std::vector<Bytes>& frames, std::uint64_t now_ns, Verdict verdict = Verdict::tx,
            abi::DropReason reason = abi::DropReason::none) {
    std::vector<Bytes> buffers = frames;
    burst_.count = static_cast<std::uint32_t>(frames.size());
    for (std::uint32_t i = 0; i < burst_.count; ++i) {
      burst_.data[i] = buffers[i].data();
      burst_.length[i] = static_cast<std::uint32_t>(buffers[i].size());
    }
    if (tracer_.is_on()) tracer_.before(burst_, now_ns);
    std::vector<Bytes> out = frames;
    for (std::uint32_t i = 0; i < burst_.count; ++i) {
      out[i].insert(out[i].begin(), 20, 0xee);  // an outer header
      burst_.data[i] = out[i].data();
      burst_.length[i] = static_cast<std::uint32_t>(out[i].size());
      burst_.verdict[i] = verdict;
      burst_.reason[i] = reason;
      burst_.listener[i] = burst_.group[i] = burst_.target[i] = burst_.slot[i] = abi::kNoIndex;
      burst_.target[i] = 5;
    }
    if (tracer_.is_on()) tracer_.after(burst_, {3, 9});
  }

  std::unique_ptr<abi::TraceRing> ring_ = std::make_unique<abi::TraceRing>();
  TraceOrders orders_;
  Tracer tracer_{orders_, *ring_};
  TraceFeed feed_{nullptr, {ring_.get(), 1}, 7};
  Burst burst_;
};

TEST_F(TracerTest, NothingIsWrittenUntilSomebodyAsks) {
  send({make_frame(spec(80))}, kNow);
  EXPECT_FALSE(tracer_.is_on());
  EXPECT_EQ(ring_->written, 0U);
}

TEST_F(TracerTest, BothSidesOfAPacketAreKeptWithWhatWasDecided) {
  orders_.set(order());
  const Bytes frame = make_frame(spec(80));
  send({frame}, kNow);
  const auto batch = feed_.read();
  ASSERT_EQ(batch.packets.size(), 1U);
  const abi::TraceRecord& record = batch.packets[0].record;
  EXPECT_EQ(record.at_ns, kNow);
  EXPECT_EQ(record.generation, (abi::Generation{3, 9}));
  EXPECT_EQ(record.target, 5U);
  ASSERT_EQ(record.in_bytes, frame.size());
  ASSERT_EQ(record.out_bytes, frame.size() + 20);
  EXPECT_TRUE(std::equal(frame.begin(), frame.end(), record.bytes.begin()));
  EXPECT_EQ(record.bytes[frame.size()], 0xee);
  EXPECT_TRUE(std::equal(frame.begin(), frame.end(), record.bytes.begin() + static_cast<std::ptrdiff_t>(frame.size()) + 20));
  const auto words = cp::explain::words_of(nullptr, record);
  EXPECT_EQ(words.source, "198.51.100.7:40000");
  EXPECT_EQ(words.verdict, "tx");
  EXPECT_TRUE(feed_.read().packets.empty());
}

TEST_F(TracerTest, WhatLeavesIsKeptOnlyWhereSomethingLeaves) {
  orders_.set(order());
  send({make_frame(spec(80))}, kNow, Verdict::drop, abi::DropReason::no_target);
  const auto batch = feed_.read();
  ASSERT_EQ(batch.packets.size(), 1U);
  EXPECT_EQ(batch.packets[0].record.out_length, 0U);
  EXPECT_EQ(cp::explain::words_of(nullptr, batch.packets[0].record).path, "dropped as no_target");
}

TEST_F(TracerTest, EveryFilterMustHold) {
  const auto matches = [&](const auto& change, std::uint16_t port, Verdict verdict = Verdict::tx,
                           abi::DropReason reason = abi::DropReason::none) {
    abi::TraceOrder asked = order();
    change(asked);
    orders_.set(asked);
    send({make_frame(spec(port))}, kNow, verdict, reason);
    return feed_.read().packets.size() == 1;
  };
  using Order = abi::TraceOrder;
  EXPECT_TRUE(matches([](Order&) {}, 80));
  EXPECT_TRUE(matches([](Order& o) { o.port = 80; }, 80));
  EXPECT_TRUE(matches([](Order& o) { o.port = 40000; }, 80)) << "of either end";
  EXPECT_FALSE(matches([](Order& o) { o.port = 81; }, 80));
  EXPECT_TRUE(matches([](Order& o) { o.protocol = 6; }, 80));
  EXPECT_FALSE(matches([](Order& o) { o.protocol = 17; }, 80));
  const auto network = [](Order& o) { o.client = abi::IpAddress::v4(198, 51, 100, 0), o.client_length = 120; };
  EXPECT_TRUE(matches(network, 80));
  EXPECT_FALSE(matches([](Order& o) { o.client = abi::IpAddress::v4(198, 51, 101, 0), o.client_length = 120; }, 80));
  EXPECT_TRUE(matches([](Order& o) { o.vip = abi::IpAddress::v4(192, 0, 2, 10), o.vip_length = 128; }, 80));
  EXPECT_FALSE(matches([](Order& o) { o.vip = abi::IpAddress::v4(192, 0, 2, 10), o.vip_length = 129; }, 80)) << "hostile";
  EXPECT_FALSE(matches([](Order& o) { o.verdict = 3; }, 80));
  EXPECT_TRUE(matches([](Order& o) { o.verdict = 3; }, 80, Verdict::drop, abi::DropReason::land));
  const auto land = [](Order& o) { o.reason = static_cast<std::uint16_t>(abi::DropReason::land); };
  EXPECT_TRUE(matches(land, 80, Verdict::drop, abi::DropReason::land));
  EXPECT_FALSE(matches(land, 80, Verdict::drop, abi::DropReason::no_target));
}

TEST_F(TracerTest, OrderEndsByItself) {
  orders_.set(order());
  send({make_frame(spec(80))}, kNow + 5 * kSecondNs);
  EXPECT_EQ(ring_->written, 0U);
  orders_.set({});
  EXPECT_FALSE(tracer_.is_on());
}

TEST_F(TracerTest, RateIsHeldAndWhatWasLeftOutIsCounted) {
  abi::TraceOrder asked = order();
  asked.packets_per_second = 100;
  orders_.set(asked);
  const std::vector<Bytes> burst(50, make_frame(spec(80)));
  for (int n = 0; n < 10; ++n) send(burst, kNow);
  auto batch = feed_.read();
  EXPECT_EQ(batch.packets.size(), 10U) << "a tenth of a second's worth at once";
  EXPECT_EQ(batch.limited, 490U);
  send(burst, kNow + kSecondNs);
  EXPECT_EQ(feed_.read().packets.size(), 10U);
}

TEST_F(TracerTest, ReaderWhoIsTooSlowIsToldHowMuchHeHasLost) {
  abi::TraceOrder asked = order();
  asked.packets_per_second = abi::kTracePacketsPerSecond;
  orders_.set(asked);
  const std::vector<Bytes> burst(kBurst, make_frame(spec(80)));
  for (std::uint64_t n = 0; n < 10; ++n) send(burst, kNow + n * kSecondNs / 100);
  const auto batch = feed_.read();
  EXPECT_EQ(batch.packets.size(), abi::kTraceRecords);
  EXPECT_EQ(batch.lost, 10 * kBurst - abi::kTraceRecords);
  EXPECT_EQ(batch.packets.front().number, batch.lost);
}

TEST_F(TracerTest, ValuesOutOfRangeDoNoHarm) {
  abi::TraceOrder asked = order();
  asked.packets_per_second = ~0U;
  asked.snap_bytes = ~0U;
  orders_.set(asked);
  send({Bytes(9000, 1), Bytes(1, 1)}, kNow);
  const auto batch = feed_.read();
  ASSERT_EQ(batch.packets.size(), 2U);
  EXPECT_EQ(batch.packets[0].record.in_length, 9000U);
  EXPECT_EQ(batch.packets[0].record.in_bytes, abi::kTraceSnapBytes);
  abi::TraceRecord hostile = batch.packets[0].record;
  hostile.reason = hostile.in_bytes = hostile.out_bytes = 0xffff;
  hostile.verdict = hostile.flow = hostile.in_port = 0xff;
  hostile.in_bytes = abi::kTraceSnapBytes;
  EXPECT_FALSE(cp::explain::words_of(nullptr, hostile).path.empty());
}

}  // namespace
}  // namespace lb
