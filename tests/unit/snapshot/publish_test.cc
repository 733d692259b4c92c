#include "cp/snapshot/publish.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <asio/io_context.hpp>
#include <thread>

#include "tests/unit/snapshot/fake_data_plane.h"

namespace lb::cp {
namespace {

using std::chrono::milliseconds;

// A snapshot of the segments named; no more than the protocol looks at.
CompiledSnapshot snapshot(std::uint64_t n, std::initializer_list<std::uint64_t> segment_ids) {
  const std::vector<std::byte> bytes(64);
  CompiledSnapshot result;
  result.generation = {1, n};
  result.root = *seal(bytes, 0);
  for (const std::uint64_t id : segment_ids) result.segments.push_back(*seal(bytes, id));
  return result;
}

class PublishTest : public testing::Test {
 protected:
  void SetUp() override { dp_.emplace(path_); }

  Publisher& publisher() {
    if (!publisher_) {
      PublisherCallbacks callbacks;
      callbacks.on_hello = [this](const DataPlane& peer) {
        said_.push_back("hello " + std::to_string(peer.instance));
        peer_ = peer;
      };
      callbacks.on_verdict = [this](abi::Generation g, abi::Refusal refusal, const std::string& text) {
        said_.push_back("verdict " + std::to_string(g.n) + " " + std::string(abi::to_string(refusal)) +
                        (text.empty() ? "" : ": " + text));
      };
      callbacks.on_active = [this](abi::Generation g) { said_.push_back("active " + std::to_string(g.n)); };
      callbacks.on_disconnected = [this](const std::string& reason) { said_.push_back("gone: " + reason); };
      callbacks.on_late = [this](abi::Generation g, milliseconds) { said_.push_back("late " + std::to_string(g.n)); };
      publisher_.emplace(io_, PublisherOptions{path_, milliseconds(1), milliseconds(5), deadline_}, std::move(callbacks));
    }
    return *publisher_;
  }

  // Lets both sides work until `done`; false after ten seconds.
  template <typename Done>
  bool until(Done done) {
    publisher();
    for (int i = 0; i < 10'000; ++i) {
      io_.poll();
      io_.restart();
      if (dp_) dp_->poll();
      if (done()) return true;
      std::this_thread::sleep_for(milliseconds(1));
    }
    return false;
  }
  bool published(std::uint64_t n) {
    return until([&] { return dp_ && !dp_->published.empty() && dp_->published.back().n == n; });
  }
  bool said(const std::string& text) {
    return until([&] { return std::ranges::find(said_, text) != said_.end(); });
  }
  // Nothing more is said or sent for a while.
  void settle() {
    int left = 20;
    until([&] { return --left == 0; });
  }
  // The publication in flight is accepted and becomes active.
  bool in_force(std::uint64_t n) {
    if (!published(n)) return false;
    dp_->verdict(abi::Refusal::none);
    dp_->active();
    return said("active " + std::to_string(n));
  }

