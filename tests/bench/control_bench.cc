// How long the control plane takes, as rows of `./run bench --control`: lb-control-bench [--json FILE].
// Times are wall time of one process and vary with what else the machine does; nothing is asserted here.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "cp/config/load.h"
#include "cp/snapshot/compile.h"
#include "cp/snapshot/maglev.h"
#include "dp/lb/snapshot.h"

namespace {

using namespace lb;
using namespace lb::cp;

struct Row {
  std::string name;
  double value;  // median, ms
  double p99;
  double goal;  // ms
};

template <typename Body>
Row measure(const char* name, double goal_ms, int runs, Body body) {
  std::vector<double> times;
  for (int i = 0; i < runs; ++i) {
    const auto start = std::chrono::steady_clock::now();
    body(i);
    times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());
  return {name, times[times.size() / 2], times[times.size() * 99 / 100], goal_ms};
}

std::string make_text(int groups, int targets) {
  std::string text = "version: 1\nvips: [{name: web, address: 192.0.2.10}]\nlisteners:\n";
  for (int g = 0; g < groups; ++g) {
    const std::string n = std::to_string(g);
    text += "  - {name: l" + n + ", vip: web, protocol: TCP, port: " + std::to_string(1000 + g) +
            ", target_groups: [{name: g" + n + "}]}\n";
  }
  text += "target_groups:\n";
  for (int g = 0; g < groups; ++g) {
    text += "  - name: g" + std::to_string(g) + "\n    protocol: TCP\n    targets:\n";
    for (int t = 0; t < targets; ++t) {
      text += "      - {address: 10." + std::to_string(g / 250) + "." + std::to_string(g % 250) + "." +
              std::to_string(t + 1) + ", weight: 1}\n";
    }
  }
  return text;
}

SnapshotInput make_input(const Config& config) {
  SnapshotInput input;
  input.generation = {1, 1};
  input.fleet_seed = config.seed;
  input.vips = config.vips;
  for (const Listener& listener : config.listeners) {
    input.listeners.push_back({listener, false, static_cast<std::uint32_t>(input.listeners.size())});
  }
  std::uint32_t id = 0;
  for (const TargetGroup& group : config.groups) {
    GroupInput& added = input.groups.emplace_back(GroupInput{group, false, {}});
    for (const Target& target : group.targets) {
      TargetInput& one = added.targets.emplace_back();
      one.key = {group.name, target.address, target.port};
      one.id = id++;
      one.weight = target.weight;
      one.next_hop = {true, "lb0", {2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}, {}, 1500, 0};
    }
  }
  return input;
}

// What lb-dp's main thread does with a generation; segments it holds are verified already.
void verify(const CompiledSnapshot& compiled, std::map<std::uint64_t, SegmentBytes>& held) {
  for (const auto& memory : compiled.segments) held.try_emplace(memory->id(), SegmentBytes{memory->bytes(), memory});
  const auto opened =
      Snapshot::open(SegmentBytes{compiled.root->bytes(), compiled.root}, [&](std::uint64_t id) { return &held.at(id); });
  if (!opened) std::fprintf(stderr, "refused: %s\n", opened.error().text.c_str());
}

std::vector<Row> run() {
  std::vector<Row> rows;
  const std::string text = make_text(1000, 100);
  SnapshotInput input;
  rows.push_back(measure("apply-1000x100: load", 1000, 3, [&](int) {
    const LoadResult loaded = load(text, "bench.yaml");
    if (loaded.config) input = make_input(*loaded.config);
  }));
  rows.push_back(measure("apply-1000x100: compile and seal", 1000, 3, [&](int) {
    Compiler fresh;
    if (!fresh.compile(input)) std::abort();
  }));
  Compiler compiler;
  std::map<std::uint64_t, SegmentBytes> held;
  verify(*compiler.compile(input), held);
  std::uint32_t built = 0;
  CompiledSnapshot compiled;
  rows.push_back(measure("change-1-of-100000: compile and seal", 50, 50, [&](int i) {
    ++input.generation.n;
    input.groups[static_cast<std::size_t>(i)].targets[7].weight = 2;
    compiled = *compiler.compile(input);
    built += compiled.tables_built;
  }));
  if (built != 50) std::fprintf(stderr, "50 changes built %u tables\n", built);
  rows.push_back(measure("change-1-of-100000: verify", 50, 50, [&](int i) {
    ++input.generation.n;
    input.groups[static_cast<std::size_t>(i)].targets[8].weight = 2;
    compiled = *compiler.compile(input);
    verify(compiled, held);
  }));
  std::vector<MaglevTarget> targets(1000);
  for (std::size_t i = 0; i < targets.size(); ++i)
    targets[i] = {i * 0x9e3779b97f4a7c15U, static_cast<std::uint32_t>(i % 100 + 1)};
  std::sort(targets.begin(), targets.end());
  std::vector<std::uint16_t> slots(65537);
  rows.push_back(
      measure("maglev-65537x1000", 2, 50, [&](int i) { build_maglev(targets, static_cast<std::uint64_t>(i), slots); }));
  return rows;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 1 && (argc != 3 || std::strcmp(argv[1], "--json") != 0)) {
    std::fprintf(stderr, "usage: lb-control-bench [--json FILE]\n");
    return 1;
  }
  const std::vector<Row> rows = run();
  for (const Row& row : rows)
    std::printf("%-40s %9.2f ms  p99 %9.2f ms  goal %6.0f ms\n", row.name.c_str(), row.value, row.p99, row.goal);
  if (argc == 1) return 0;
  std::ofstream out(argv[2]);
  out << "{\"rows\":[";
  for (std::size_t i = 0; i < rows.size(); ++i) {
    out << (i == 0 ? "" : ",") << "{\"name\":\"" << rows[i].name << "\",\"value\":" << rows[i].value
        << ",\"p99\":" << rows[i].p99 << ",\"unit\":\"ms\",\"goal\":" << rows[i].goal
        << ",\"met\":" << (rows[i].value <= rows[i].goal ? "true" : "false") << "}";
  }
  out << "]}\n";
  return out ? 0 : 1;
}
