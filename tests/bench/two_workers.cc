#include "tests/bench/two_workers.h"

#include <sched.h>
#include <x86intrin.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <barrier>
#include <random>
#include <thread>

#include "tests/bench/rig.h"

namespace lb::bench {
namespace {

void pin_to(std::size_t core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  sched_setaffinity(0, sizeof set, &set);
}

struct Worker {
  Worker(const Kernel& kernel, std::uint64_t flows) : rig(kernel, flows, 1, FlowState::assumed) {}

  void prepare(std::mt19937_64& random) {
    pool.prepare(1, [&](std::uint32_t) {
      return std::pair<std::uint64_t, std::uint8_t>{random() % rig.flows(), net::kTcpAck};
    });
  }

  // The median burst, in cycles per packet.
  double run(std::uint32_t size) {
    std::vector<double> bursts;
    Burst burst;
    for (std::uint32_t b = 0; b < PacketPool::kBuffers / size; ++b) {
      pool.fill(burst, b, size);
      const std::uint64_t start = __rdtsc();
      rig.pipeline(Mode::ipip4).process(rig.snapshot(Mode::ipip4), burst, rig.now_ns);
      bursts.push_back(static_cast<double>(__rdtsc() - start) / size);
    }
    const auto middle = bursts.begin() + static_cast<std::ptrdiff_t>(bursts.size() / 2);
    std::nth_element(bursts.begin(), middle, bursts.end());
    return *middle;
  }

  PacketPool pool;
  Rig rig;
};

}  // namespace

TwoWorkers time_two_workers(const Kernel& kernel, std::uint64_t flows, std::uint32_t burst, std::uint32_t passes) {
  TwoWorkers times{.alone = std::vector<double>(passes), .together = std::vector<double>(passes)};
  std::array<std::vector<double>, 2> both = {std::vector<double>(passes), std::vector<double>(passes)};
  std::barrier turn(2);
  std::atomic<int> running = 0;
  const auto work = [&](std::size_t core) {
    pin_to(core);
    Worker worker(kernel, flows);  // touched first by the core that uses it
    std::mt19937_64 random(core + 1);
    for (std::uint32_t pass = 0; pass < passes; ++pass) {
      worker.prepare(random);
      turn.arrive_and_wait();
      if (core == 0) times.alone[pass] = worker.run(burst);
      worker.prepare(random);
      running = 2;
      turn.arrive_and_wait();
      both[core][pass] = worker.run(burst);
      --running;
      while (running > 0) worker.run(burst);  // keeps the other one company to its end
      turn.arrive_and_wait();
    }
  };
  {
    std::jthread other(work, 1);
    std::jthread one(work, 0);
  }
  for (std::uint32_t pass = 0; pass < passes; ++pass) times.together[pass] = (both[0][pass] + both[1][pass]) / 4;
  return times;
}

}  // namespace lb::bench
