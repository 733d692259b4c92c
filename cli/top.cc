// `top`: rates from two looks at the counters, busiest first.
#include <algorithm>
#include <array>
#include <cstdio>
#include <map>

#include "cli/session.h"
#include "cli/table.h"
#include "proto/api.pb.h"

namespace lb::cli {

namespace {

constexpr std::size_t kUsualRows = 10;

using Steady = std::chrono::steady_clock;

struct Look {
  Steady::time_point at;
  api::ListenerList listeners;
  api::TargetList targets;
  api::WorkerList workers;
};

// Counters may begin anew with another lb-dp: never below 0.
double rate(std::uint64_t now, std::uint64_t before, double seconds) {
  return now <= before || seconds <= 0 ? 0 : static_cast<double>(now - before) / seconds;
}

std::string number(double value, const ViewOptions& options) {
  const auto rounded = static_cast<std::uint64_t>(value + 0.5);
  return options.wide ? std::to_string(rounded) : compact_number(rounded);
}

struct Ranked {
  double key = 0;
  std::vector<Cell> cells;
};

std::string ranked_table(std::vector<Column> columns, std::vector<Ranked> rows, std::size_t most,
                         const ViewOptions& options) {
  std::ranges::stable_sort(rows, [](const Ranked& a, const Ranked& b) { return a.key > b.key; });
  Table table(std::move(columns));
  for (std::size_t i = 0; i < std::min(rows.size(), most); ++i) table.add(std::move(rows[i].cells));
  std::string out = table.render(options.wide ? kUnlimited : kTableColumns, options.colours);
  if (rows.size() > most) out += "… and " + std::to_string(rows.size() - most) + " more (-n)\n";
  return out;
}

// One document for people and machines: rates of everything, unsorted for machines.
nlohmann::ordered_json rates(const Look& before, const Look& now, double seconds) {
  std::map<std::string, const api::ListenerRow*> listeners;
  for (const api::ListenerRow& row : before.listeners.listeners()) listeners[row.name()] = &row;
  std::map<std::string, const api::TargetRow*> targets;
  for (const api::TargetRow& row : before.targets.targets()) targets[row.target_group() + " " + row.address()] = &row;
  std::map<std::uint32_t, const api::WorkerRow*> workers;
  for (const api::WorkerRow& row : before.workers.workers()) workers[row.worker()] = &row;

  nlohmann::ordered_json document = {{"seconds", seconds},
                                     {"listeners", nlohmann::ordered_json::array()},
                                     {"targets", nlohmann::ordered_json::array()},
                                     {"workers", nlohmann::ordered_json::array()}};
  for (const api::ListenerRow& row : now.listeners.listeners()) {
    const auto was = listeners.find(row.name());
    if (was == listeners.end()) continue;
    document["listeners"].push_back(
        {{"name", row.name()},
         {"packets_per_second", rate(row.packets(), was->second->packets(), seconds)},
         {"bytes_per_second", rate(row.bytes(), was->second->bytes(), seconds)},
         {"new_flows_per_second", rate(row.new_flows(), was->second->new_flows(), seconds)},
         {"dropped_per_second", rate(row.dropped_packets(), was->second->dropped_packets(), seconds)}});
  }
  for (const api::TargetRow& row : now.targets.targets()) {
    const auto was = targets.find(row.target_group() + " " + row.address());
    const auto flows_before = was == targets.end() ? row.flows() : was->second->flows();
    document["targets"].push_back(
        {{"target_group", row.target_group()},
         {"address", row.address()},
         {"state", row.state()},
         {"flows", row.flows()},
         {"flows_change_per_second", (static_cast<double>(row.flows()) - static_cast<double>(flows_before)) / seconds}});
  }
  for (const api::WorkerRow& row : now.workers.workers()) {
    const auto was = workers.find(row.worker());
    if (was == workers.end()) continue;
    document["workers"].push_back(
        {{"worker", row.worker()},
         {"rx_per_second", rate(row.rx_packets(), was->second->rx_packets(), seconds)},
         {"forwarded_per_second", rate(row.forwarded_packets(), was->second->forwarded_packets(), seconds)},
         {"punted_per_second", rate(row.punted_packets(), was->second->punted_packets(), seconds)},
         {"dropped_per_second", rate(row.dropped_packets(), was->second->dropped_packets(), seconds)},
         {"flows", row.flows()},
         {"busy", row.busy()}});
  }
  return document;
}

std::string top_text(const nlohmann::ordered_json& document, std::size_t most, const ViewOptions& options) {
  const auto of = [&](const nlohmann::ordered_json& row, const char* key) {
    return number(row[key].get<double>(), options);
  };
  std::vector<Ranked> listeners;
  for (const auto& row : document["listeners"]) {
    listeners.push_back({row["packets_per_second"],
                         {row["name"].get<std::string>(), of(row, "packets_per_second"),
                          number(8 * row["bytes_per_second"].get<double>(), options), of(row, "new_flows_per_second"),
                          of(row, "dropped_per_second")}});
  }
  std::vector<Ranked> targets;
  for (const auto& row : document["targets"]) {
    std::array<char, 32> change{};
    std::snprintf(change.data(), change.size(), "%+.0f", row["flows_change_per_second"].get<double>());
    targets.push_back({row["flows"],
                       {row["target_group"].get<std::string>(), row["address"].get<std::string>(),
                        row["state"].get<std::string>(), of(row, "flows"), change.data()}});
  }
  std::vector<Ranked> workers;
  for (const auto& row : document["workers"]) {
    std::array<char, 16> busy{};
    std::snprintf(busy.data(), busy.size(), "%.1f%%", 100 * row["busy"].get<double>());
    workers.push_back(
        {row["rx_per_second"],
         {std::to_string(row["worker"].get<std::uint32_t>()), of(row, "rx_per_second"), of(row, "forwarded_per_second"),
          of(row, "punted_per_second"), of(row, "dropped_per_second"), of(row, "flows"), busy.data()}});
  }
  return ranked_table(
             {{"LISTENER", false, true}, {"PACKETS/S", true}, {"BITS/S", true}, {"NEW-FLOWS/S", true}, {"DROPPED/S", true}},
             std::move(listeners), most, options) +
         "\n" +
         ranked_table({{"GROUP", false, true}, {"TARGET"}, {"STATE"}, {"FLOWS", true}, {"CHANGE/S", true}},
                      std::move(targets), most, options) +
         "\n" +
         ranked_table({{"WORKER", true},
                       {"RX/S", true},
                       {"FORWARDED/S", true},
                       {"PUNTED/S", true},
                       {"DROPPED/S", true},
                       {"FLOWS", true},
                       {"BUSY", true}},
                      std::move(workers), most, options);
}

Client::Result<Look> look(Client& client) {
  Look found;
  found.at = Steady::now();
  auto listeners = client.listeners("");
  if (!listeners) return tl::unexpected(listeners.error());
  auto targets = client.targets("");
  if (!targets) return tl::unexpected(targets.error());
  auto workers = client.workers("");
  if (!workers) return tl::unexpected(workers.error());
  found.listeners = std::move(*listeners);
  found.targets = std::move(*targets);
  found.workers = std::move(*workers);
  return found;
}

}  // namespace

// One round after a second, or with --watch a round at each interval.
int Session::top() {
  const std::chrono::milliseconds interval = options_.watch_s > 0 ? pause() : std::chrono::milliseconds(1000);
  const std::size_t most = options_.count != 0 ? options_.count : kUsualRows;
  auto before = look(client_);
  if (!before) return fail(before.error());
  bool first = true;
  while (io_.wait(interval)) {
    auto now = look(client_);
    if (!now && first) return fail(now.error());
    if (options_.watch_s > 0) begin_round(first);
    if (!now) {
      fail(now.error());
      continue;
    }
    const double seconds = std::max(std::chrono::duration<double>(now->at - before->at).count(), 1e-3);
    const nlohmann::ordered_json document = rates(*before, *now, seconds);
    io_.out << (for_people() ? top_text(document, most, view_options()) : machine_text(document));
    io_.out.flush();
    before = std::move(now);
    first = false;
    if (options_.watch_s <= 0 || !io_.out.good()) break;
  }
  return kExitOk;
}

}  // namespace lb::cli
