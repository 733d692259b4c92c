#include "cp/control/event_log.h"

#include <gtest/gtest.h>

#include <thread>

namespace lb::cp {
namespace {

using namespace std::chrono_literals;

Event event(int number) {
  return {.object = "target " + std::to_string(number)};
}

TEST(EventLog, ReaderGetsEachEventOnceAndInOrder) {
  EventLog log;
  for (int i = 1; i <= 3; ++i) log.add(event(i));
  const EventsSince first = log.since(0, 0, 0ms);
  ASSERT_EQ(first.events.size(), 3U);
  EXPECT_EQ(first.events[0].object, "target 1");
  EXPECT_EQ(first.lost, 0U);
  EXPECT_TRUE(log.since(first.instance, 3, 0ms).events.empty());
  log.add(event(4));
  const EventsSince next = log.since(first.instance, 3, 0ms);
  ASSERT_EQ(next.events.size(), 1U);
  EXPECT_EQ(next.events[0].object, "target 4");
  EXPECT_EQ(log.newest_first().front().object, "target 4");
}

TEST(EventLog, WhatIsNoLongerKeptIsCountedAsLost) {
  EventLog log;
  for (int i = 1; i <= 10; ++i) log.add(event(i));
  const std::uint64_t instance = log.since(0, 0, 0ms).instance;
  for (int i = 0; i < static_cast<int>(kMaxEvents) + 5; ++i) log.add(event(100 + i));
  const EventsSince found = log.since(instance, 10, 0ms);
  EXPECT_EQ(found.events.size(), kMaxEvents);
  EXPECT_EQ(found.lost, 5U);
  EXPECT_EQ(log.since(0, 0, 0ms).lost, 0U) << "who asks for the first time has missed nothing";
}

TEST(EventLog, ReaderOfAnotherLifeOfLbCpGetsAllThereIs) {
  EventLog log;
  log.add(event(1));
  EXPECT_EQ(log.since(12345, 99, 0ms).events.size(), 1U);
}

TEST(EventLog, WaitingReaderIsWokenByTheNextEvent) {
  EventLog log;
  const std::uint64_t instance = log.since(0, 0, 0ms).instance;
  std::thread writer([&] { log.add(event(1)); });
  EXPECT_EQ(log.since(instance, 0, 60'000ms).events.size(), 1U);
  writer.join();
}

}  // namespace
}  // namespace lb::cp
