// How far is the packet path from what the machine can do? Rows of one run, on one core, measured in turns: every pass runs
// each row once over the whole packet pool, so that a noisy moment touches all of them, and ratios hold where cycles do not.
#include <fmt/format.h>
#include <sched.h>
#include <x86intrin.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <optional>
#include <random>
#include <regex>
#include <thread>

#include "dp/lb/work.h"
#include "tests/bench/design_rig.h"
#include "tests/bench/guard_rig.h"
#include "tests/bench/instructions.h"
#include "tests/bench/report.h"
#include "tests/bench/rig.h"
#include "tests/bench/two_workers.h"
#include "tests/bench/yardsticks.h"

namespace lb::bench {
namespace {

struct Options {
  std::string json;
  std::string plot;
  std::string baseline = LB_BENCH_BASELINE;
  std::string filter = ".*";
  std::uint32_t burst = 64;
  std::uint32_t passes = 15;
  std::uint64_t max_flows = 50'000'000;
  bool instructions = false;
  bool accept = false;
  std::string instruction_row;
};

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

double measure_tsc_hz() {
  const auto start = std::chrono::steady_clock::now();
  const std::uint64_t tsc = __rdtsc();
  while (std::chrono::steady_clock::now() - start < std::chrono::milliseconds(50)) {
  }
  const std::uint64_t cycles = __rdtsc() - tsc;
  return static_cast<double>(cycles) / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "?";
}

std::uint64_t available_bytes() {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("MemAvailable:")) return std::stoull(line.substr(13)) * 1024;
  }
  return 0;
}

const Yardstick& yardstick(const Kernel& kernel) {
  for (const Yardstick* one : {&kYardstickV2, &kYardstickV3, &kYardstickV4}) {
    if (std::string_view(one->name) == kernel.name) return *one;
  }
  return kYardstickV2;
}

// A row to be measured: prepares the pool for a pass (not timed), then runs bursts (timed one by one).
struct Job {
  Row row;
  std::function<void(PacketPool&, std::mt19937_64&)> prepare;
  std::function<void(Burst&)> run;
  // Stage rows time themselves and return the cycles; others are timed around run().
  std::function<std::uint64_t(Burst&)> timed = {};
  std::vector<double> medians = {};
};

class Bench {
 public:
  Bench(const Options& options, const Kernel& kernel) : options_(options), kernel_(kernel), filter_(options.filter) {
    for (std::uint32_t i = 0; i < kTargets; ++i) {
      limit_targets_[i].address = 10U | (i >> 8) << 16 | (i & 0xff) << 24;
      for (std::size_t b = 0; b < 12; ++b) limit_targets_[i].macs[b] = static_cast<std::uint8_t>(b * i);
    }
    report_.tsc_hz = measure_tsc_hz();
    report_.cpu = cpu_name();
    report_.build = kernel.name;
    report_.burst = options.burst;
  }

  int run() {
    std::cout << fmt::format("# {} · TSC {:.3f} GHz · build {} · burst {}\n", report_.cpu, report_.tsc_hz / 1e9,
                             kernel_.name, options_.burst)
              << fmt::format("{:<44} {:>8} {:>8} {:>8} {:>7} {:>7} {:>7}\n", "row", "median", "min", "Mpps", "/floor",
                             "/limit", "B/flow");
    for (const std::uint64_t flows : {1ULL, 65536ULL, 1'000'000ULL, 10'000'000ULL, 50'000'000ULL}) {
      if (flows > options_.max_flows) continue;
      // Five tables at most at a time, and a machine that others use too.
      if (flows * 15 * 5 > available_bytes() / 2) {
        std::cerr << "skipping " << flows << " flows: not enough memory\n";
        continue;
      }
      run_hits(flows);
      run_later_modes(flows);
      run_new(flows);
      run_syn(flows);
      run_designs(flows);
    }
    run_guards();
    run_stages();
    run_threads();
    return write();
  }

 private:
  [[nodiscard]] bool wanted(const std::string& name) const { return std::regex_search(name, filter_); }

  [[nodiscard]] bool any_wanted(const std::vector<std::string>& names) const {
    return std::any_of(names.begin(), names.end(), [&](const std::string& name) { return wanted(name); });
  }

