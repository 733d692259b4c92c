// What `plan` and `flows` say to people.
#include <array>
#include <cstdio>

#include "cli/table.h"
#include "cli/views.h"
#include "proto/api.pb.h"

namespace lb::cli {

namespace {

std::string percent(double share) {
  std::array<char, 16> buffer{};
  std::snprintf(buffer.data(), buffer.size(), "%.1f%%", share * 100);
  return buffer.data();
}

std::string count(std::uint64_t value, const ViewOptions& options) {
  return options.wide ? std::to_string(value) : compact_number(value);
}

std::string size(std::uint64_t bytes) {
  if (bytes < 10'000) return std::to_string(bytes) + " B";
  return compact_number(bytes < 100'000 ? bytes / 1000 * 1000 : bytes) + (bytes < 100'000 ? " B" : "B");
}

std::string fates(std::uint64_t stay, std::uint64_t move, std::uint64_t drain, std::uint64_t reset) {
  std::string text = std::to_string(stay) + " stay";
  if (move != 0) text += ", " + std::to_string(move) + " move";
  if (drain != 0) text += ", " + std::to_string(drain) + " drain";
  if (reset != 0) text += ", " + std::to_string(reset) + " are reset";
  return text;
}

std::string fate(const api::PlannedTarget& target) {
  if (target.flows() == 0 && target.fate() == "stay") return "";
  if (target.fate() != "drain") return target.fate();
  return "drain " + age(static_cast<std::int64_t>(target.drain_ms())) + ", " + target.then();
}

Colour colour_of(const std::string& change) {
  return change == "add"      ? Colour::good
         : change == "remove" ? Colour::bad
         : change == "change" ? Colour::warning
                              : Colour::none;
}

}  // namespace

std::string view(const api::PlanReply& reply, const ViewOptions& options) {
  std::string out = view_changes(reply, options);
  if (reply.changes_size() == 0) return "no changes\n";
  for (const api::PlannedGroup& group : reply.target_groups()) {
    out += "\nTarget group " + printable(group.name()) + (group.change() == "change" ? "" : " (" + group.change() + ")") +
           ": " + std::to_string(group.slots_moved()) + " of " + std::to_string(group.slots_after()) +
           " slots move; flows: " + fates(group.flows_stay(), group.flows_move(), group.flows_drain(), group.flows_reset()) +
           "\n";
    Table table({{"", false, false},
                 {"TARGET"},
                 {"SHARE", true},
                 {"NEW-SHARE", true},
                 {"GAINED", true},
                 {"LOST", true},
                 {"FLOWS", true},
                 {"FATE", false, true}});
    for (const api::PlannedTarget& target : group.targets()) {
      const Colour colour = colour_of(target.change());
      const char* sign = target.change() == "add"      ? "+"
                         : target.change() == "remove" ? "-"
                         : target.change().empty()     ? " "
                                                       : "~";
      table.add({Cell(sign, colour), Cell(target.address(), colour), percent(target.share_before()),
                 percent(target.share_after()), count(target.slots_gained(), options), count(target.slots_lost(), options),
                 count(target.flows(), options), fate(target)});
    }
    out += table.render(options.wide ? kUnlimited : kTableColumns, options.colours);
  }
  out += "\nTracked flows: " + fates(reply.flows_stay(), reply.flows_move(), reply.flows_drain(), reply.flows_reset()) +
         (reply.flows_known() ? "" : " (lb-dp is away: they are not known)") + "\n";
  out += "Snapshot: " + size(reply.snapshot_bytes_before()) + " → " + size(reply.snapshot_bytes_after()) +
         "; lb-dp holds both while workers move; about " + size(reply.sent_bytes()) + " are new\n";
  for (const std::string& note : reply.notes()) out += wrap("Note: " + note, kTableColumns, 0);
  return out;
}

std::string view(const api::TalkerList& list, const ViewOptions& options) {
  const bool by_client = list.talkers_size() > 0 && list.talkers(0).flows() != 0;
  std::vector<Column> columns = {{"CLIENT"}};
  if (by_client) columns.push_back({"FLOWS", true});
  if (!by_client) columns.insert(columns.end(), {{"DESTINATION"}, {"PROTOCOL"}});
  columns.insert(columns.end(), {{"TARGET", false, true}, {"PACKETS", true}, {"BYTES", true}});
  if (!by_client) columns.push_back({"STATE"});
  if (options.wide) columns.insert(columns.end(), {{"LISTENER"}, {"GROUP"}});
  Table table(columns);
  for (const api::TalkerRow& row : list.talkers()) {
    std::vector<Cell> cells = {row.client()};
    if (by_client) cells.emplace_back(count(row.flows(), options));
    if (!by_client) cells.insert(cells.end(), {row.destination(), row.protocol()});
    cells.insert(cells.end(), {row.target(), count(row.packets(), options), count(row.bytes(), options)});
    if (!by_client) cells.emplace_back(row.state());
    if (options.wide) cells.insert(cells.end(), {row.listener(), row.target_group()});
    table.add(std::move(cells));
  }
  std::string out =
      table.empty() ? "no packets\n" : table.render(options.wide ? kUnlimited : kTableColumns, options.colours);
  const auto shown = static_cast<std::uint64_t>(list.talkers_size());
  if (shown < list.rows()) out += "… and " + std::to_string(list.rows() - shown) + " more (-n)\n";
  if (list.packets_read() < list.packets()) {
    out += "estimates: " + std::to_string(list.packets_read()) + " of " + std::to_string(list.packets()) +
           " packets were looked at\n";
  }
  return out;
}

std::string view(const api::FlowList& list, const ViewOptions& options) {
  std::vector<Column> columns = {{"GROUP", false, true}, {"TARGET"},     {"STATE"},      {"FLOWS", true},
                                 {"≤1s", true},          {"≤10s", true}, {"≤60s", true}, {"LONGER", true}};
  if (options.wide) columns.push_back({"LISTENERS"});
  Table table(columns);
  for (const api::FlowRow& row : list.flows()) {
    std::vector<Cell> cells = {row.target_group(),
                               row.target(),
                               row.state(),
                               count(row.flows(), options),
                               count(row.idle_1s(), options),
                               count(row.idle_10s(), options),
                               count(row.idle_60s(), options),
                               count(row.idle_longer(), options)};
    if (options.wide) cells.emplace_back(row.listeners());
    table.add(std::move(cells));
  }
  std::string out = table.empty() ? "no flows\n" : table.render(options.wide ? kUnlimited : kTableColumns, options.colours);
  if (list.lines_read() < list.lines()) {
    out += "estimates: 1 of " +
           std::to_string((list.lines() + list.lines_read() / 2) / std::max<std::uint64_t>(list.lines_read(), 1)) +
           " lines of the flow tables was read; tracked flows in all: " + std::to_string(list.total()) + "\n";
  }
  return out;
}

std::string view(const api::OffenderList& list, const ViewOptions& options) {
  Table table({{"LISTENER", false, true}, {"SOURCE"}, {"REFUSED", true}, {"FLOWS", true}, {"SEEN", true}, {"OVER"}});
  for (const api::OffenderRow& row : list.offenders()) {
    std::string over;
    for (const std::string& limit : row.over()) over += (over.empty() ? "" : ", ") + limit;
    if (options.wide && row.known()) over += " (known)";
    table.add({row.listener(), row.source(), count(row.refused(), options), count(row.concurrent_flows(), options),
               std::to_string(row.seen_ms_ago() / 1000) + "s ago", over});
  }
  std::string out = table.empty() ? "no source is over a limit\n"
                                  : table.render(options.wide ? kUnlimited : kTableColumns, options.colours);
  if (list.offenders_total() > static_cast<std::uint32_t>(list.offenders_size()))
    out += std::to_string(list.offenders_total() - static_cast<std::uint32_t>(list.offenders_size())) + " more\n";
  return out;
}

}  // namespace lb::cli
