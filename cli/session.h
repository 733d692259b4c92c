// One command: what the command line says, and the verbs that carry it out. Private to cli.
#pragma once

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "cli/client.h"
#include "cli/document.h"
#include "cli/lbctl.h"
#include "cli/views.h"
#include "cli/waiting.h"

namespace lb::cli {

inline constexpr const char* kDefaultSocket = "/run/lb/cp.sock";           // admin: everything
inline constexpr const char* kDefaultViewSocket = "/run/lb/cp-view.sock";  // view: what changes nothing

struct Options {
  std::string output = "table";
  std::string socket;
  double timeout_s = 5;
  double watch_s = 0;  // 0: once
  std::string file;
  std::string what;  // get, describe: the kind of object
  std::string name;
  std::string target_group;
  std::vector<std::string> flow;   // why
  std::vector<std::string> names;  // drain, undrain
  bool wait_drained = false;
  std::string deadline;       // drain: 90, 90s, 10m, 1h
  std::string then;           // drain
  std::string note;           // freeze
  std::string generation;     // why
  std::string connection_id;  // why: QUIC, hex digits
  std::string client;         // trace, capture: address or prefix
  std::string verdict;        // trace, capture
  std::string reason;         // trace, capture
  std::uint32_t rate = 0;     // trace, capture: packets a second and worker
  std::uint32_t bytes = 0;    // capture: of each side
  bool top = false;           // flows: by traffic
  bool by_client = false;     // flows
  double sample_s = 1;        // flows: by traffic
  bool watch = false;         // events
  std::string text;           // events: that the object has
  std::size_t count = 0;      // events: at most, 0: all; top: rows
  std::string listener;       // flows
  std::string state;          // flows
  // What changes the configuration.
  bool force = false;
  std::string if_generation;
  std::uint64_t number = 0;  // rollback, export
  std::string target;        // ADDRESS:PORT
  std::optional<std::uint32_t> weight;
  std::string vip;
  std::string protocol;
  std::string port;
  std::string target_groups;
};

std::int64_t now_unix_ms();

class TopScreen;

enum class EditAction : std::uint8_t { add, set, remove };

class Session {
 public:
  Session(const Options& options, const Io& io)
      : options_(options),
        io_(io),
        client_(options.socket, std::chrono::milliseconds(static_cast<std::int64_t>(options.timeout_s * 1000))) {}

  int apply();
  int diff();
  int edit_target(EditAction action);
  int edit_listener(EditAction action);
  int history();
  int rollback();
  int export_config();
  int plan();
  int events();
  int flows();
  int talkers();
  int offenders();
  int top();
  int doctor();
  int get();
  int describe();
  int drain(bool drains);
  int wait_drained(const api::DrainReply& begun);
  int freeze(bool freezes);
  int drops();
  int why();
  int why_capture();
  int trace();
  int capture();
  int version();

 private:
  [[nodiscard]] bool for_people() const { return options_.output == "table" || options_.output == "wide"; }
  [[nodiscard]] ViewOptions view_options() const {
    return {.wide = options_.output == "wide",
            .colours = io_.terminal && std::getenv("NO_COLOR") == nullptr,
            .now_unix_ms = now_unix_ms()};
  }

  int fail(const std::string& text) const {
    io_.err << "lbctl: " << text << '\n';
    return kExitError;
  }

  [[nodiscard]] std::string machine_text(const nlohmann::ordered_json& document) const {
    const bool watching = options_.watch_s > 0 || options_.watch;
    if (options_.output == "yaml") return (watching ? "---\n" : "") + to_yaml(document);
    return to_json(document, watching ? JsonLayout::line : JsonLayout::pretty);
  }

  template <typename Reply>
  [[nodiscard]] std::string text(const Reply& reply) const {
    return for_people() ? view(reply, view_options()) : machine_text(to_document(reply));
  }

  // Prints what `fetch` brings; again and again with --watch. A first failure ends the command; later ones are shown, and
  // the watch goes on: lb-cp may be restarting.
  template <typename Fetch>
  int show(const Fetch& fetch);

  // One list, or with --watch a stream of it.
  template <typename Fetch>
  int list(const Fetch& fetch);
  int watch_list();
  [[nodiscard]] std::string text_of(const api::WatchReply& reply) const;
  [[nodiscard]] std::chrono::milliseconds pause() const {
    return std::chrono::milliseconds(std::max<std::int64_t>(static_cast<std::int64_t>(options_.watch_s * 1000), 100));
  }
  void begin_round(bool first) const;  // clears a terminal; says the time to people

  template <typename Reply>
  int print(const Client::Result<Reply>& reply) const {
    if (!reply) return fail(reply.error());
    io_.out << text(*reply);
    return kExitOk;
  }

  // What may take long: tells people meanwhile.
  template <typename Call>
  auto waited(const Call& call) const {
    const Waiting waiting(io_);
    return call();
  }
  [[nodiscard]] tl::expected<std::string, std::string> read_file() const;
  [[nodiscard]] tl::expected<void, std::string> set_terms(api::ApplyTerms& terms) const;
  tl::expected<void, std::string> fill(api::TraceRequest& request) const;
  template <typename Take>
  int follow_trace(const api::TraceRequest& request, const Take& take);
  int show_outcome(const Client::Result<api::ApplyReply>& reply) const;
  int top_screen(TopScreen& screen, std::chrono::milliseconds interval);

  const Options& options_;
  const Io& io_;
  Client client_;
};

template <typename Fetch>
int Session::show(const Fetch& fetch) {
  if (options_.watch_s <= 0) return print(fetch());
  bool first = true;
  do {
    const auto reply = fetch();
    if (!reply && first) return fail(reply.error());
    begin_round(first);
    if (reply) {
      io_.out << text(*reply);
    } else {
      fail(reply.error());
    }
    io_.out.flush();
    first = false;
  } while (io_.out.good() && io_.wait(pause()));
  return kExitOk;
}

template <typename Fetch>
int Session::list(const Fetch& fetch) {
  return options_.watch_s > 0 ? watch_list() : print(fetch());
}

}  // namespace lb::cli