  static std::string name_of(Mode mode, std::uint64_t flows, const char* work, std::uint32_t listeners = 1) {
    const std::string name = fmt::format("{}/flows={}/{}", kModeNames[static_cast<std::size_t>(mode)], flows, work);
    return listeners == 1 ? name : fmt::format("{}/listeners={}", name, listeners);
  }

  static Row row_of(const std::string& name, const std::string& mode, Rig* rig) {
    Row row{.name = name, .mode = mode};
    if (rig != nullptr) row.flows = rig->flows();
    if (rig != nullptr)
      row.bytes_per_flow = static_cast<double>(rig->lines().size_bytes()) / static_cast<double>(rig->flows());
    return row;
  }

  Job floor_job() {
    Job job;
    job.row = row_of("floor", "floor", nullptr);
    job.prepare = [](PacketPool& pool, std::mt19937_64&) {
      pool.prepare(1, [](std::uint32_t i) { return std::pair<std::uint64_t, std::uint8_t>{i, net::kTcpAck}; });
    };
    job.run = [this](Burst& burst) { sink_ = sink_ + yardstick(kernel_).floor(burst); };
    return job;
  }

  static std::function<void(PacketPool&, std::mt19937_64&)> hits_of(Rig& rig) {
    return [&rig](PacketPool& pool, std::mt19937_64& random) {
      pool.prepare(rig.listeners(), [&](std::uint32_t) {
        return std::pair<std::uint64_t, std::uint8_t>{random() % rig.flows(), net::kTcpAck};
      });
    };
  }

  Job limit_job(Rig& rig) {
    Job job;
    job.row = row_of(fmt::format("limit/flows={}", rig.flows()), "limit", &rig);
    job.prepare = hits_of(rig);
    job.run = [this, &rig](Burst& burst) {
      sink_ = sink_ + yardstick(kernel_).limit(burst, rig.lines(), rig.table().hash_keys(), limit_targets_.data());
    };
    return job;
  }

  Job mode_job(Rig& rig, Mode mode, const char* work) {
    Job job;
    job.row = row_of(name_of(mode, rig.flows(), work, rig.listeners()), kModeNames[static_cast<std::size_t>(mode)], &rig);
    job.prepare = hits_of(rig);
    job.run = [&rig, mode](Burst& burst) { rig.pipeline(mode).process(rig.snapshot(mode), burst, rig.now_ns); };
    return job;
  }

  // Lines to look at per burst so that the whole table is seen within ten seconds.
  [[nodiscard]] std::uint32_t sweep_lines(const Rig& rig) const {
    const double bursts = 10 * kAssumedPps / options_.burst;
    return static_cast<std::uint32_t>(static_cast<double>(rig.lines().size()) / bursts) + 1;
  }

  void run_hits(std::uint64_t flows) {
    std::vector<std::unique_ptr<Rig>> rigs;
    std::vector<Job> jobs;
    for (const std::uint32_t listeners : {1U, 1000U, 10000U}) {
      std::vector<std::string> names;
      for (const Mode mode : {Mode::l2dsr, Mode::ipip4, Mode::ipip6}) {
        names.push_back(name_of(mode, flows, "hit", listeners));
        if (listeners == 1) names.insert(names.end(), {name_of(mode, flows, "aging"), name_of(mode, flows, "new1")});
      }
      if (listeners == 1) names.insert(names.end(), {fmt::format("limit/flows={}", flows), "floor"});
      if (!any_wanted(names)) continue;
      progress(fmt::format("filling {} flows, {} listeners", flows, listeners));
      Rig& rig = *rigs.emplace_back(std::make_unique<Rig>(kernel_, flows, listeners, FlowState::assumed));
      report_.pages = rig.pages();
      if (jobs.empty()) {
        jobs.push_back(floor_job());
        jobs.push_back(limit_job(rig));
      }
      for (const Mode mode : {Mode::ipip4, Mode::l2dsr, Mode::ipip6}) {
        add(jobs, mode_job(rig, mode, "hit"));
        if (listeners != 1) continue;
        Job aging = mode_job(rig, mode, "aging");
        aging.run = [&rig, mode, lines = sweep_lines(rig)](Burst& burst) {
          rig.pipeline(mode).process(rig.snapshot(mode), burst, rig.now_ns);
          rig.pipeline(mode).age(rig.snapshot(mode), lines, rig.now_ns);
        };
        add(jobs, std::move(aging));
        Job new1 = mode_job(rig, mode, "new1");
        new1.prepare = [&rig](PacketPool& pool, std::mt19937_64& random) {
          pool.prepare(1, [&](std::uint32_t) {
            return random() % 100 == 0 ? std::pair<std::uint64_t, std::uint8_t>{rig.next_flow++, net::kTcpSyn}
                                       : std::pair<std::uint64_t, std::uint8_t>{random() % rig.flows(), net::kTcpAck};
          });
        };
        add(jobs, std::move(new1));
      }
    }
    measure(jobs, flows);
  }

