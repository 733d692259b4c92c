// `top`: rates from two looks at the counters, busiest first.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <map>
#include <utility>

#include "cli/session.h"
#include "cli/table.h"
#include "cli/top_screen.h"
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
  const auto rounded = static_cast<std::uint64_t>(std::llround(value));
  return options.wide ? std::to_string(rounded) : compact_number(rounded);
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

TopList list_of(std::vector<Column> columns) {
  return {.columns = std::move(columns), .rows = {}};
}

std::vector<TopList> lists_of(const nlohmann::ordered_json& document, const ViewOptions& options) {
  const auto add = [&](TopList& list, const nlohmann::ordered_json& row, std::vector<Cell> texts,
                       const std::vector<const char*>& numbers) {
    std::vector<double> keys(texts.size(), 0);
    for (const char* key : numbers) {
      keys.push_back(row[key].get<double>());
      texts.emplace_back(number(keys.back(), options));
    }
    list.rows.push_back({std::move(texts), std::move(keys)});
  };
  TopList listeners = list_of(
      {{"LISTENER", false, true}, {"PACKETS/S", true}, {"BITS/S", true}, {"NEW-FLOWS/S", true}, {"DROPPED/S", true}});
  for (const auto& row : document["listeners"]) {
    add(listeners, row, {row["name"].get<std::string>()},
        {"packets_per_second", "bytes_per_second", "new_flows_per_second", "dropped_per_second"});
    TopList::Row& added = listeners.rows.back();
    added.keys[2] *= 8;
    added.cells[2].text = number(added.keys[2], options);
  }
  TopList targets = list_of({{"GROUP", false, true}, {"TARGET"}, {"STATE"}, {"FLOWS", true}, {"CHANGE/S", true}});
  targets.sorted = 3;
  for (const auto& row : document["targets"]) {
    add(targets, row,
        {row["target_group"].get<std::string>(), row["address"].get<std::string>(), row["state"].get<std::string>()},
        {"flows"});
    std::array<char, 32> change{};
    const auto per_second = row["flows_change_per_second"].get<double>();
    std::snprintf(change.data(), change.size(), "%+.0f", per_second);
    targets.rows.back().cells.emplace_back(change.data());
    targets.rows.back().keys.push_back(per_second);
  }
  TopList workers = list_of({{"WORKER", true},
                             {"RX/S", true},
                             {"FORWARDED/S", true},
                             {"PUNTED/S", true},
                             {"DROPPED/S", true},
                             {"FLOWS", true},
                             {"BUSY", true}});
  for (const auto& row : document["workers"]) {
    add(workers, row, {},
        {"worker", "rx_per_second", "forwarded_per_second", "punted_per_second", "dropped_per_second", "flows"});
    std::array<char, 16> busy{};
    std::snprintf(busy.data(), busy.size(), "%.1f%%", 100 * row["busy"].get<double>());
    workers.rows.back().cells.emplace_back(busy.data());
    workers.rows.back().keys.push_back(row["busy"].get<double>());
  }
  return {std::move(listeners), std::move(targets), std::move(workers)};
}

std::string top_text(const nlohmann::ordered_json& document, std::size_t most, const ViewOptions& options) {
  std::string out;
  for (TopList& list : lists_of(document, options)) {
    sort(list);
    out += (out.empty() ? "" : "\n") + render(list, 0, most, options.wide ? kUnlimited : kTableColumns, options.colours);
    if (list.rows.size() > most) out += "… and " + std::to_string(list.rows.size() - most) + " more (-n)\n";
  }
  return out;
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

// On a terminal a screen of its own, drawn anew at each interval and after each key, until q or Ctrl-C.
int Session::top_screen(TopScreen& screen, std::chrono::milliseconds interval) {
  auto before = look(client_);
  if (!before) {
    screen.close();
    return fail(before.error());
  }
  std::string words = "the first numbers come in a moment";
  std::vector<TopList> lists;
  while (screen.show(words, lists, interval)) {
    auto now = look(client_);
    if (!now) {
      words = now.error();  // lb-cp may be restarting
      continue;
    }
    const double seconds = std::max(std::chrono::duration<double>(now->at - before->at).count(), 1e-3);
    lists = lists_of(rates(*before, *now, seconds), view_options());
    words = utc_time(static_cast<std::uint64_t>(now_unix_ms()));
    before = std::move(now);
  }
  return kExitOk;
}

// One round after a second, or with --watch a round at each interval.
int Session::top() {
  const std::chrono::milliseconds interval = options_.watch_s > 0 ? pause() : std::chrono::milliseconds(1000);
  if (io_.screen && for_people()) {
    if (const auto screen = TopScreen::open()) return top_screen(*screen, interval);
  }
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
