#include "tests/bench/instructions.h"

#include <fmt/format.h>
#include <unistd.h>
#include <valgrind/callgrind.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>

#include "tests/bench/rig.h"

namespace lb::bench {
namespace {

constexpr std::uint64_t kFlows = 20'000;
constexpr std::uint32_t kBursts = 100;
constexpr double kAllowed = 1.02;

struct MainRow {
  const char* name;
  Mode mode;
  bool fresh;  // every packet brings a new flow
};

constexpr std::array<MainRow, 5> kRows = {{{"l2dsr/hit", Mode::l2dsr, false},
                                           {"ipip4/hit", Mode::ipip4, false},
                                           {"ipip6/hit", Mode::ipip6, false},
                                           {"ipip4/new100", Mode::ipip4, true},
                                           {"ipip6/new100", Mode::ipip6, true}}};

std::optional<double> count_under_valgrind(const std::string& self, const std::string& row) {
  const std::string out = fmt::format("/tmp/lb-bench-callgrind.{}", getpid());
  const std::string command = fmt::format(
      "LB_MARCH=v3 valgrind --tool=callgrind --collect-atstart=no --callgrind-out-file={} {} --instruction-row {} "
      ">/dev/null 2>{}.err",
      out, self, row, out);
  const bool ran = std::system(command.c_str()) == 0;
  std::optional<double> total;
  std::ifstream file(out);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("totals: ")) total = std::stod(line.substr(8));
  }
  std::remove(out.c_str());
  if (ran && total) std::remove((out + ".err").c_str());
  return ran && total ? std::optional(*total / (kBursts * kBurst)) : std::nullopt;
}

}  // namespace

int run_instruction_row(const Kernel& kernel, const std::string& name) {
  for (const MainRow& row : kRows) {
    if (name != row.name) continue;
    Rig rig(kernel, kFlows, 1, FlowState::assumed);
    PacketPool pool;
    std::mt19937_64 random(1);
    pool.prepare(1, [&](std::uint32_t) {
      return row.fresh ? std::pair<std::uint64_t, std::uint8_t>{rig.next_flow++, net::kTcpSyn}
                       : std::pair<std::uint64_t, std::uint8_t>{random() % kFlows, net::kTcpAck};
    });
    Burst burst;
    for (std::uint32_t b = 0; b < kBursts; ++b) {
      pool.fill(burst, b, kBurst);
      CALLGRIND_TOGGLE_COLLECT;
      rig.pipeline(row.mode).process(rig.snapshot(row.mode), burst, rig.now_ns);
      CALLGRIND_TOGGLE_COLLECT;
    }
    return 0;
  }
  std::cerr << "no such row: " << name << "\n";
  return 2;
}

int compare_instructions(const std::string& self, const std::string& path, bool accept) {
  nlohmann::ordered_json counted;
  nlohmann::json baseline;
  if (std::ifstream file(path); file) baseline = nlohmann::json::parse(file, nullptr, false);
  bool worse = false;
  for (const MainRow& row : kRows) {
    const auto count = count_under_valgrind(self, row.name);
    if (!count) {
      std::cerr << row.name << ": valgrind failed, see /tmp/lb-bench-callgrind.*.err\n";
      return 1;
    }
    counted[row.name] = static_cast<double>(static_cast<std::int64_t>(*count * 100)) / 100;
    const double was = baseline.is_object() ? baseline.value(row.name, 0.0) : 0.0;
    const bool above = *count > was * kAllowed;
    worse = worse || above;
    std::cout << fmt::format("{:<16} {:>8.2f} instructions per packet, baseline {:>8.2f} {}\n", row.name, *count, was,
                             above ? "ABOVE +2 %" : "");
  }
  if (accept) {
    if (!(std::ofstream(path) << counted.dump(1) << "\n")) return 1;
    std::cout << "baseline written to " << path << "\n";
    return 0;
  }
  if (worse) std::cout << "If the rise is worth it: lb-bench --instructions --accept, commit " << path << " and say why.\n";
  return worse ? 1 : 0;
}

}  // namespace lb::bench