  // Modes whose headers are written out of line.
  void run_later_modes(std::uint64_t flows) {
    constexpr std::array<Mode, 3> kLater = {Mode::gue4, Mode::gre4, Mode::nat4};
    std::vector<std::string> names;
    for (const Mode mode : kLater) names.push_back(name_of(mode, flows, "hit"));
    if (!any_wanted(names)) return;
    progress(fmt::format("filling {} flows for gue, gre and nat", flows));
    Rig rig(kernel_, flows, 1, FlowState::assumed);
    std::vector<Job> jobs;
    jobs.push_back(floor_job());
    jobs.push_back(limit_job(rig));
    for (const Mode mode : kLater) add(jobs, mode_job(rig, mode, "hit"));
    measure(jobs, flows);
  }

  // The table's design beside two others (designs.h): look-ups of flows that are there, of flows that are not, and as many
  // flows entered as taken out.
  void run_designs(std::uint64_t flows) {
    if (flows < 65536) return;
    constexpr std::array<const char*, 3> kWork = {"hit", "miss", "exchange"};
    std::vector<std::string> names;
    for (const char* design : kDesignNames) {
      for (const char* work : kWork) names.push_back(fmt::format("design/{}/flows={}/{}", design, flows, work));
    }
    if (!any_wanted(names)) return;
    std::vector<std::unique_ptr<DesignRig>> rigs;
    for (std::size_t d = 0; d < kDesignNames.size(); ++d) {
      progress(fmt::format("filling {} flows of design {}", flows, kDesignNames[d]));
      rigs.push_back(std::make_unique<DesignRig>(kernel_, static_cast<Design>(d), flows));
      progress("");
      std::cout << rigs.back()->distribution() << std::endl;
    }
    Rig limit(kernel_, flows, 1, FlowState::assumed);
    std::vector<Job> jobs;
    jobs.push_back(floor_job());
    jobs.push_back(limit_job(limit));
    for (std::size_t w = 0; w < kWork.size(); ++w) {
      for (std::size_t d = 0; d < rigs.size(); ++d) {
        Job job;
        job.row = row_of(names[d * kWork.size() + w], "design", nullptr);
        job.row.flows = flows;
        job.row.bytes_per_flow = rigs[d]->bytes_per_flow();
        job.prepare = [](PacketPool&, std::mt19937_64&) {};
        job.timed = [&rig = *rigs[d], w](Burst& burst) {
          return w == 0 ? rig.hit(burst.count) : w == 1 ? rig.miss(burst.count) : rig.exchange(burst.count);
        };
        add(jobs, std::move(job));
      }
    }
    measure(jobs, flows);
  }

  // Two workers on two cores, each with its own table, pipeline and packets: what one costs alone, and beside the other.
  void run_threads() {
    constexpr std::uint64_t kFlows = 1'000'000;
    const std::array<std::string, 2> names = {name_of(Mode::ipip4, kFlows, "hit") + "/threads=1",
                                              name_of(Mode::ipip4, kFlows, "hit") + "/threads=2"};
    if (!any_wanted({names.begin(), names.end()}) || options_.max_flows < kFlows) return;
    if (std::thread::hardware_concurrency() < 2) {
      std::cerr << "skipping threads: one core\n";
      return;
    }
    progress("filling 1000000 flows for each of two workers");
    const auto [alone, together] = time_two_workers(kernel_, kFlows, options_.burst, options_.passes);
    progress("");
    for (std::size_t t = 0; t < 2; ++t) {
      Row row{.name = names[t], .mode = "ipip4", .flows = kFlows};
      const std::vector<double>& passes = t == 0 ? alone : together;
      row.cycles_median = median(passes);
      row.cycles_min = *std::min_element(passes.begin(), passes.end());
      report_.rows.push_back(row);
      std::cout << to_text(row, report_.tsc_hz) << std::endl;
    }
    std::cout << fmt::format("# two workers on two cores forward {:.2f} times what one does\n",
                             median(alone) / median(together));
  }

