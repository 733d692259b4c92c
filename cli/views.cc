#include "cli/views.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>
#include <ranges>
#include <string_view>
#include <type_traits>
#include <vector>

#include "cli/table.h"
#include "proto/api.pb.h"

namespace lb::cli {

namespace {

std::string format(const char* pattern, auto... values) {
  std::array<char, 64> buffer{};
  std::snprintf(buffer.data(), buffer.size(), pattern, values...);
  return buffer.data();
}

std::string count(std::uint64_t value, const ViewOptions& options) {
  return options.wide ? std::to_string(value) : compact_number(value);
}

std::string percent(double share) {
  return format("%.1f%%", share * 100);
}
std::string yes_no(bool value) {
  return value ? "yes" : "no";
}

std::string generation(std::uint64_t epoch, std::uint64_t n) {
  return epoch == 0 && n == 0 ? "none" : std::to_string(epoch) + "." + std::to_string(n);
}

Colour state_colour(std::string_view state) {
  if (state == "healthy") return Colour::good;
  if (state == "unhealthy" || state == "unavailable") return Colour::bad;
  if (state == "unused") return Colour::faint;
  return Colour::warning;
}

std::string finish(const Table& table, const ViewOptions& options, std::string_view nothing) {
  if (table.empty()) return std::string(nothing) + "\n";
  return table.render(options.wide ? kUnlimited : kTableColumns, options.colours);
}

std::string state_text(const api::TargetRow& row) {
  if (row.drain_remaining_ms() < 0) return row.state();
  return row.state() + " " + age(row.drain_remaining_ms());
}

// Above what it explains; empty if health is not frozen.
template <typename Reply>
std::string freeze_text(const Reply& reply, const ViewOptions& options) {
  if (!reply.has_freeze()) return "";
  const std::string& note = reply.freeze().note();
  const std::string line = "health is frozen since " + utc_time(reply.freeze().since_unix_ms()) +
                           (note.empty() ? "" : " (" + printable(note) + ")") + ": lbctl unfreeze";
  return paint(options.wide ? line + "\n" : wrap(line, kTableColumns, 0), Colour::warning, options.colours);
}

template <typename Rows>
std::string targets_table(const Rows& rows, const ViewOptions& options) {
  std::vector<Column> columns = {{"GROUP", false, true},  {"ADDRESS"},     {"WEIGHT", true}, {"STATE"},
                                 {"REASON", false, true}, {"SHARE", true}, {"FLOWS", true}};
  if (options.wide) columns.insert(columns.end(), {{"ID", true}, {"SINCE", true}, {"NEXT-HOP"}, {"DETAIL"}});
  Table table(columns);
  for (const api::TargetRow& row : rows) {
    const bool unresolved = row.next_hop() == "unresolved";
    const std::string reason = row.reason().empty() && unresolved ? "next hop unresolved" : row.reason();
    std::vector<Cell> cells = {row.target_group(),
                               row.address(),
                               std::to_string(row.weight()),
                               Cell(state_text(row), state_colour(row.state())),
                               Cell(reason, unresolved && row.reason().empty() ? Colour::bad : Colour::none),
                               percent(row.share()),
                               count(row.flows(), options)};
    if (options.wide) {
      const std::int64_t since =
          row.since_unix_ms() == 0 ? 0 : options.now_unix_ms - static_cast<std::int64_t>(row.since_unix_ms());
      cells.insert(cells.end(), {Cell(std::to_string(row.id())), Cell(row.since_unix_ms() == 0 ? "-" : age(since)),
                                 Cell(row.next_hop(), unresolved ? Colour::bad : Colour::none), Cell(row.detail())});
    }
    table.add(std::move(cells));
  }
  return finish(table, options, "no targets");
}

template <typename Rows>
std::string listeners_table(const Rows& rows, const ViewOptions& options) {
  std::vector<Column> columns = {{"NAME", false, true},          {"ADDRESS"},       {"PROTOCOL"},       {"PORT"},
                                 {"TARGET-GROUPS", false, true}, {"PACKETS", true}, {"NEW-FLOWS", true}};
  if (options.wide) columns.insert(columns.end(), {{"BYTES", true}, {"DROPPED", true}, {"VIP"}, {"STATE"}});
  Table table(columns);
  for (const api::ListenerRow& row : rows) {
    std::vector<Cell> cells = {row.name(),
                               row.address(),
                               row.protocol(),
                               row.port(),
                               row.draining() ? Cell("draining", Colour::warning) : Cell(row.target_groups()),
                               count(row.packets(), options),
                               count(row.new_flows(), options)};
    if (options.wide) {
      cells[4] = Cell(row.target_groups());
      cells.insert(cells.end(), {Cell(count(row.bytes(), options)), Cell(count(row.dropped_packets(), options)),
                                 Cell(row.vip()), row.draining() ? Cell("draining", Colour::warning) : Cell("active")});
    }
    table.add(std::move(cells));
  }
  return finish(table, options, "no listeners");
}

template <typename Rows>
std::string target_groups_table(const Rows& rows, const ViewOptions& options) {
  std::vector<Column> columns = {{"NAME", false, true}, {"PROTOCOL"},  {"MODE"},       {"HEALTHY", true},
                                 {"DRAINING", true},    {"FAIL-OPEN"}, {"FLOWS", true}};
  if (options.wide)
    columns.insert(columns.end(), {{"UNHEALTHY", true}, {"ALGORITHM"}, {"TABLE-SIZE", true}, {"TABLE-HASH"}});
  Table table(columns);
  for (const api::TargetGroupRow& row : rows) {
    const bool all = row.healthy() == row.targets();
    std::vector<Cell> cells = {row.name(),
                               row.protocol(),
                               row.forwarding_mode(),
                               Cell(std::to_string(row.healthy()) + "/" + std::to_string(row.targets()),
                                    all ? Colour::good : (row.healthy() == 0 ? Colour::bad : Colour::warning)),
                               std::to_string(row.draining()),
                               Cell(yes_no(row.fail_open()), row.fail_open() ? Colour::bad : Colour::none),
                               count(row.flows(), options)};
    if (options.wide) {
      cells.insert(cells.end(), {Cell(std::to_string(row.unhealthy())), Cell(row.algorithm()),
                                 Cell(std::to_string(row.table_size())), Cell(row.table_hash())});
    }
    table.add(std::move(cells));
  }
  return finish(table, options, "no target groups");
}

// "Listener      web-80": the label padded to a common width.
class Facts {
 public:
  void add(std::string_view label, const std::string& value, Colour colour = Colour::none) {
    if (!value.empty()) facts_.push_back({std::string(label), value, colour});
  }
  [[nodiscard]] std::string text(bool colours) const {
    std::size_t width = 0;
    for (const Fact& fact : facts_) width = std::max(width, fact.label.size());
    std::string out;
    for (const Fact& fact : facts_) {
      out += fact.label + std::string(width - fact.label.size() + 2, ' ') +
             paint(printable(fact.value), fact.colour, colours) + '\n';
    }
    return out;
  }

