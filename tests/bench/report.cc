#include "tests/bench/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

namespace lb::bench {
namespace {

double mpps(const Row& row, double tsc_hz) {
  return row.cycles_median > 0 ? tsc_hz / row.cycles_median / 1e6 : 0;
}

double rounded(double value) {
  return std::round(value * 100) / 100;
}

// One line of the plot: a mode's hits, or the limit.
std::map<std::string, std::vector<std::pair<double, double>>> curves(const std::vector<Row>& rows) {
  std::map<std::string, std::vector<std::pair<double, double>>> out;
  for (const Row& row : rows) {
    const bool hit = row.name == fmt::format("{}/flows={}/hit", row.mode, row.flows);
    if (row.flows > 0 && (hit || row.mode == "limit"))
      out[row.mode].emplace_back(static_cast<double>(row.flows), row.cycles_median);
  }
  for (auto& [mode, points] : out) std::sort(points.begin(), points.end());
  return out;
}

constexpr double kWidth = 760;
constexpr double kHeight = 420;
constexpr double kLeft = 60;
constexpr double kTop = 20;
constexpr double kPlotWidth = 560;
constexpr double kPlotHeight = 340;

struct Scale {
  double most = 1;  // cycles
  [[nodiscard]] double x(double flows) const { return kLeft + kPlotWidth * std::log10(std::max(flows, 1.0)) / 8; }
  [[nodiscard]] double y(double cycles) const { return kTop + kPlotHeight * (1 - cycles / most); }
};

std::string polyline(const std::vector<std::pair<double, double>>& points, const Scale& scale, const char* colour,
                     bool dashed) {
  std::string path;
  for (const auto& [flows, cycles] : points) path += fmt::format("{:.1f},{:.1f} ", scale.x(flows), scale.y(cycles));
  return fmt::format("<polyline fill='none' stroke='{}' stroke-width='2'{} points='{}'/>\n", colour,
                     dashed ? " stroke-dasharray='5,4' opacity='0.5'" : "", path);
}

}  // namespace

std::string to_json(const Report& report) {
  nlohmann::ordered_json out = {{"schema", 1},           {"tsc_hz", std::llround(report.tsc_hz)},
                                {"cpu", report.cpu},     {"build", report.build},
                                {"pages", report.pages}, {"burst", report.burst}};
  out["rows"] = nlohmann::ordered_json::array();
  for (const Row& row : report.rows) {
    out["rows"].push_back({{"name", row.name},
                           {"mode", row.mode},
                           {"flows", row.flows},
                           {"cycles_median", rounded(row.cycles_median)},
                           {"cycles_min", rounded(row.cycles_min)},
                           {"mpps", rounded(mpps(row, report.tsc_hz))},
                           {"ratio_to_floor", rounded(row.ratio_to_floor)},
                           {"ratio_to_limit", rounded(row.ratio_to_limit)},
                           {"bytes_per_flow", rounded(row.bytes_per_flow)}});
  }
  return out.dump(1) + "\n";
}

std::string to_text(const Row& row, double tsc_hz) {
  return fmt::format("{:<44} {:>8.1f} {:>8.1f} {:>8.1f} {:>7.2f} {:>7.2f} {:>7.1f}", row.name, row.cycles_median,
                     row.cycles_min, mpps(row, tsc_hz), row.ratio_to_floor, row.ratio_to_limit, row.bytes_per_flow);
}

std::vector<Row> read_rows(const std::string& path) {
  std::ifstream file(path);
  if (!file) return {};
  std::vector<Row> rows;
  const auto json = nlohmann::json::parse(file, nullptr, false);
  if (json.is_discarded() || !json.contains("rows")) return {};
  for (const auto& row : json["rows"]) {
    rows.push_back({.name = row.value("name", ""),
                    .mode = row.value("mode", ""),
                    .flows = row.value("flows", std::uint64_t{0}),
                    .cycles_median = row.value("cycles_median", 0.0)});
  }
  return rows;
}

std::string to_svg(const Report& report, const std::vector<Row>& baseline) {
  const auto now = curves(report.rows);
  const auto before = curves(baseline);
  Scale scale;
  for (const auto& all : {now, before}) {
    for (const auto& [mode, points] : all) {
      for (const auto& point : points) scale.most = std::max(scale.most, point.second * 1.1);
    }
  }
  std::string svg = fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {} {}' font-family='sans-serif' font-size='12'>\n"
      "<rect width='100%' height='100%' fill='white'/>\n",
      kWidth, kHeight);
  const double step = scale.most > 200 ? 50 : scale.most > 80 ? 20 : 10;
  for (double cycles = 0; cycles < scale.most; cycles += step) {
    svg += fmt::format(
        "<line x1='{0}' x2='{1}' y1='{2:.1f}' y2='{2:.1f}' stroke='#ddd'/><text x='{3}' y='{4:.1f}' "
        "text-anchor='end'>{5}</text>\n",
        kLeft, kLeft + kPlotWidth, scale.y(cycles), kLeft - 6, scale.y(cycles) + 4, cycles);
  }
  for (int decade = 0; decade <= 8; ++decade) {
    svg += fmt::format("<text x='{:.1f}' y='{}' text-anchor='middle'>1e{}</text>\n", scale.x(std::pow(10, decade)),
                       kTop + kPlotHeight + 18, decade);
  }
  svg += fmt::format(
      "<text x='{}' y='{}' text-anchor='middle'>flows (cycles per packet, median; dashed: committed baseline)</text>\n",
      kLeft + kPlotWidth / 2, kTop + kPlotHeight + 40);
  const std::map<std::string, const char*> colours = {
      {"l2dsr", "#2a9d8f"}, {"ipip4", "#1d3557"}, {"ipip6", "#e76f51"}, {"limit", "#888"}};
  double legend = kTop + 20;
  for (const auto& [mode, colour] : colours) {
    if (const auto old = before.find(mode); old != before.end()) svg += polyline(old->second, scale, colour, true);
    if (const auto points = now.find(mode); points != now.end()) svg += polyline(points->second, scale, colour, false);
    svg += fmt::format("<text x='{}' y='{}' fill='{}'>{}</text>\n", kLeft + kPlotWidth + 20, legend, colour, mode);
    legend += 18;
  }
  for (const Row& row : report.rows) {
    if (row.name != "floor") continue;
    svg += fmt::format(
        "<line x1='{0}' x2='{1}' y1='{2:.1f}' y2='{2:.1f}' stroke='black' stroke-dasharray='2,3'/><text x='{3}' "
        "y='{2:.1f}'>floor</text>\n",
        kLeft, kLeft + kPlotWidth, scale.y(row.cycles_median), kLeft + kPlotWidth + 20);
  }
  return svg + "</svg>\n";
}

}  // namespace lb::bench