  // A table in which as many flows come as go: each burst brings 64 new ones, while the sweep takes out those that have
  // lived their time; virtual time runs so that the table stays at `flows`.
  void run_new(std::uint64_t flows) {
    std::vector<std::string> names;
    for (const Mode mode : {Mode::l2dsr, Mode::ipip4, Mode::ipip6}) names.push_back(name_of(mode, flows, "new100"));
    if (flows < kBurst || !any_wanted(names)) return;
    progress(fmt::format("filling {} flows that come and go", flows));
    Rig rig(kernel_, flows, 1, FlowState::fresh);
    const double lifetime_ns = static_cast<double>(kFreshTimeoutTicks) * static_cast<double>(kTickNs);
    const auto step_ns = static_cast<std::uint64_t>(lifetime_ns * options_.burst / static_cast<double>(flows));
    // Around in 10 s, a third of a lifetime.
    const auto lines = static_cast<std::uint32_t>(static_cast<double>(rig.lines().size()) * 3 * options_.burst /
                                                  static_cast<double>(flows)) +
                       1;
    std::vector<Job> jobs;
    jobs.push_back(floor_job());
    jobs.push_back(limit_job(rig));
    for (const Mode mode : {Mode::ipip4, Mode::l2dsr, Mode::ipip6}) {
      Job job = mode_job(rig, mode, "new100");
      job.prepare = [&rig](PacketPool& pool, std::mt19937_64&) {
        pool.prepare(1, [&](std::uint32_t) {
          return std::pair<std::uint64_t, std::uint8_t>{rig.next_flow++, net::kTcpSyn};
        });
      };
      job.run = [&rig, mode, lines, step_ns](Burst& burst) {
        rig.now_ns += step_ns;
        rig.pipeline(mode).process(rig.snapshot(mode), burst, rig.now_ns);
        rig.pipeline(mode).age(rig.snapshot(mode), lines, rig.now_ns);
      };
      add(jobs, std::move(job));
    }
    measure(jobs, flows);
  }

  void run_syn(std::uint64_t flows) {
    std::vector<std::string> names;
    for (const Mode mode : {Mode::l2dsr, Mode::ipip4, Mode::ipip6}) names.push_back(name_of(mode, flows, "syn"));
    if (!any_wanted(names)) return;
    progress(fmt::format("filling {} flows to be flooded", flows));
    Rig rig(kernel_, flows, 1, FlowState::assumed);
    std::vector<Job> jobs;
    jobs.push_back(floor_job());
    jobs.push_back(limit_job(rig));
    for (const Mode mode : {Mode::ipip4, Mode::l2dsr, Mode::ipip6}) {
      Job job = mode_job(rig, mode, "syn");
      job.prepare = [&rig](PacketPool& pool, std::mt19937_64&) {
        pool.prepare(1, [&](std::uint32_t) {
          return std::pair<std::uint64_t, std::uint8_t>{rig.next_flow++, net::kTcpSyn};
        });
      };
      add(jobs, std::move(job));
    }
    // The flood has gone on for a while: what is free has been taken.
    if (jobs.size() > 2) {
      Burst burst;
      std::mt19937_64 random(3);
      for (std::uint64_t n = 0; n < rig.table().capacity() - rig.table().flows(); n += PacketPool::kBuffers) {
        jobs.back().prepare(pool_, random);
        for (std::uint32_t b = 0; b < PacketPool::kBuffers / options_.burst; ++b) {
          pool_.fill(burst, b, options_.burst);
          jobs.back().run(burst);
        }
      }
    }
    measure(jobs, flows);
  }

