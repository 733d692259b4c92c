#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "dp/abi/fingerprint.h"
#include "dp/lb/flow_ops.h"
#include "dp/lb/ways_back.h"
#include "dp/worker/flow_region.h"
#include "dp/worker/generation_switch.h"
#include "dp/worker/stats_region.h"
#include "tests/unit/io/snapshot_fixture.h"

namespace lb::worker {
namespace {

class FlowRegionTest : public testing::Test {
 protected:
  FlowRegionTest() {
    std::string pattern = "/dev/shm/lb-region-test.XXXXXX";
    directory_ = ::mkdtemp(pattern.data());
    options_ = {
        .name = "test", .path = directory_ + "/flows", .workers = 2, .flows_per_worker = 1000, .target_capacity = 100};
  }
  ~FlowRegionTest() override { std::filesystem::remove_all(directory_); }

  std::unique_ptr<FlowRegion> open() {
    auto region = FlowRegion::open(options_);
    EXPECT_TRUE(region) << (region ? "" : region.error());
    return region ? std::move(*region) : nullptr;
  }

  std::string directory_;
  FlowRegionOptions options_;
};

TEST_F(FlowRegionTest, EntriesAndSecretOutliveTheProcess) {
  NodeSecret secret;
  {
    const auto region = open();
    EXPECT_FALSE(region->taken_over());
    secret = region->secret();
    region->lines(1)[3].key[0] = 77;
  }
  const auto again = open();
  EXPECT_TRUE(again->taken_over());
  EXPECT_EQ(again->secret(), secret);
  EXPECT_EQ(again->lines(1)[3].key[0], 77U);
}

TEST_F(FlowRegionTest, TheFileIsForItsOwnerAlone) {
  const auto region = open();
  struct stat info {};
  ASSERT_EQ(::stat(options_.path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
}

TEST_F(FlowRegionTest, TwoProcessesCannotShareIt) {
  const auto first = open();
  const auto second = FlowRegion::open(options_);
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().find("another lb-dp uses this flow region"), std::string::npos);
}

TEST_F(FlowRegionTest, AnythingThatDoesNotFitGivesAFreshRegionWithANewSecret) {
  const auto with = [&](auto change) {
    NodeSecret secret;
    {
      const auto region = open();
      secret = region->secret();
    }
    change(options_);
    const auto region = open();
    return !region->taken_over() && region->secret() != secret;
  };
  EXPECT_TRUE(with([](FlowRegionOptions& o) { o.flows_per_worker = 5000; }));
  EXPECT_TRUE(with([](FlowRegionOptions& o) { o.target_capacity = 101; }));
  EXPECT_TRUE(with([](FlowRegionOptions& o) { std::filesystem::resize_file(o.path, 100); }));
  for (const std::size_t damaged :
       {offsetof(abi::FlowRegionHeader, magic), offsetof(abi::FlowRegionHeader, version),
        offsetof(abi::FlowRegionHeader, layout_fingerprint), offsetof(abi::FlowRegionHeader, lines_offset),
        offsetof(abi::FlowRegionHeader, written_at_unix_ns)}) {
    EXPECT_TRUE(with([&](FlowRegionOptions& o) {
      const io::Fd fd(::open(o.path.c_str(), O_RDWR | O_CLOEXEC));
      const std::uint32_t garbage = 0xdead;
      ASSERT_EQ(::pwrite(fd.get(), &garbage, sizeof(garbage),
                         static_cast<off_t>(damaged) + 4 * (damaged == offsetof(abi::FlowRegionHeader, written_at_unix_ns))),
                4);
    })) << damaged;
  }
}

TEST_F(FlowRegionTest, AnotherNumberOfWorkersTakesTheFlowsAlong) {
  constexpr std::uint64_t kKey = 0xabcdef0000000001;
  const std::uint32_t meta = make_meta(7, FlowState::assumed);
  NodeSecret secret;
  {
    const auto region = open();
    secret = region->secret();
    region->lines(0)[3].key[0] = kKey;
    region->lines(0)[3].meta[0] = meta;
  }
  for (const std::uint32_t workers : {3U, 1U}) {
    options_.workers = workers;
    const auto region = open();
    EXPECT_TRUE(region->taken_over());
    EXPECT_EQ(region->secret(), secret);
    for (std::uint32_t w = 0; w < workers; ++w) {
      EXPECT_EQ(region->lines(w)[3].key[0], kKey);
      EXPECT_EQ(region->lines(w)[3].meta[0], meta);
    }
    EXPECT_FALSE(FlowRegion::open(options_)) << "the new file is locked as the old one was";
    EXPECT_FALSE(std::filesystem::exists(options_.path + ".new"));
  }
}

TEST_F(FlowRegionTest, WaysBackToClientsStayOverARestartAndAChangeOfWorkers) {
  constexpr abi::IpAddress kClient = abi::IpAddress::v4(203, 0, 113, 5);
  const WayBack way{.neighbour = {2, 0, 0, 0, 0, 7}, .own = {2, 0, 0, 0, 1, 1}, .used = 1};
  options_.ports = {way.own};
  const std::uint32_t number = WaysBack(&open()->ways(1)).learn(kClient, way, 0, 10);
  for (const std::uint32_t workers : {2U, 3U, 1U}) {
    options_.workers = workers;
    const auto region = open();
    EXPECT_EQ(WaysBack(&region->ways(workers - 1)).at(kClient, number), way) << workers;
  }
  options_.ports = {{2, 0, 0, 0, 1, 2}};
  EXPECT_EQ(WaysBack(&open()->ways(0)).at(kClient, number).used, 0) << "another interface";
}

TEST_F(FlowRegionTest, WhatAStartLeftHalfMovedIsNotTaken) {
  { open()->lines(0)[3].key[0] = 77; }
  { std::ofstream(options_.path + ".new") << "left by a start that was killed"; }
  options_.workers = 3;
  EXPECT_TRUE(open()->taken_over());
  EXPECT_FALSE(std::filesystem::exists(options_.path + ".new"));
}

TEST_F(FlowRegionTest, LbCpGetsItReadOnly) {
  const auto region = open();
  EXPECT_EQ(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, region->read_only_fd(), 0), MAP_FAILED);
  void* const view = ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, region->read_only_fd(), 0);
  ASSERT_NE(view, MAP_FAILED);
  EXPECT_EQ(static_cast<const abi::FlowRegionHeader*>(view)->magic, abi::kFlowRegionMagic);
  ::munmap(view, 4096);
}

TEST_F(FlowRegionTest, WhereNothingFitsTheErrorSaysWhatWasTried) {
  options_.path = "/nonexistent/flows";
  const auto region = FlowRegion::open(options_);
  ASSERT_FALSE(region);
  EXPECT_NE(region.error().find("/nonexistent/flows: open: No such file or directory"), std::string::npos);
}

TEST(StatsRegionTest, BlocksOfWorkersDoNotOverlapAndTheHeaderSaysWhereTheyAre) {
  auto made = StatsRegion::create(2, 3, 5, 1000);
  ASSERT_TRUE(made);
  const StatsRegion& region = **made;
  region.worker(0).heartbeat = 1;
  region.worker(1).heartbeat = 2;
  for (std::uint32_t w = 0; w < 2; ++w) {
    for (auto& listener : region.listeners(w)) listener.packets = 10 + w;
    for (auto& flows : region.target_flows(w)) flows = 20 + w;
    for (auto& troubles : region.target_troubles(w)) troubles = 30 + w;
  }
  struct stat info {};
  ASSERT_EQ(::fstat(region.read_only_fd(), &info), 0);
  const auto size = static_cast<std::size_t>(info.st_size);
  void* const address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, region.read_only_fd(), 0);
  ASSERT_NE(address, MAP_FAILED);
  const auto* bytes = static_cast<const std::byte*>(address);
  const auto& header = *reinterpret_cast<const abi::StatsRegionHeader*>(bytes);
  EXPECT_EQ(header.magic, abi::kStatsMagic);
  EXPECT_EQ(header.layout_fingerprint, abi::region_fingerprint());
  EXPECT_EQ(header.size_bytes, size);
  EXPECT_GE(header.listener_capacity, 3U);
  EXPECT_GE(header.target_capacity, 5U);
  const auto* workers = reinterpret_cast<const abi::WorkerStats*>(bytes + header.workers_offset);
  const auto* listeners = reinterpret_cast<const abi::ListenerStats*>(bytes + header.listeners_offset);
  const auto* flows = reinterpret_cast<const std::uint32_t*>(bytes + header.target_flows_offset);
  const auto* troubles = reinterpret_cast<const std::uint32_t*>(bytes + header.target_troubles_offset);
  for (std::uint32_t w = 0; w < 2; ++w) {
    EXPECT_EQ(workers[w].heartbeat, w + 1);
    EXPECT_EQ(listeners[w * header.listener_capacity].packets, 10 + w);
    EXPECT_EQ(listeners[w * header.listener_capacity + header.listener_capacity - 1].packets, 10 + w);
    EXPECT_EQ(flows[w * header.target_capacity], 20 + w);
    EXPECT_EQ(flows[w * header.target_capacity + header.target_capacity - 1], 20 + w);
    EXPECT_EQ(troubles[w * header.target_capacity], 30 + w);
    EXPECT_EQ(troubles[w * header.target_capacity + header.target_capacity - 1], 30 + w);
  }
  ::munmap(address, size);
  EXPECT_EQ(::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, region.read_only_fd(), 0), MAP_FAILED);
}