  const std::string path_ = "/tmp/lb-publish-test-" + std::to_string(getpid()) + ".sock";
  asio::io_context io_;
  std::optional<FakeDataPlane> dp_;
  std::vector<std::string> said_;
  std::optional<DataPlane> peer_;
  milliseconds deadline_{60'000};
  std::optional<Publisher> publisher_;
};

using Words = std::vector<std::string>;
using Ids = std::vector<std::uint64_t>;

TEST_F(PublishTest, SendsSegmentsThenRootAndTellsWhatBecameOfIt) {
  publisher().publish(snapshot(1, {11, 12}));
  ASSERT_TRUE(in_force(1));
  EXPECT_EQ(said_, (Words{"hello 1", "verdict 1 none", "active 1"}));
  EXPECT_EQ(dp_->sent_ids, (Ids{11, 12}));
  EXPECT_TRUE(publisher().connected());
  ASSERT_TRUE(peer_);
  EXPECT_EQ(peer_->ports.at(0).name, std::string("lb0"));
  EXPECT_EQ(peer_->stats->workers().size(), 2U);
  EXPECT_EQ(peer_->stats->listeners(1).size(), 16U);
  EXPECT_EQ(peer_->stats->target_flows(1).size(), 32U);
  EXPECT_EQ(peer_->flows->tables().size(), 2U);
  EXPECT_EQ(peer_->flows->tables()[1].size(), 8U);
}

TEST_F(PublishTest, WhatWasCompiledIsAcceptedByTheDataPlanesChecks) {
  Compiler compiler;
  SnapshotInput input;
  input.generation = {1, 1};
  input.vips = {{"web", abi::IpAddress::v4(192, 0, 2, 10)}};
  for (std::uint32_t g = 0; g < 40; ++g) {
    GroupInput group;
    group.config.name = "g" + std::to_string(g);
    for (std::uint8_t t = 0; t < 3; ++t) {
      TargetInput target;
      target.key = {group.config.name, abi::IpAddress::v4(10, 0, static_cast<std::uint8_t>(g), t), 80};
      target.id = 3 * g + t;
      target.weight = 1;
      group.targets.push_back(target);
    }
    input.groups.push_back(group);
  }
  publisher().publish(*compiler.compile(input));
  ASSERT_TRUE(in_force(1));
  EXPECT_EQ(dp_->open(), "accepted");
  EXPECT_GE(dp_->sent_ids.size(), 2U);

  dp_->sent_ids.clear();
  input.generation.n = 2;
  input.groups[3].targets[1].weight = 2;
  publisher().publish(*compiler.compile(input));
  ASSERT_TRUE(published(2));
  EXPECT_EQ(dp_->sent_ids.size(), 1U) << "the other segments are there";
  EXPECT_EQ(dp_->open(), "accepted");
}

TEST_F(PublishTest, SendsOnlySegmentsThatTheLastAcceptedGenerationHasNot) {
  publisher().publish(snapshot(1, {1, 2, 3}));
  ASSERT_TRUE(in_force(1));
  dp_->sent_ids.clear();
  publisher().publish(snapshot(2, {2, 4}));
  ASSERT_TRUE(in_force(2));
  EXPECT_EQ(dp_->sent_ids, (Ids{4}));
  publisher().publish(snapshot(3, {1, 2, 4}));
  ASSERT_TRUE(in_force(3));
  EXPECT_EQ(dp_->sent_ids, (Ids{4, 1})) << "lb-dp may have dropped 1 with generation 2";
}

TEST_F(PublishTest, OneIsInFlightAndTheNewestOfTheRestFollows) {
  publisher().publish(snapshot(1, {1}));
  ASSERT_TRUE(published(1));
  publisher().publish(snapshot(2, {2}));
  publisher().publish(snapshot(3, {3}));
  settle();
  EXPECT_EQ(dp_->published.size(), 1U) << "not before 1 is active";
  dp_->verdict(abi::Refusal::none);
  ASSERT_TRUE(said("verdict 1 none"));
  publisher().publish(snapshot(4, {4}));
  settle();
  EXPECT_EQ(dp_->published.size(), 1U);
  dp_->active();
  ASSERT_TRUE(in_force(4));
  EXPECT_EQ(dp_->published, (std::vector<abi::Generation>{{1, 1}, {1, 4}})) << "2 and 3 were merged away";
}

TEST_F(PublishTest, ARefusedGenerationIsToldAndTheNextOneStartsFromTheLastGood) {
  publisher().publish(snapshot(1, {1}));
  ASSERT_TRUE(in_force(1));
  publisher().publish(snapshot(2, {1, 2}));
  ASSERT_TRUE(published(2));
  dp_->verdict(abi::Refusal::unknown_port, "eth9");
  ASSERT_TRUE(said("verdict 2 unknown_port: eth9"));
  settle();
  EXPECT_EQ(dp_->published.size(), 2U) << "not sent again by itself";
  dp_->sent_ids.clear();
  publisher().publish(snapshot(3, {1, 2}));
  ASSERT_TRUE(in_force(3));
  EXPECT_EQ(dp_->sent_ids, (Ids{2})) << "segments of a refused generation do not count as held";
}

TEST_F(PublishTest, AMissingSegmentIsCuredBySendingAll) {
  publisher().publish(snapshot(1, {1, 2}));
  ASSERT_TRUE(in_force(1));
  publisher().publish(snapshot(2, {1, 2, 3}));
  ASSERT_TRUE(published(2));
  dp_->sent_ids.clear();
  dp_->published.pop_back();
  dp_->published.push_back({1, 2});
  dp_->verdict(abi::Refusal::missing_segment, "2");
  ASSERT_TRUE(until([&] { return dp_->published.size() == 3; }));
  EXPECT_EQ(dp_->sent_ids, (Ids{1, 2, 3}));
  dp_->verdict(abi::Refusal::missing_segment, "2");
  ASSERT_TRUE(said("verdict 2 missing_segment: 2")) << "everything was sent: now it is told";
}

TEST_F(PublishTest, AfterAReconnectEverythingIsSentAgain) {
  publisher().publish(snapshot(1, {1, 2}));
  ASSERT_TRUE(in_force(1));
  dp_.reset();
  ASSERT_TRUE(said("gone: lb-dp closed the connection"));
  EXPECT_FALSE(publisher().connected());
  dp_.emplace(path_);
  dp_->hello.instance = 2;
  ASSERT_TRUE(in_force(1));
  EXPECT_EQ(dp_->sent_ids, (Ids{1, 2}));
  EXPECT_TRUE(said("hello 2"));
}

TEST_F(PublishTest, AReconnectInTheMiddleOfAPublicationStartsItOver) {
  publisher().publish(snapshot(1, {1}));
  ASSERT_TRUE(published(1));
  dp_->published.clear();
  dp_->hang_up();
  ASSERT_TRUE(in_force(1));
  EXPECT_EQ(dp_->connections, 2);
  EXPECT_EQ(dp_->sent_ids, (Ids{1, 1}));
}

TEST_F(PublishTest, WhatIsInForceAlreadyIsNotSent) {
  dp_->hello.generation = {1, 1};
  publisher().publish(snapshot(1, {1}));
  ASSERT_TRUE(said("active 1"));
  settle();
  EXPECT_TRUE(dp_->published.empty());
  publisher().publish(snapshot(2, {1, 2}));
  ASSERT_TRUE(published(2));
  EXPECT_EQ(dp_->sent_ids, (Ids{2}));
}

TEST_F(PublishTest, AStaleGenerationWaitsForAHigherEpoch) {
  dp_->hello.generation = {7, 3};
  publisher().publish(snapshot(1, {1}));
  ASSERT_TRUE(said("hello 1"));
  settle();
  EXPECT_TRUE(dp_->published.empty());
  CompiledSnapshot next = snapshot(1, {1});
  next.generation = {8, 1};
  publisher().publish(next);
  ASSERT_TRUE(in_force(1));
  EXPECT_EQ(dp_->published, (std::vector<abi::Generation>{{8, 1}}));
}

TEST_F(PublishTest, ADataPlaneOfAnotherBuildIsRefusedByName) {
  dp_->hello.snapshot_fingerprint ^= 1;
  ASSERT_TRUE(said("gone: fingerprint: lb-dp is of a build with another snapshot layout"));
  dp_->hello.snapshot_fingerprint ^= 1;
  EXPECT_TRUE(said("hello 1")) << "tried again: lb-dp may have been upgraded";
}

TEST_F(PublishTest, ABusyDataPlaneIsTheReasonTold) {
  ASSERT_TRUE(said("hello 1"));
  dp_->send(abi::MessageHeader{.kind = abi::MessageKind::busy, .size_bytes = sizeof(abi::MessageHeader)});
  dp_->hang_up();
  EXPECT_TRUE(said("gone: lb-dp is busy with another lb-cp"));
  EXPECT_TRUE(until([&] { return dp_->connections == 2; }));
}

TEST_F(PublishTest, AnAbsentDataPlaneIsToldOncePerReason) {
  dp_.reset();
  ASSERT_TRUE(said("gone: " + path_ + ": No such file or directory"));
  settle();
  EXPECT_EQ(said_.size(), 1U);
}

TEST_F(PublishTest, ALateAnswerIsReportedAndStillAwaited) {
  deadline_ = milliseconds(5);
  publisher().publish(snapshot(1, {1}));
  ASSERT_TRUE(until([&] { return std::ranges::count(said_, "late 1") >= 3; }));
  ASSERT_TRUE(in_force(1));
}

TEST_F(PublishTest, AnswersThatDoNotBelongEndTheConnection) {
  ASSERT_TRUE(said("hello 1"));
  dp_->published.push_back({9, 9});
  dp_->verdict(abi::Refusal::none);
  EXPECT_TRUE(said("gone: lb-dp judged a generation that is not in flight"));
  ASSERT_TRUE(until([&] { return dp_->connections == 2 && publisher().connected(); }));
  dp_->send(abi::Publish{.header = {.kind = abi::MessageKind::publish, .size_bytes = sizeof(abi::Publish)}});
  EXPECT_TRUE(said("gone: lb-dp sent what does not belong here"));
}

// More than the socket's buffer holds: the rest waits for lb-dp to read, in messages of at most 200 fds.
TEST_F(PublishTest, ASlowReaderBlocksNothing) {
  ASSERT_TRUE(said("hello 1"));
  dp_->reading = false;
  CompiledSnapshot large = snapshot(1, {1});
  large.segments.resize(40'000, large.segments[0]);
  publisher().publish(large);
  settle();
  EXPECT_TRUE(dp_->published.empty());
  dp_->reading = true;
  ASSERT_TRUE(in_force(1));
  EXPECT_EQ(dp_->sent_ids.size(), 40'000U);
  EXPECT_EQ(dp_->most_fds, 200U);
}

TEST(Regions, HostileHeadersAreRefusedByName) {
  const auto stats = [](const auto& change) {
    abi::StatsRegionHeader header = stats_header(2);
    const OwnedFd fd = [&] {
      std::vector<std::byte> bytes(header.size_bytes);
      change(header);
      std::memcpy(bytes.data(), &header, sizeof header);
      return memory_of(bytes.data(), bytes.size());
    }();
    const auto region = StatsRegion::map(fd.get());
    return region ? std::string("accepted") : region.error();
  };
  EXPECT_EQ(stats([](auto&) {}), "accepted");
  EXPECT_EQ(stats([](auto& h) { h.magic = 0; }), "stats region: wrong magic");
  EXPECT_EQ(stats([](auto& h) { h.layout_fingerprint = 0; }), "stats region: written by a build with another memory layout");
  EXPECT_EQ(stats([](auto& h) { h.size_bytes += 1; }), "stats region: its header says more bytes than it has");
  EXPECT_EQ(stats([](auto& h) { h.worker_count = 0; }), "stats region: worker count out of range");
  EXPECT_EQ(stats([](auto& h) { h.worker_count = 3; }), "stats region: a table leaves it");
  EXPECT_EQ(stats([](auto& h) { h.target_capacity = 0xffffffff; }), "stats region: a table leaves it");
  EXPECT_EQ(stats([](auto& h) { h.workers_offset = ~0ULL - 63; }), "stats region: a table leaves it");
  EXPECT_EQ(stats([](auto& h) { h.listeners_offset = 0; }), "stats region: a table leaves it");

  const auto flows = [](const auto& change) {
    abi::FlowRegionHeader header = flow_header(2);
    std::vector<std::byte> bytes(header.size_bytes);
    change(header);
    std::memcpy(bytes.data(), &header, sizeof header);
    const OwnedFd fd = memory_of(bytes.data(), bytes.size());
    const auto region = FlowRegion::map(fd.get());
    return region ? std::string("accepted") : region.error();
  };
  EXPECT_EQ(flows([](auto&) {}), "accepted");
  EXPECT_EQ(flows([](auto& h) { h.version = 9; }), "flow region: version 9 of the layout");
  EXPECT_EQ(flows([](auto& h) { h.lines_per_worker = 1ULL << 60; }), "flow region: a flow table leaves it");
  EXPECT_EQ(flows([](auto& h) { h.lines_per_worker = 0; }), "flow region: a flow table leaves it");
  EXPECT_EQ(flows([](auto& h) { h.translations_per_worker = 1ULL << 60; }),
            "flow region: a table of translations leaves it");
  EXPECT_EQ(flows([](auto& h) { h.translations_offset = 0; }), "flow region: a table of translations leaves it");
  const OwnedFd empty(memfd_create("empty", MFD_CLOEXEC));
  EXPECT_EQ(FlowRegion::map(empty.get()).error(), "flow region: has only 0 bytes");
}

}  // namespace
}  // namespace lb::cp