  // What guards cost, each beside the same listener without any: the later packets of flows, and the first ones.
  void run_guards() {
    constexpr std::uint64_t kFlows = 1'000'000;
    const auto name = [](std::size_t g, bool fresh) {
      return fmt::format("guard/{}/{}", kGuardNames[g], fresh ? "new" : "hit");
    };
    std::vector<std::string> names;
    for (std::size_t g = 0; g < 2 * kGuardNames.size(); ++g) names.push_back(name(g / 2, g % 2 != 0));
    if (!any_wanted(names) || options_.max_flows < kFlows) return;
    progress("filling 1000000 flows for each guard");
    Rig limit(kernel_, kFlows, 1, FlowState::assumed);
    std::vector<std::unique_ptr<GuardRig>> rigs;
    for (std::size_t g = 0; g < kGuardNames.size(); ++g)
      rigs.push_back(std::make_unique<GuardRig>(kernel_, static_cast<Guard>(g), kFlows));
    std::vector<Job> jobs;
    jobs.push_back(floor_job());
    jobs.push_back(limit_job(limit));
    for (std::size_t g = 0; g < 2 * rigs.size(); ++g) {
      GuardRig& rig = *rigs[g / 2];
      const bool fresh = g % 2 != 0;
      Job job;
      job.row = row_of(names[g], "guard", nullptr);
      job.row.flows = kFlows;
      job.prepare = [&rig, fresh](PacketPool& pool, std::mt19937_64& random) {
        if (fresh) return rig.prepare_new(pool);
        rig.prepare_hits(pool, random);
      };
      job.run = [&rig, fresh](Burst& burst) { fresh ? rig.process_new(burst) : rig.process(burst); };
      add(jobs, std::move(job));
    }
    measure(jobs, kFlows);
  }

  // One stage of the path at a time: hits of 1 M flows in ipip4; `pick` on new flows.
  void run_stages() {
    const std::vector<std::pair<const char*, std::vector<Stage>>> stages = {{"parse", {Stage::parse}},
                                                                            {"vip", {Stage::vip}},
                                                                            {"flow", {Stage::flow, Stage::decide}},
                                                                            {"pick", {Stage::pick}},
                                                                            {"rewrite", {Stage::rewrite}}};
    std::vector<std::string> names;
    for (const auto& [name, parts] : stages) names.push_back(fmt::format("stage/{}", name));
    if (!any_wanted(names)) return;
    progress("filling 1000000 flows for the stages");
    Rig rig(kernel_, 1'000'000, 1, FlowState::assumed);
    std::vector<Job> jobs;
    jobs.push_back(floor_job());
    jobs.push_back(limit_job(rig));
    for (const auto& [name, parts] : stages) {
      Job job;
      job.row = row_of(fmt::format("stage/{}", name), "stage", &rig);
      const bool fresh = parts[0] == Stage::pick;
      job.prepare = hits_of(rig);
      if (fresh) {
        job.prepare = [&rig](PacketPool& pool, std::mt19937_64&) {
          pool.prepare(1, [&](std::uint32_t) {
            return std::pair<std::uint64_t, std::uint8_t>{rig.next_flow++, net::kTcpSyn};
          });
        };
      }
      job.timed = [this, &rig, parts = parts](Burst& burst) { return time_stages(rig, burst, parts); };
      add(jobs, std::move(job));
    }
    measure(jobs, 1'000'000);
  }

  std::uint64_t time_stages(Rig& rig, Burst& burst, const std::vector<Stage>& parts) {
    Work& work = rig.pipeline(Mode::ipip4).work();
    work.snapshot = &rig.snapshot(Mode::ipip4);
    work.burst = &burst;
    work.now_ns = rig.now_ns;
    work.tick = rig.now_ns / kTickNs & 0xffff;
    kernel_.begin(work);
    std::uint64_t cycles = 0;
    for (std::uint32_t s = 0; s < kStageCount; ++s) {
      const std::uint64_t start = __rdtsc();
      kernel_.stages[s](work);
      if (std::find(parts.begin(), parts.end(), static_cast<Stage>(s)) != parts.end()) cycles += __rdtsc() - start;
    }
    return cycles;
  }

  void add(std::vector<Job>& jobs, Job job) {
    if (wanted(job.row.name)) jobs.push_back(std::move(job));
  }

