#include "cp/stats/peak_rates.h"

#include <gtest/gtest.h>

namespace lb::cp {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(PeakRates, TheHighestOfAMinuteIsToldAndThenForgotten) {
  PeakRates peaks;
  PeakRates::Time now{};
  std::uint64_t packets = 1'000'000;  // since long ago: no rate
  EXPECT_EQ(peaks.peak(3), 0);
  peaks.look(3, packets, now);
  EXPECT_EQ(peaks.peak(3), 0);
  const auto pass = [&](std::uint64_t more) { peaks.look(3, packets += more, now += seconds(1)); };
  pass(10);
  pass(500);
  pass(20);
  EXPECT_EQ(peaks.peak(3), 500);
  for (std::size_t second = 0; second < kPeakSeconds - 2; ++second) pass(1);
  EXPECT_EQ(peaks.peak(3), 500);
  pass(1);
  EXPECT_EQ(peaks.peak(3), 20);
  EXPECT_EQ(peaks.peak(2), 0) << "another listener";
}

TEST(PeakRates, ALookThatComesLateIsARateAllTheSame) {
  PeakRates peaks;
  const PeakRates::Time begin{};
  peaks.look(0, 0, begin);
  peaks.look(0, 300, begin + milliseconds(1500));
  EXPECT_EQ(peaks.peak(0), 200);
  peaks.look(0, 900, begin + milliseconds(1500));
  EXPECT_EQ(peaks.peak(0), 200) << "no time has passed";
}

TEST(PeakRates, ACounterThatBeginsAnewIsAnotherListeners) {
  PeakRates peaks;
  const PeakRates::Time begin{};
  peaks.look(0, 0, begin);
  peaks.look(0, 700, begin + seconds(1));
  peaks.look(0, 5, begin + seconds(2));
  EXPECT_EQ(peaks.peak(0), 0);
}

}  // namespace
}  // namespace lb::cp
