#include "cli/session.h"

#include <charconv>
#include <cstdlib>
#include <utility>

#include "proto/api.pb.h"

namespace lb::cli {

using nlohmann::ordered_json;

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

namespace {

tl::expected<std::uint32_t, std::string> parse_port(const std::string& text, const std::string& what) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value > 65535) {
    return tl::unexpected(what + ": `" + text + "` is not a port (0-65535)");
  }
  return value;
}

// An answer as a line of lb-replay: `n`, `out_len` and `out` belong to a packet and are empty here.
ordered_json why_document(const api::WhyReply& reply) {
  const ordered_json answer = to_document(reply);
  ordered_json document = {{"n", nullptr}};
  for (const auto& [key, value] : answer.items()) {
    document[key] = value;
    if (key == "worker") {
      document["out_len"] = nullptr;
      document["out"] = ordered_json::array();
    }
  }
  return document;
}

}  // namespace

int Session::why() {
  const auto source_port = parse_port(options_.flow[2], "source port");
  if (!source_port) return fail(source_port.error());
  const auto destination_port = parse_port(options_.flow[4], "destination port");
  if (!destination_port) return fail(destination_port.error());
  api::WhyRequest request;
  request.set_protocol(options_.flow[0]);
  request.set_source(options_.flow[1]);
  request.set_source_port(*source_port);
  request.set_destination(options_.flow[3]);
  request.set_destination_port(*destination_port);
  const auto reply = client_.why(request);
  if (!reply) return fail(reply.error());
  io_.out << (for_people() ? view(*reply, view_options()) : machine_text(why_document(*reply)));
  return kExitOk;
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
