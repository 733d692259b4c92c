#include "cp/stats/peak_rates.h"

#include <algorithm>

namespace lb::cp {

void PeakRates::look(std::uint32_t counter_index, std::uint64_t packets, Time now) {
  if (counter_index >= counters_.size()) counters_.resize(counter_index + std::size_t{1});
  Counter& counter = counters_[counter_index];
  if (!counter.known || packets < counter.packets) {
    counter = {.looked = now, .packets = packets, .known = true};
    return;
  }
  const double seconds = std::chrono::duration<double>(now - counter.looked).count();
  if (seconds <= 0) return;
  counter.ring[counter.rates++ % kPeakSeconds] =
      static_cast<float>(static_cast<double>(packets - counter.packets) / seconds);
  counter.packets = packets;
  counter.looked = now;
}

double PeakRates::peak(std::uint32_t counter_index) const {
  return counter_index < counters_.size() ? *std::ranges::max_element(counters_[counter_index].ring) : 0;
}

}  // namespace lb::cp
