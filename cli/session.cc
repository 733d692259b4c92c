#include "cli/session.h"

#include <cstdlib>
#include <utility>

#include "proto/api.pb.h"

namespace lb::cli {

std::int64_t now_unix_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

void Session::begin_round(bool first) const {
  const bool redraw = io_.terminal && for_people();
  if (redraw) io_.out << "\x1b[H\x1b[2J";
  if (for_people()) io_.out << (first || redraw ? "" : "\n") << utc_time(static_cast<std::uint64_t>(now_unix_ms())) << '\n';
}

std::string Session::text_of(const api::WatchReply& reply) const {
  if (reply.has_vips()) return text(reply.vips());
  if (reply.has_listeners()) return text(reply.listeners());
  if (reply.has_target_groups()) return text(reply.target_groups());
  if (reply.has_targets()) return text(reply.targets());
  if (reply.has_workers()) return text(reply.workers());
  return text(reply.drops());
}

// lb-cp sends a list at each interval. A first failure ends the command; after a later one the watch begins anew: lb-cp may
// be restarting.
int Session::watch_list() {
  api::WatchRequest request;
  request.set_kind(options_.what.empty() ? "drops" : options_.what);
  request.set_name(options_.name);
  request.set_interval_ms(static_cast<std::uint32_t>(pause().count()));
  bool first = true;
  bool goes_on = true;
  do {
    const auto ended = client_.watch(request, [&](const api::WatchReply& reply) {
      begin_round(first);
      io_.out << text_of(reply);
      io_.out.flush();
      first = false;
      goes_on = io_.out.good() && io_.wait(std::chrono::milliseconds(0));
      return goes_on;
    });
    if (ended) continue;
    if (first) return fail(ended.error());
    begin_round(false);
    fail(ended.error());
    goes_on = io_.wait(pause());
  } while (goes_on);
  return kExitOk;
}

int Session::get() {
  const std::string& name = options_.name;
  if (options_.what == "vips") return list([&] { return client_.vips(name); });
  if (options_.what == "listeners") return list([&] { return client_.listeners(name); });
  if (options_.what == "target-groups") return list([&] { return client_.target_groups(name); });
  if (options_.what == "targets") return list([&] { return client_.targets(name); });
  return list([&] { return client_.workers(name); });
}

int Session::describe() {
  api::DescribeRequest request;
  request.set_kind(options_.what);
  request.set_name(options_.name);
  return print(client_.describe(request));
}

int Session::drops() {
  return list([&] { return client_.drops(); });
}

int Session::version() {
  const auto reply = client_.version();
  if (!reply) {
    if (for_people()) io_.out << "lbctl  " << LB_VERSION << '\n';
    return fail(reply.error());
  }
  io_.out << text(*reply);
  const std::string difference = compare_versions(LB_VERSION, reply->version());
  if (!difference.empty()) io_.err << "lbctl: " << difference << '\n';
  return kExitOk;
}

}  // namespace lb::cli