  void measure(std::vector<Job>& jobs, std::uint64_t flows) {
    Burst burst;
    std::mt19937_64 random(flows);
    for (std::uint32_t pass = 0; pass < options_.passes + 1; ++pass) {
      progress(fmt::format("{} flows, pass {}/{}", flows, pass, options_.passes));
      for (Job& job : jobs) {
        job.prepare(pool_, random);
        std::vector<double> bursts;
        for (std::uint32_t b = 0; b < PacketPool::kBuffers / options_.burst; ++b) {
          pool_.fill(burst, b, options_.burst);
          const std::uint64_t start = __rdtsc();
          std::uint64_t cycles = 0;
          if (job.timed) {
            cycles = job.timed(burst);
          } else {
            job.run(burst);
            cycles = __rdtsc() - start;
          }
          bursts.push_back(static_cast<double>(cycles) / options_.burst);
        }
        if (pass > 0) job.medians.push_back(median(std::move(bursts)));  // the first pass warms up
      }
    }
    for (Job& job : jobs) {
      job.row.cycles_median = median(job.medians);
      job.row.cycles_min = *std::min_element(job.medians.begin(), job.medians.end());
    }
    for (Job& job : jobs) finish(job, jobs);
  }

  void finish(Job& job, const std::vector<Job>& jobs) {
    job.row.ratio_to_floor = job.row.cycles_median / jobs[0].row.cycles_median;
    job.row.ratio_to_limit = job.row.mode == "floor" ? 0 : job.row.cycles_median / jobs[1].row.cycles_median;
    // Floor and limit are measured with every group of rows; the first of each stands in the report.
    for (const Row& row : report_.rows) {
      if (row.name == job.row.name) return;
    }
    if (!wanted(job.row.name)) return;
    report_.rows.push_back(job.row);
    progress("");
    std::cout << to_text(job.row, report_.tsc_hz) << std::endl;
  }

  void progress(const std::string& text) const {
    if (isatty(STDERR_FILENO) == 0) return;
    std::cerr << "\r\033[K" << text << std::flush;
  }

  int write() const {
    if (!options_.json.empty() && !(std::ofstream(options_.json) << to_json(report_))) return failed(options_.json);
    if (!options_.plot.empty() && !(std::ofstream(options_.plot) << to_svg(report_, read_rows(options_.baseline))))
      return failed(options_.plot);
    return 0;
  }

  static int failed(const std::string& path) {
    std::cerr << "cannot write " << path << "\n";
    return 1;
  }

  Options options_;
  const Kernel& kernel_;
  std::regex filter_;
  Report report_;
  PacketPool pool_;
  std::array<LimitTarget, kTargets> limit_targets_{};
  volatile std::uint64_t sink_ = 0;
};

void pin_to_this_core() {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(std::max(sched_getcpu(), 0)), &set);
  sched_setaffinity(0, sizeof set, &set);
}

int main_of(int argc, char** argv) {
  Options options;
  CLI::App app{"lb-bench: cycles per packet of the packet path, beside a floor and a limit measured in the same run"};
  app.add_option("--json", options.json, "write the rows to FILE")->option_text("FILE");
  app.add_option("--plot", options.plot, "write cycles against flows to FILE, as SVG")->option_text("FILE");
  app.add_option("--baseline", options.baseline, "rows drawn dashed in the plot")->option_text("FILE");
  app.add_option("--filter", options.filter, "measure the rows whose name matches REGEX")->option_text("REGEX");
  app.add_option("--burst", options.burst, "packets per burst")->check(CLI::IsMember({16, 32, 64}));
  app.add_option("--passes", options.passes, "passes over the packet pool per row")->check(CLI::Range(1, 1000));
  app.add_option("--max-flows", options.max_flows, "leave out larger tables");
  app.add_flag("--instructions", options.instructions,
               "count instructions per packet under callgrind and compare with the baseline");
  app.add_flag("--accept", options.accept, "with --instructions: make these counts the baseline");
  app.add_option("--instruction-row", options.instruction_row)->group("");
  CLI11_PARSE(app, argc, argv);
  const auto& kernel = chosen_kernel();
  if (!kernel) {
    std::cerr << kernel.error() << "\n";
    return 2;
  }
  if (!options.instruction_row.empty()) return run_instruction_row(**kernel, options.instruction_row);
  if (options.instructions) return compare_instructions(argv[0], LB_BENCH_INSTRUCTIONS, options.accept);
  pin_to_this_core();
  return Bench(options, **kernel).run();
}

}  // namespace
}  // namespace lb::bench

int main(int argc, char** argv) {
  try {
    return lb::bench::main_of(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "lb-bench: " << error.what() << "\n";
    return 1;
  }
}