TEST(GenerationSwitchTest, TheOldGenerationIsReleasedOnlyAfterEveryWorkerHasMoved) {
  GenerationSwitch<std::shared_ptr<int>> generations(2);
  auto old = std::make_shared<int>(1);
  std::weak_ptr<int> watch = old;
  EXPECT_EQ(generations.pick_up(0), nullptr);
  EXPECT_TRUE(generations.settled());
  generations.begin(std::make_unique<const std::shared_ptr<int>>(std::move(old)));
  EXPECT_FALSE(generations.settled());
  generations.pick_up(0);
  EXPECT_EQ(generations.laggard(), 1U);
  generations.pick_up(1);
  EXPECT_TRUE(generations.settled());
  generations.begin(std::make_unique<const std::shared_ptr<int>>(std::make_shared<int>(2)));
  generations.pick_up(1);
  EXPECT_FALSE(generations.settled());
  EXPECT_FALSE(watch.expired());
  EXPECT_EQ(**generations.pick_up(0), 2);
  EXPECT_TRUE(generations.settled());
  EXPECT_TRUE(watch.expired());
}

TEST(GenerationSwitchTest, WorkersNeverSeeAGenerationThatWasReleased) {
  constexpr int kGenerations = 2000;
  GenerationSwitch<std::vector<int>> generations(2);
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> workers;
  for (std::uint32_t w = 0; w < 2; ++w) {
    workers.emplace_back([&, w] {
      int last = 0;
      while (!stop.load(std::memory_order_relaxed)) {
        const auto* now = generations.pick_up(w);
        if (now == nullptr) continue;
        for (const int value : *now) wrong += value != now->front();
        wrong += now->front() < last;
        last = now->front();
        std::this_thread::yield();
      }
    });
  }
  for (int n = 1; n <= kGenerations; ++n) {
    generations.begin(std::make_unique<const std::vector<int>>(64, n));
    while (!generations.settled()) std::this_thread::yield();
  }
  stop = true;
  for (auto& worker : workers) worker.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace lb::worker
