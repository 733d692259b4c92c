#include "cli/lbctl.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <tl/expected.hpp>
#include <utility>

#include "cli/client.h"
#include "cli/document.h"
#include "cli/table.h"
#include "cli/views.h"
#include "proto/api.pb.h"

namespace lb::cli {

namespace {

using nlohmann::ordered_json;
using std::chrono::milliseconds;

constexpr const char* kDefaultSocket = "/run/lb/cp.sock";
constexpr std::size_t kMaxFileBytes = 64U << 20U;  // what lb-cp takes in one request

struct Options {
  std::string output = "table";
  std::string socket;
  double timeout_s = 5;
  double watch_s = 0;  // 0: once
  std::string file;
  std::string what;  // get, describe: the kind of object
  std::string name;
  std::string target_group;
  std::vector<std::string> flow;  // why
};

std::int64_t now_unix_ms() {
  return std::chrono::duration_cast<milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

class Session {
 public:
  Session(const Options& options, const Io& io)
      : options_(options),
        io_(io),
        client_(options.socket, milliseconds(static_cast<std::int64_t>(options.timeout_s * 1000))) {}

  int apply();
  int diff();
  int get();
  int describe();
  int drain(bool drains);
  int drops();
  int why();
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

  [[nodiscard]] std::string machine_text(const ordered_json& document) const {
    const bool watching = options_.watch_s > 0;
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

  template <typename Reply>
  int print(const Client::Result<Reply>& reply) const {
    if (!reply) return fail(reply.error());
    io_.out << text(*reply);
    return kExitOk;
  }

  [[nodiscard]] tl::expected<std::string, std::string> read_file() const;

  const Options& options_;
  const Io& io_;
  Client client_;
};

template <typename Fetch>
int Session::show(const Fetch& fetch) {
  if (options_.watch_s <= 0) return print(fetch());
  const milliseconds pause(std::max<std::int64_t>(static_cast<std::int64_t>(options_.watch_s * 1000), 100));
  const bool redraw = io_.terminal && for_people();
  bool first = true;
  do {
    const auto reply = fetch();
    if (!reply && first) return fail(reply.error());
    if (redraw) io_.out << "\x1b[H\x1b[2J";
    if (for_people())
      io_.out << (first || redraw ? "" : "\n") << utc_time(static_cast<std::uint64_t>(now_unix_ms())) << '\n';
    if (reply) {
      io_.out << text(*reply);
    } else {
      fail(reply.error());
    }
    io_.out.flush();
    first = false;
  } while (io_.out.good() && io_.wait(pause));
  return kExitOk;
}

tl::expected<std::string, std::string> Session::read_file() const {
  std::string content;
  if (options_.file == "-") {
    content.assign(std::istreambuf_iterator<char>(io_.in), {});
  } else {
    const auto failure = [&] { return tl::unexpected("cannot read " + options_.file + ": " + std::strerror(errno)); };
    std::ifstream file(options_.file, std::ios::binary);
    if (!file) return failure();
    try {
      content.assign(std::istreambuf_iterator<char>(file), {});
    } catch (const std::ios_base::failure&) {  // a directory can be opened, but not read
      return failure();
    }
  }
  if (content.size() > kMaxFileBytes) return tl::unexpected(options_.file + " is larger than 64 MiB");
  return content;
}

int Session::apply() {
  const auto content = read_file();
  if (!content) return fail(content.error());
  api::ApplyRequest request;
  request.set_file(options_.file == "-" ? "stdin" : options_.file);
  request.set_text(*content);
  request.set_timeout_ms(static_cast<std::uint32_t>(options_.timeout_s * 1000));
  const auto reply = client_.apply(request);
  if (!reply) return fail(reply.error());
  io_.err << warnings_text(*reply) << violations_text(*reply);
  if (!for_people()) io_.out << machine_text(to_document(*reply));
  if (reply->violations_size() > 0) return fail("nothing was changed");
  if (for_people()) {
    io_.out << view_changes(*reply, view_options());
    const std::string generation = std::to_string(reply->epoch()) + "." + std::to_string(reply->generation());
    if (reply->active()) {
      io_.out << (reply->changes_size() > 0 ? "applied: " : "no changes: ") << "all workers forward by generation "
              << generation << '\n';
    } else {
      io_.out << "stored as generation " << generation << '\n';
    }
  }
  if (!reply->active())
    return fail("stored, but not in force: " + (reply->note().empty() ? "the workers have not moved to it" : reply->note()));
  return kExitOk;
}

int Session::diff() {
  const auto content = read_file();
  if (!content) return fail(content.error());
  api::DiffRequest request;
  request.set_file(options_.file == "-" ? "stdin" : options_.file);
  request.set_text(*content);
  const auto reply = client_.diff(request);
  if (!reply) return fail(reply.error());
  io_.err << warnings_text(*reply) << violations_text(*reply);
  io_.out << (for_people() ? view_changes(*reply, view_options()) : machine_text(to_document(*reply)));
  if (reply->violations_size() > 0) return kExitError;
  if (reply->changes_size() > 0) return kExitDiffers;
  if (for_people()) io_.out << "no differences\n";
  return kExitOk;
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

// A check that leaves the help text alone; the option's description says what is allowed.
CLI::Validator silent(CLI::Validator validator) {
  return validator.description("");
}

// The words of the command line, and what they do.
class CommandLine {
 public:
  CommandLine();
  int run(const std::vector<std::string>& arguments, const Io& io);

 private:
  using Action = int (*)(Session&);
  CLI::App& verb(const std::string& name, const std::string& description, const std::string& example, Action action);
  void add_watch(CLI::App& app) {
    app.add_option("--watch", options_.watch_s, "repeat every SECONDS (1 if not given)")
        ->expected(0, 1)
        ->default_str("1")
        ->type_name("SECONDS")
        ->check(silent(CLI::Range(0.1, 86400.0)));
  }
  void add_file(CLI::App& app) {
    app.add_option("-f,--file", options_.file, "configuration file; - reads standard input")->required()->type_name("FILE");
  }

  Options options_;
  Action action_ = nullptr;
  CLI::App app_{"Shows and changes what the load balancer does, through lb-cp.", "lbctl"};
};

CLI::App& CommandLine::verb(const std::string& name, const std::string& description, const std::string& example,
                            Action action) {
  CLI::App* app = app_.add_subcommand(name, description);
  app->footer("Example:\n  " + example);
  app->fallthrough();
  app->callback([this, action] { action_ = action; });
  return *app;
}

CommandLine::CommandLine() {
  app_.require_subcommand(1);
  app_.footer("Example:\n  lbctl get targets blue -o wide\n\nExit codes: 0 done, 1 error, 2 differs (diff)");
  app_.set_version_flag("-V,--version", std::string("lbctl ") + LB_VERSION);
  app_.add_option("-o,--output", options_.output, "table, wide, json or yaml")
      ->type_name("FORMAT")
      ->check(silent(CLI::IsMember({"table", "wide", "json", "yaml"})));
  app_.add_option("--socket", options_.socket, "socket of lb-cp")
      ->type_name("PATH")
      ->default_str(kDefaultSocket)
      ->envname("LBCTL_SOCKET");
  app_.add_option("--timeout", options_.timeout_s, "how long to wait for an answer; apply: for the workers")
      ->type_name("SECONDS")
      ->default_str("5")
      ->check(silent(CLI::Range(0.01, 3600.0)));

  add_file(verb("apply", "Put a configuration in force: all of it, or on any error nothing", "lbctl apply -f lb.yaml",
                [](Session& session) { return session.apply(); }));
  add_file(verb("diff", "Show what apply would change; exit code 2 if there is anything", "lbctl diff -f lb.yaml",
                [](Session& session) { return session.diff(); }));
  CLI::App& get = verb("get", "List objects with their state and counters", "lbctl get targets blue --watch",
                       [](Session& session) { return session.get(); });
  get.add_option("KIND", options_.what, "vips, listeners, target-groups, targets or workers")
      ->required()
      ->check(silent(CLI::IsMember({"vips", "listeners", "target-groups", "targets", "workers"})));
  get.add_option("NAME", options_.name, "only this one; for targets: the target group's name");
  add_watch(get);
  CLI::App& describe = verb("describe", "Show all about one object: state, parts, events, configuration",
                            "lbctl describe target-group blue", [](Session& session) { return session.describe(); });
  describe.add_option("KIND", options_.what, "vip, listener, target-group or target")
      ->required()
      ->check(silent(CLI::IsMember({"vip", "listener", "target-group", "target"})));
  describe.add_option("NAME", options_.name, "its name; for a target ADDRESS:PORT")->required();
  const auto add_target = [this](CLI::App& app) {
    app.add_option("TARGET", options_.name, "ADDRESS:PORT, [ADDRESS]:PORT for IPv6")->required();
    app.add_option("--group,--target-group", options_.target_group,
                   "only in this target group (default: in every one that has it)")
        ->type_name("NAME");
  };
  add_target(verb("drain", "Give a target no new flows; those it has stay until the deregistration delay ends",
                  "lbctl drain 10.77.2.2:80 --group blue", [](Session& session) { return session.drain(true); }));
  add_target(verb("undrain", "Let a drained target take new flows again", "lbctl undrain 10.77.2.2:80",
                  [](Session& session) { return session.drain(false); }));
  add_watch(verb("drops", "Show how many packets were dropped, by reason (-o wide: all reasons)", "lbctl drops --watch 2",
                 [](Session& session) { return session.drops(); }));
  verb("why", "Show where a flow would go, and why", "lbctl why tcp 10.77.1.2 40000 192.0.2.10 80",
       [](Session& session) { return session.why(); })
      .add_option("FLOW", options_.flow, "PROTOCOL SOURCE SOURCE-PORT DESTINATION DESTINATION-PORT")
      ->required()
      ->expected(5)
      ->type_name("");
  verb("version", "Show the versions of lbctl and lb-cp, and whether lb-dp is connected", "lbctl version",
       [](Session& session) { return session.version(); });
}

int CommandLine::run(const std::vector<std::string>& arguments, const Io& io) {
  options_.socket = kDefaultSocket;
  try {
    app_.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::ParseError& error) {
    return app_.exit(error, io.out, io.err) == 0 ? kExitOk : kExitError;
  }
  Session session(options_, io);
  return action_(session);
}

}  // namespace

int run(const std::vector<std::string>& arguments, const Io& io) {
  return CommandLine().run(arguments, io);
}

}  // namespace lb::cli
