// Verbs that look ahead and look on: plan, events, flows.
#include <string_view>

#include "cli/session.h"
#include "proto/api.pb.h"

namespace lb::cli {

int Session::plan() {
  const auto content = read_file();
  if (!content) return fail(content.error());
  api::PlanRequest request;
  request.set_file(options_.file == "-" ? "stdin" : options_.file);
  request.set_text(*content);
  const auto reply = waited([&] { return client_.plan(request); });
  if (!reply) return fail(reply.error());
  io_.err << warnings_text(*reply) << violations_text(*reply);
  if (!for_people()) io_.out << machine_text(to_document(*reply));
  if (reply->violations_size() > 0) return kExitError;
  if (for_people()) io_.out << view(*reply, view_options());
  return kExitOk;
}

// With -w, where lb-cp is restarted, the watch goes on with the new one's events.
int Session::events() {
  api::EventsRequest request;
  request.set_follow(options_.watch);
  bool first = true;
  bool goes_on = true;
  const auto take = [&](api::EventBatch batch) {
    request.set_instance(batch.instance());
    if (batch.events_size() > 0) request.set_sequence(batch.events(batch.events_size() - 1).sequence());
    if (batch.lost() != 0) io_.err << "lbctl: " << batch.lost() << " events are lost: lb-cp keeps the last 1000\n";
    auto& events = *batch.mutable_events();
    for (int i = events.size() - 1; i >= 0; --i) {
      if (events[i].object().find(options_.text) == std::string::npos) events.DeleteSubrange(i, 1);
    }
    const int most = static_cast<int>(options_.count);
    if (first && most != 0 && events.size() > most) events.DeleteSubrange(0, events.size() - most);
    if (!options_.watch && !for_people()) {
      io_.out << machine_text(to_document(batch));
    } else {
      for (const api::Event& event : events) io_.out << text(event);
    }
    if (first && events.empty() && for_people() && !options_.watch) io_.out << "no events\n";
    io_.out.flush();
    first = false;
    goes_on = io_.out.good() && (!options_.watch || io_.wait(std::chrono::milliseconds(0)));
    return goes_on;
  };
  do {
    const auto ended = client_.events(request, take);
    if (!options_.watch) return ended ? kExitOk : fail(ended.error());
    if (ended) continue;
    fail(ended.error());
    if (first) return kExitError;
    goes_on = io_.wait(std::chrono::seconds(1));
  } while (goes_on);
  return kExitOk;
}

// The flow tables hold neither addresses nor counts: what is asked by these is seen on packets.
int Session::talkers() {
  api::TalkersRequest request;
  api::TraceRequest filter;
  if (auto filled = fill(filter); !filled) return fail(filled.error());
  request.set_protocol(filter.protocol());
  request.set_client(filter.client());
  request.set_vip(filter.vip());
  request.set_port(filter.port());
  request.set_listener(options_.listener);
  request.set_target_group(options_.target_group);
  request.set_target(options_.target);
  request.set_state(options_.state);
  request.set_by_client(options_.by_client);
  request.set_sample_ms(static_cast<std::uint32_t>(options_.sample_s * 1000));
  request.set_max_rows(static_cast<std::uint32_t>(std::min<std::size_t>(options_.count, 10'000)));
  return show([&] { return client_.talkers(request); });
}

int Session::flows() {
  const bool by_packets = options_.top || options_.by_client || !options_.client.empty() || !options_.vip.empty() ||
                          !options_.protocol.empty() || !options_.port.empty();
  if (by_packets) return talkers();
  api::FlowsRequest request;
  request.set_listener(options_.listener);
  request.set_target_group(options_.target_group);
  request.set_target(options_.target);
  request.set_state(options_.state);
  return show([&] { return client_.flows(request); });
}

int Session::offenders() {
  api::OffendersRequest request;
  request.set_listener(options_.listener);
  request.set_max_rows(static_cast<std::uint32_t>(options_.count));
  return show([&] { return client_.offenders(request); });
}

}  // namespace lb::cli
