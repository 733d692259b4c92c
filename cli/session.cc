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

int Session::get() {
  const std::string& name = options_.name;
  if (options_.what == "vips") return show([&] { return client_.vips(name); });
  if (options_.what == "listeners") return show([&] { return client_.listeners(name); });
  if (options_.what == "target-groups") return show([&] { return client_.target_groups(name); });
  if (options_.what == "targets") return show([&] { return client_.targets(name); });
  return show([&] { return client_.workers(name); });
}

int Session::describe() {
  api::DescribeRequest request;
  request.set_kind(options_.what);
  request.set_name(options_.name);
  return print(client_.describe(request));
}

int Session::drain(bool drains) {
  api::DrainRequest request;
  request.set_target(options_.name);
  request.set_target_group(options_.target_group);
  return print(drains ? client_.drain(request) : client_.undrain(request));
}

int Session::drops() {
  return show([&] { return client_.drops(); });
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
