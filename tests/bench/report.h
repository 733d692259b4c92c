// The bench's results: what is measured, and how it is written down.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lb::bench {

struct Row {
  std::string name;  // "ipip4/flows=1000000/hit"
  std::string mode;  // "ipip4", "limit", "floor", "stage"
  std::uint64_t flows = 0;
  double cycles_median = 0;  // TSC cycles per packet: median over bursts of a pass, median over passes
  double cycles_min = 0;     // … smallest over passes
  double ratio_to_floor = 0;
  double ratio_to_limit = 0;  // limit of the same flows and the same passes; 0 where there is none
  double bytes_per_flow = 0;  // of the flow table
};

struct Report {
  double tsc_hz = 0;
  std::string cpu;
  std::string build;  // v2, v3, v4
  std::string pages;
  std::uint32_t burst = 0;
  std::vector<Row> rows;
};

[[nodiscard]] std::string to_json(const Report& report);
// Cycles against flows, with floor, limit and, dashed, the rows of `baseline` (may be empty).
[[nodiscard]] std::string to_svg(const Report& report, const std::vector<Row>& baseline);
[[nodiscard]] std::string to_text(const Row& row, double tsc_hz);
// Rows of a file written by to_json(); empty if there is none.
[[nodiscard]] std::vector<Row> read_rows(const std::string& path);

}  // namespace lb::bench
