// `drain` and `undrain`: several targets at once, and --wait until their flows are gone or their time is over.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <map>
#include <optional>

#include "cli/session.h"
#include "proto/api.pb.h"

namespace lb::cli {

namespace {

std::string key_of(const api::TargetRow& row) {
  return row.target_group() + " " + row.address();
}

bool is_draining(const api::TargetRow& row) {
  return row.drain_remaining_ms() > 0 && row.state() == "draining";
}

// "90", "90s", "10m", "1h": seconds.
std::optional<std::uint32_t> parse_time(const std::string& text) {
  std::uint32_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, number);
  const std::string unit(at, end);
  const std::uint64_t seconds = std::uint64_t{number} * (unit == "h" ? 3600 : unit == "m" ? 60 : 1);
  const bool known = unit.empty() || unit == "s" || unit == "m" || unit == "h";
  if (error != std::errc{} || !known || seconds > 86'400) return std::nullopt;
  return static_cast<std::uint32_t>(seconds);
}

// How one target's drain ended; empty while it goes on. `then`: as the drain had it.
std::string outcome(const api::TargetRow& row, std::uint64_t flows_at_start, const std::string& then) {
  if (row.flows() == 0) return "drained: " + std::to_string(flows_at_start) + " flows have ended";
  if (is_draining(row)) return "";
  if (row.state() == "unused") {
    return "the delay is over: " + std::to_string(row.flows()) + " flows " +
           (then == "reset"    ? "are reset with their next packet"
            : then == "rehash" ? "are picked anew with their next packet"
                               : "are left where they are");
  }
  return "no longer draining: " + row.state() + ", " + std::to_string(row.flows()) + " flows";
}

// By the rate at which flows have gone so far.
std::string estimate(std::uint64_t at_start, std::uint64_t now, std::int64_t elapsed_ms) {
  if (now >= at_start || elapsed_ms < 2000) return "";
  const double per_ms = static_cast<double>(at_start - now) / static_cast<double>(elapsed_ms);
  return ", at this rate " + age(static_cast<std::int64_t>(static_cast<double>(now) / per_ms)) + " more";
}

}  // namespace

int Session::drain(bool drains) {
  std::optional<std::uint32_t> deadline_s;
  if (!options_.deadline.empty() && !(deadline_s = parse_time(options_.deadline)))
    return fail("--deadline: `" + options_.deadline + "` is not a time of at most a day, as 90s, 10m or 1h");
  api::DrainReply all;
  bool failed = false;
  for (const std::string& target : options_.names) {
    api::DrainRequest request;
    request.set_target(target);
    request.set_target_group(options_.target_group);
    if (deadline_s) request.set_deadline_s(*deadline_s);
    request.set_then(options_.then);
    const auto reply = drains ? client_.drain(request) : client_.undrain(request);
    if (!reply) {
      fail(reply.error());
      failed = true;
      continue;
    }
    for (const api::TargetRow& row : reply->targets()) *all.add_targets() = row;
  }
  if (all.targets_size() > 0 || options_.names.size() > 1) io_.out << text(all);
  io_.out.flush();
  if (failed || !drains || !options_.wait_drained) return failed ? kExitError : kExitOk;
  return wait_drained(all);
}

// One line for each target and change of its flows; ends when every target is done.
int Session::wait_drained(const api::DrainReply& begun) {
  struct Watched {
    std::uint64_t at_start = 0;
    std::uint64_t last = 0;
    std::string then;
    bool done = false;
  };
  std::map<std::string, Watched> watched;
  for (const api::TargetRow& row : begun.targets())
    watched[key_of(row)] = {row.flows(), row.flows(), row.drain_then(), false};
  const auto start = std::chrono::steady_clock::now();
  std::size_t left = watched.size();
  const auto tell = [&](const std::string& key, const std::string& words) {
    if (for_people()) io_.out << key << ": " << words << std::endl;
  };
  while (left > 0) {
    const auto rows = client_.targets("");
    if (!rows) fail(rows.error());  // lb-cp may be restarting: the drain goes on
    std::map<std::string, const api::TargetRow*> now;
    if (rows) {
      for (const api::TargetRow& row : rows->targets()) now[key_of(row)] = &row;
    }
    for (auto& [key, target] : watched) {
      if (!rows || target.done) continue;
      const auto row = now.find(key);
      const std::string end =
          row == now.end() ? "gone: removed, and its flows have ended" : outcome(*row->second, target.at_start, target.then);
      if (!end.empty()) {
        tell(key, end);
        target.done = true;
        --left;
      } else if (row->second->flows() != target.last) {
        target.last = row->second->flows();
        tell(key,
             std::to_string(target.last) + " of " + std::to_string(target.at_start) + " flows left, " +
                 age(row->second->drain_remaining_ms()) + " until the delay is over" +
                 estimate(target.at_start, target.last,
                          std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - start)
                              .count()));
      }
    }
    if (left > 0 && !io_.wait(std::chrono::seconds(1))) break;
  }
  return kExitOk;
}

int Session::freeze(bool freezes) {
  api::FreezeRequest request;
  request.set_frozen(freezes);
  request.set_note(options_.note);
  const auto reply = client_.freeze(request);
  if (!reply) return fail(reply.error());
  io_.out << text(*reply);
  return kExitOk;
}

}  // namespace lb::cli