 private:
  struct Fact {
    std::string label;
    std::string value;
    Colour colour;
  };
  std::vector<Fact> facts_;
};

std::string indented(const std::string& block) {
  std::string out;
  std::size_t at = 0;
  while (at < block.size()) {
    const std::size_t end = std::min(block.find('\n', at), block.size());
    if (end != at) out += "  " + printable(std::string_view(block).substr(at, end - at));
    out += '\n';
    at = end + 1;
  }
  return out;
}

std::string section(std::string_view title, const std::string& body) {
  return "\n" + std::string(title) + "\n" + indented(body);
}

std::string events_text(const api::DescribeReply& reply, const ViewOptions& options) {
  std::string out;
  for (const api::Event& event : reply.events()) out += view(event, options);
  return out;
}

template <typename Reply>
std::string changes_text(const Reply& reply, const ViewOptions& options) {
  std::string out;
  const int shown = options.wide ? reply.changes_size() : std::min(kMaxChanges, reply.changes_size());
  for (const api::Change& change : reply.changes() | std::views::take(shown)) {
    const bool adds = change.kind() == "add";
    const bool removes = change.kind() == "remove";
    std::string line = (adds ? "+ " : removes ? "- " : "~ ") + change.object();
    if (!change.field().empty()) line += "  " + change.field() + ": " + change.old_value() + " → " + change.new_value();
    out += paint(printable(line), adds ? Colour::good : removes ? Colour::bad : Colour::warning, options.colours) + '\n';
  }
  auto more = static_cast<std::uint64_t>(reply.changes_size() - shown);
  if constexpr (std::is_same_v<Reply, api::ApplyReply>) more += reply.unlisted_changes();
  if (more != 0) out += "… and " + std::to_string(more) + " more changes (-o wide shows all)\n";
  return out;
}

template <typename Violations>
std::string remarks(const Violations& violations, std::string_view prefix) {
  std::string out;
  for (const api::Violation& violation : violations) {
    std::string line = violation.file();
    if (violation.line() != 0) line += ":" + std::to_string(violation.line());
    line += ": ";
    if (!violation.field().empty()) line += violation.field() + ": ";
    line += std::string(prefix) + violation.text();
    out += printable(line) + '\n';
  }
  return out;
}

}  // namespace

std::string compact_number(std::uint64_t value) {
  if (value < 100'000) return std::to_string(value);
  static constexpr std::string_view kUnits = "KMGTPE";
  double scaled = static_cast<double>(value);
  std::size_t unit = 0;
  for (scaled /= 1000; scaled >= 999.5; ++unit) scaled /= 1000;
  const int decimals = scaled < 9.995 ? 2 : scaled < 99.95 ? 1 : 0;
  return format("%.*f%c", decimals, scaled, kUnits[unit]);
}

std::string age(std::int64_t milliseconds) {
  const long long seconds = milliseconds <= 0 ? 0 : milliseconds / 1000;
  if (seconds < 60) return format("%llds", seconds);
  if (seconds < 3600) return format("%lldm%02llds", seconds / 60, seconds % 60);
  if (seconds < 86400) return format("%lldh%02lldm", seconds / 3600, seconds / 60 % 60);
  return format("%lldd%02lldh", seconds / 86400, seconds / 3600 % 24);
}

std::string utc_time(std::uint64_t unix_ms) {
  const auto seconds = static_cast<std::time_t>(unix_ms / 1000);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  std::array<char, 32> buffer{};
  std::strftime(buffer.data(), buffer.size(), "%Y-%m-%d %H:%M:%SZ", &parts);
  return buffer.data();
}

std::string view(const api::VipList& list, const ViewOptions& options) {
  Table table(
      {{"NAME", false, true}, {"ADDRESS"}, {"LISTENERS", true}, {"PACKETS", true}, {"BYTES", true}, {"NEW-FLOWS", true}});
  for (const api::VipRow& row : list.vips()) {
    table.add({row.name(), row.address(), std::to_string(row.listeners()), count(row.packets(), options),
               count(row.bytes(), options), count(row.new_flows(), options)});
  }
  return finish(table, options, "no VIPs");
}

std::string view(const api::ListenerList& list, const ViewOptions& options) {
  return listeners_table(list.listeners(), options);
}

std::string view(const api::TargetGroupList& list, const ViewOptions& options) {
  return freeze_text(list, options) + target_groups_table(list.target_groups(), options);
}

std::string view(const api::TargetList& list, const ViewOptions& options) {
  return freeze_text(list, options) + targets_table(list.targets(), options);
}

std::string view(const api::FreezeReply& reply, const ViewOptions& options) {
  if (reply.has_freeze()) return freeze_text(reply, options);
  return reply.was_frozen() ? "health is unfrozen\n" : "health was not frozen\n";
}

std::string view(const api::DrainReply& reply, const ViewOptions& options) {
  return targets_table(reply.targets(), options);
}

std::string view(const api::WorkerList& list, const ViewOptions& options) {
  std::vector<Column> columns = {{"WORKER", true}, {"LCORE", true},     {"GENERATION"},   {"FLOWS", true},  {"BUSY", true},
                                 {"RX", true},     {"FORWARDED", true}, {"PUNTED", true}, {"DROPPED", true}};
  if (options.wide) columns.insert(columns.end(), {{"TX", true}, {"FLOW-CAPACITY", true}});
  Table table(columns);
  for (const api::WorkerRow& row : list.workers()) {
    std::vector<Cell> cells = {std::to_string(row.worker()),
                               std::to_string(row.lcore()),
                               generation(row.epoch(), row.generation()),
                               count(row.flows(), options),
                               percent(row.busy()),
                               count(row.rx_packets(), options),
                               count(row.forwarded_packets(), options),
                               count(row.punted_packets(), options),
                               count(row.dropped_packets(), options)};
    if (options.wide) {
      cells.insert(cells.end(), {Cell(count(row.tx_packets(), options)), Cell(count(row.flow_capacity(), options))});
    }
    table.add(std::move(cells));
  }
  std::string out = finish(table, options, "no workers");
  if (!list.data_plane_connected())
    out += "lb-dp is not connected" + (list.data_plane_note().empty() ? "" : ": " + list.data_plane_note()) + "\n";
  return out;
}

std::string view(const api::DropList& list, const ViewOptions& options) {
  Table table({{"REASON"}, {"PACKETS", true}, {"MEANING", false, true}});
  for (const api::DropRow& row : list.drops()) {
    if (options.wide || row.packets() != 0) table.add({row.reason(), count(row.packets(), options), row.help()});
  }
  return finish(table, options, "no drops");
}

std::string view(const api::DescribeReply& reply, const ViewOptions& options) {
  Facts facts;
  if (reply.has_vip()) {
    const api::VipRow& vip = reply.vip();
    facts.add("VIP", vip.name());
    facts.add("Address", vip.address());
    facts.add("Packets", std::to_string(vip.packets()));
    facts.add("Bytes", std::to_string(vip.bytes()));
    facts.add("New flows", std::to_string(vip.new_flows()));
  }
  if (reply.has_listener()) {
    const api::ListenerRow& listener = reply.listener();
    facts.add("Listener", listener.name());
    facts.add("VIP", listener.vip() + " (" + listener.address() + ")");
    facts.add("Takes", listener.protocol() + " port " + listener.port());
    if (listener.draining()) facts.add("State", "draining: removed, kept for its tracked flows", Colour::warning);
    facts.add("Packets", std::to_string(listener.packets()));
    facts.add("Bytes", std::to_string(listener.bytes()));
    facts.add("New flows", std::to_string(listener.new_flows()));
    facts.add("Dropped packets", std::to_string(listener.dropped_packets()));
  }
  if (reply.has_target_group()) {
    const api::TargetGroupRow& group = reply.target_group();
    facts.add("Target group", group.name());
    facts.add("Protocol", group.protocol());
    facts.add("Forwarding mode", group.forwarding_mode());
    facts.add("Targets", std::to_string(group.healthy()) + " healthy, " + std::to_string(group.unhealthy()) +
                             " unhealthy, " + std::to_string(group.draining()) + " draining, " +
                             std::to_string(group.targets()) + " in all");
    if (group.fail_open()) facts.add("Fail-open", "too few healthy targets: all of them get traffic", Colour::bad);
    facts.add("Tracked flows", std::to_string(group.flows()));
    facts.add("Algorithm", group.algorithm());
    facts.add("Maglev table", std::to_string(group.table_size()) + " slots, hash " + group.table_hash());
  }
  if (!reply.has_vip() && !reply.has_listener() && !reply.has_target_group() && reply.targets_size() > 0) {
    facts.add("Target", reply.targets(0).address());
    for (const api::TargetRow& row : reply.targets()) {
      facts.add("In " + row.target_group(),
                state_text(row) + (row.drain_then().empty() ? "" : ", then " + row.drain_then()) +
                    (row.reason().empty() ? "" : ", " + row.reason()) + (row.detail().empty() ? "" : ": " + row.detail()),
                state_colour(row.state()));
      facts.add("Next hop", row.next_hop(), row.next_hop() == "unresolved" ? Colour::bad : Colour::none);
    }
  }
  std::string out = facts.text(options.colours);
  if (reply.listeners_size() > 0) out += "\nListeners\n" + listeners_table(reply.listeners(), options);
  if (reply.target_groups_size() > 0) out += "\nTarget groups\n" + target_groups_table(reply.target_groups(), options);
  if (reply.targets_size() > 0) out += "\nTargets\n" + targets_table(reply.targets(), options);
  if (reply.events_size() > 0) out += section("Events", events_text(reply, options));
  if (!reply.config().empty()) out += section("Configuration", reply.config());
  return out;
}

namespace {

// "tx to 10.77.2.2:80 of blue, slot 17": one line of what the configuration in force says.
std::string fate_text(const api::WhyReply& reply) {
  std::string text = reply.verdict() + (reply.has_reason() ? ": " + reply.reason() : "");
  if (reply.has_target()) text += " to " + reply.target() + " of " + reply.target_group();
  if (reply.has_slot()) text += ", slot " + std::to_string(reply.slot());
  return text + " (generation " + generation(reply.epoch(), reply.generation()) + ")";
}

}  // namespace

std::string view(const api::WhyReply& reply, const ViewOptions& options) {
  Facts facts;
  const Colour colour = reply.verdict() == "tx" ? Colour::good : reply.verdict() == "punt" ? Colour::warning : Colour::bad;
  facts.add("Verdict", reply.verdict() + (reply.has_reason() ? ": " + reply.reason() : ""), colour);
  facts.add("Listener", reply.listener());
  facts.add("Target group", reply.target_group());
  facts.add("Target", reply.target());
  std::string flow = reply.flow();
  if (reply.has_worker()) flow += ", on worker " + std::to_string(reply.worker());
  if (reply.has_flow_state()) flow += ", " + reply.flow_state();
  if (reply.has_flow_idle_ms()) flow += ", idle " + age(static_cast<std::int64_t>(reply.flow_idle_ms()));
  facts.add("Flow", flow);
  if (reply.has_slot()) {
    facts.add("Slot",
              std::to_string(reply.slot()) + (reply.has_slot_target() ? " → " + reply.slot_target() : "") +
                  (reply.pinned_elsewhere() ? " (the flow is pinned elsewhere)" : ""),
              reply.pinned_elsewhere() ? Colour::warning : Colour::none);
  }
  facts.add("Connection ID", reply.quic());
  facts.add("Guard", reply.guard(), reply.guard().starts_with("deny") ? Colour::bad : Colour::none);
  facts.add("Next hop", reply.next_hop());
  facts.add("Outer source", reply.outer_source());
  facts.add("Generation", reply.has_configuration() ? "" : generation(reply.epoch(), reply.generation()));
  facts.add("Configuration", reply.configuration());
  if (reply.has_in_force()) facts.add("In force", fate_text(reply.in_force()), Colour::warning);
  std::string out = facts.text(options.colours);
  if (!reply.explanation().empty()) out += "\n" + wrap(reply.explanation(), kTableColumns, 0);
  if (reply.steps_size() > 0) out += "\nSteps\n";
  int n = 0;
  for (const std::string& step : reply.steps()) {
    std::string block = wrap(step, kTableColumns, 5);
    const std::string number = std::to_string(++n) + ".";
    block.replace(4 - std::min<std::size_t>(number.size(), 4), number.size(), number);
    out += block;
  }
  return out;
}

std::string view(const api::VersionReply& reply, const ViewOptions& options) {
  Facts facts;
  facts.add("lbctl", LB_VERSION);
  facts.add("lb-cp", reply.version());
  facts.add("Generation", generation(reply.epoch(), reply.generation()));
  facts.add("lb-dp", reply.data_plane_connected() ? "connected" : "not connected");
  facts.add("Note", reply.data_plane_note(), Colour::warning);
  if (reply.has_freeze()) facts.add("Health", "frozen since " + utc_time(reply.freeze().since_unix_ms()), Colour::warning);
  return facts.text(options.colours);
}

std::string view(const api::Event& event, const ViewOptions& options) {
  std::string line = utc_time(event.unix_ms()) + " " + event.object() + ": " +
                     (event.old_state().empty() ? "" : event.old_state() + " → ") + event.new_state();
  if (!event.reason().empty()) line += ", " + event.reason();
  if (!event.detail().empty()) line += " (" + event.detail() + ")";
  return options.wide ? printable(line) + '\n' : wrap(line, kTableColumns - 2, 2).substr(2);
}

std::string view(const api::HistoryReply& reply, const ViewOptions& options) {
  Table table(
      {{"NUMBER", true}, {"APPLIED"}, {"GENERATION"}, {"CHANGES", true}, {"CAUSE", false, true}, {"FILE", false, true}});
  for (const api::HistoryRow& row : reply.configurations()) {
    table.add(
        {Cell(std::to_string(row.number()) + (row.in_force() ? " *" : "  "), row.in_force() ? Colour::good : Colour::none),
         utc_time(row.unix_ms()), generation(row.epoch(), row.generation()), std::to_string(row.changes()), row.cause(),
         row.file()});
  }
  return finish(table, options, "no configuration was applied yet");
}

std::string view_changes(const api::ApplyReply& reply, const ViewOptions& options) {
  return changes_text(reply, options);
}
std::string view_changes(const api::DiffReply& reply, const ViewOptions& options) {
  return changes_text(reply, options);
}

std::string view_changes(const api::PlanReply& reply, const ViewOptions& options) {
  return changes_text(reply, options);
}

std::string violations_text(const api::PlanReply& reply) {
  return remarks(reply.violations(), "");
}
std::string warnings_text(const api::PlanReply& reply) {
  return remarks(reply.warnings(), "warning: ");
}
std::string violations_text(const api::ApplyReply& reply) {
  return remarks(reply.violations(), "");
}
std::string warnings_text(const api::ApplyReply& reply) {
  return remarks(reply.warnings(), "warning: ");
}
std::string violations_text(const api::DiffReply& reply) {
  return remarks(reply.violations(), "");
}
std::string warnings_text(const api::DiffReply& reply) {
  return remarks(reply.warnings(), "warning: ");
}

}  // namespace lb::cli
