#include "cli/lbctl.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <utility>

#include "cli/command_docs.h"
#include "cli/session.h"

namespace lb::cli {

namespace {

// A check that leaves the help text alone; the option's description says what is allowed.
CLI::Validator silent(CLI::Validator validator) {
  return validator.description("");
}

// The admin socket, or the view socket for who may open that one alone.
std::string default_socket() {
  const bool view_only = ::access(kDefaultSocket, R_OK | W_OK) != 0 && ::access(kDefaultViewSocket, R_OK | W_OK) == 0;
  return view_only ? kDefaultViewSocket : kDefaultSocket;
}

// The words of the command line, and what they do.
class CommandLine {
 public:
  CommandLine();
  int run(const std::vector<std::string>& arguments, const Io& io);

 private:
  using Action = int (*)(Session&);
  CLI::App& verb(const std::string& name, const std::string& description, const std::string& example, Action action) {
    return verb(app_, name, description, example, action);
  }
  CLI::App& verb(CLI::App& parent, const std::string& name, const std::string& description, const std::string& example,
                 Action action);
  CLI::App& verbs(const std::string& name, const std::string& description);
  void add_config_verbs();
  void add_edit_verbs();
  void add_view_verbs();
  void add_drain_verbs();
  void add_trace_verbs();
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
  void add_fence(CLI::App& app) {
    app.add_option("--if-generation", options_.if_generation,
                   "only if no configuration came into force after this generation, as 1.9")
        ->type_name("GENERATION");
  }
  void add_force(CLI::App& app) {
    app.add_flag("--force", options_.force, "also if more than 10 % of the VIPs or of the targets would go");
  }

  // An option or argument that is one of these words.
  CLI::Option* one_of(CLI::Option* option, const std::vector<std::string>& words) {
    choices_[option] = words;
    return option->check(silent(CLI::IsMember(words)));
  }

  Options options_;
  Action action_ = nullptr;
  Choices choices_;
  std::string shell_;  // completion
  bool man_ = false;
  CLI::App app_{"Shows and changes what the load balancer does, through lb-cp.", "lbctl"};
};

// A verb of verbs: `target add`.
CLI::App& CommandLine::verbs(const std::string& name, const std::string& description) {
  CLI::App* app = app_.add_subcommand(name, description);
  app->require_subcommand(1);
  app->fallthrough();
  return *app;
}

CLI::App& CommandLine::verb(CLI::App& parent, const std::string& name, const std::string& description,
                            const std::string& example, Action action) {
  CLI::App* app = parent.add_subcommand(name, description);
  app->footer("Example:\n  " + example);
  app->fallthrough();
  app->callback([this, action] { action_ = action; });
  return *app;
}

CommandLine::CommandLine() {
  app_.require_subcommand(1);
  app_.footer("Example:\n  lbctl get targets blue -o wide\n\nExit codes: 0 done, 1 error, 2 differs (diff)");
  app_.set_version_flag("-V,--version", std::string("lbctl ") + LB_VERSION);
  one_of(app_.add_option("-o,--output", options_.output, "table, wide, json or yaml")->type_name("FORMAT"),
         {"table", "wide", "json", "yaml"});
  app_.add_flag_callback(
      "--json", [this] { options_.output = "json"; }, "the same as -o json");
  app_.add_option("--socket", options_.socket, "socket of lb-cp")
      ->type_name("PATH")
      ->default_str(kDefaultSocket)
      ->envname("LBCTL_SOCKET");
  app_.add_option("--timeout", options_.timeout_s, "how long to wait for an answer; apply: for the workers")
      ->type_name("SECONDS")
      ->default_str("5")
      ->check(silent(CLI::Range(0.01, 3600.0)));

  add_config_verbs();
  add_edit_verbs();
  add_view_verbs();
  add_drain_verbs();
}

void CommandLine::add_config_verbs() {
  CLI::App& apply = verb("apply", "Put a configuration in force: all of it, or on any error nothing",
                         "lbctl apply -f lb.yaml", [](Session& session) { return session.apply(); });
  add_file(apply);
  add_force(apply);
  add_fence(apply);
  add_file(verb("diff", "Show what apply would change; exit code 2 if there is anything", "lbctl diff -f lb.yaml",
                [](Session& session) { return session.diff(); }));
  add_watch(verb("history", "List the last 10 configurations that were applied; * is in force", "lbctl history",
                 [](Session& session) { return session.history(); }));
  add_file(verb("plan", "Show what apply would do: slots and flows that move, before anything is applied",
                "lbctl plan -f lb.yaml", [](Session& session) { return session.plan(); }));
  CLI::App& rollback = verb("rollback", "Put an earlier configuration in force again", "lbctl rollback 12",
                            [](Session& session) { return session.rollback(); });
  rollback.add_option("NUMBER", options_.number, "its number in lbctl history")->required();
  add_force(rollback);
  add_fence(rollback);
  verb("export", "Print the configuration in force as it was applied", "lbctl export > lb.yaml", [](Session& session) {
    return session.export_config();
  }).add_option("NUMBER", options_.number, "an earlier one, by its number in lbctl history");
}

void CommandLine::add_edit_verbs() {
  const auto add_target = [this](CLI::App& app) {
    app.add_option("GROUP", options_.target_group, "the target group's name")->required();
    app.add_option("TARGET", options_.target, "ADDRESS:PORT, [ADDRESS]:PORT for IPv6")->required();
    add_fence(app);
  };
  const auto add_weight = [this](CLI::App& app) {
    return app.add_option("--weight", options_.weight, "0-65535; 0: no new flows")->type_name("WEIGHT");
  };
  CLI::App& target = verbs("target", "Change one target of the configuration in force");
  CLI::App& added = verb(target, "add", "Add a target to a target group", "lbctl target add blue 10.77.2.9:80 --weight 2",
                         [](Session& session) { return session.edit_target(EditAction::add); });
  add_target(added);
  add_weight(added);
  CLI::App& set = verb(target, "set", "Give a target another weight", "lbctl target set blue 10.77.2.9:80 --weight 5",
                       [](Session& session) { return session.edit_target(EditAction::set); });
  add_target(set);
  add_weight(set)->required();
  add_target(verb(target, "remove", "Take a target out; its flows have the deregistration delay",
                  "lbctl target remove blue 10.77.2.9:80",
                  [](Session& session) { return session.edit_target(EditAction::remove); }));

  CLI::App& listener = verbs("listener", "Add a listener to the configuration in force, or remove one");
  CLI::App& listen = verb(listener, "add", "Add a listener to a VIP",
                          "lbctl listener add web-443 --vip web --protocol TCP --port 443 --target-groups blue:9,green:1",
                          [](Session& session) { return session.edit_listener(EditAction::add); });
  listen.add_option("NAME", options_.name, "its name")->required();
  listen.add_option("--vip", options_.vip, "the VIP's name")->required()->type_name("NAME");
  listen.add_option("--protocol", options_.protocol, "TCP, UDP or TCP_UDP")->required()->type_name("PROTOCOL");
  listen.add_option("--port", options_.port, "N, N-M or any")->required()->type_name("PORT");
  listen.add_option("--target-groups", options_.target_groups, "NAME or NAME:WEIGHT, several with commas")
      ->required()
      ->type_name("GROUPS");
  add_fence(listen);
  CLI::App& unlisten =
      verb(listener, "remove", "Take a listener out; its flows have the deregistration delay",
           "lbctl listener remove web-443", [](Session& session) { return session.edit_listener(EditAction::remove); });
  unlisten.add_option("NAME", options_.name, "its name")->required();
  add_fence(unlisten);
}

void CommandLine::add_view_verbs() {
  CLI::App& get = verb("get", "List objects with their state and counters", "lbctl get targets blue --watch",
                       [](Session& session) { return session.get(); });
  one_of(get.add_option("KIND", options_.what, "vips, listeners, target-groups, targets or workers")->required(),
         {"vips", "listeners", "target-groups", "targets", "workers"});
  get.add_option("NAME", options_.name, "only this one; for targets: the target group's name");
  add_watch(get);
  CLI::App& describe = verb("describe", "Show all about one object: state, parts, events, configuration",
                            "lbctl describe target-group blue", [](Session& session) { return session.describe(); });
  one_of(describe.add_option("KIND", options_.what, "vip, listener, target-group or target")->required(),
         {"vip", "listener", "target-group", "target"});
  describe.add_option("NAME", options_.name, "its name; for a target ADDRESS:PORT")->required();
  CLI::App& events = verb("events", "Show what happened: states, applies, drains, refusals, lb-dp", "lbctl events -w blue",
                          [](Session& session) { return session.events(); });
  events.add_option("TEXT", options_.text, "only of objects whose name contains it");
  events.add_flag("-w,--watch", options_.watch, "go on as they happen, until Ctrl-C");
  events.add_option("-n", options_.count, "at most the last COUNT")->type_name("COUNT");
  CLI::App& flows = verb("flows", "Count tracked flows by target and state, from the live flow tables",
                         "lbctl flows --target-group blue", [](Session& session) { return session.flows(); });
  flows.add_option("--listener", options_.listener, "only of target groups that it sends to")->type_name("NAME");
  flows.add_option("--target-group,--group", options_.target_group, "only of this one")->type_name("NAME");
  flows.add_option("--target", options_.target, "only on this one: ADDRESS:PORT")->type_name("TARGET");
  flows.add_option("--state", options_.state, "new, assumed, closing, reset, short, udp or udp-new")->type_name("STATE");
  flows.add_flag("--top", options_.top, "one by one, those that send most first: from the packets of a moment");
  flows.add_flag("--by-client", options_.by_client, "as --top, but a row for each client");
  flows.add_option("--client", options_.client, "as --top, of this address or prefix")->type_name("PREFIX");
  flows.add_option("--vip", options_.vip, "as --top, to this address or prefix")->type_name("PREFIX");
  flows.add_option("--protocol", options_.protocol, "as --top, TCP or UDP")->type_name("PROTOCOL");
  flows.add_option("--port", options_.port, "as --top, to this port")->type_name("PORT");
  flows.add_option("-n", options_.count, "as --top, at most COUNT rows (default 20)")->type_name("COUNT");
  flows.add_option("--sample", options_.sample_s, "as --top, how long packets are looked at (default 1)")
      ->type_name("SECONDS")
      ->check(silent(CLI::Range(0.1, 10.0)));
  add_watch(flows);
  CLI::App& offenders =
      verb("offenders", "Show the sources that are over a listener's rate limits, those with most packets refused first",
           "lbctl offenders --listener web-80", [](Session& session) { return session.offenders(); });
  offenders.add_option("--listener", options_.listener, "only of this one")->type_name("NAME");
  offenders.add_option("-n", options_.count, "rows (default 20)")->type_name("COUNT");
  add_watch(offenders);
  CLI::App& top = verb("top", "Show live rates of listeners, targets and workers, busiest first", "lbctl top --watch 2",
                       [](Session& session) { return session.top(); });
  top.add_option("-n", options_.count, "rows of each list (default 10)")->type_name("COUNT");
  add_watch(top);
  add_watch(verb("drops", "Show how many packets were dropped, by reason (-o wide: all reasons)", "lbctl drops --watch 2",
                 [](Session& session) { return session.drops(); }));
  CLI::App& why = verb("why", "Show where a flow, or each packet of a capture, would go, and why",
                       "lbctl why tcp 10.77.1.2 40000 192.0.2.10 80", [](Session& session) { return session.why(); });
  why.add_option("FLOW", options_.flow, "PROTOCOL SOURCE SOURCE-PORT DESTINATION DESTINATION-PORT")
      ->expected(5)
      ->type_name("");
  why.add_option("--pcap", options_.file, "the packets of this capture instead, in their order")->type_name("FILE");
  why.add_option("--cid", options_.connection_id, "the packet's QUIC connection ID, as hex digits")->type_name("HEX");
  why.add_option("--generation", options_.generation,
                 "by the configuration of then: a generation (1.9), or a number of the history")
      ->type_name("GENERATION");
  add_trace_verbs();
  verb("doctor", "Look at sockets, lb-dp, workers, targets and drops; exit code 1 if anything is bad", "lbctl doctor",
       [](Session& session) { return session.doctor(); });
  CLI::App& completion = verb("completion", "Print a completion script for a shell",
                              "lbctl completion bash > /etc/bash_completion.d/lbctl", nullptr);
  one_of(completion.add_option("SHELL", shell_, "bash, zsh or fish")->required(), {"bash", "zsh", "fish"});
  verb("man", "Print the man page, lbctl(1)", "lbctl man | man -l -", nullptr).callback([this] { man_ = true; });
  verb("version", "Show the versions of lbctl and lb-cp, and whether lb-dp is connected", "lbctl version",
       [](Session& session) { return session.version(); });
}

void CommandLine::add_trace_verbs() {
  const auto add_filter = [this](CLI::App& app) {
    app.add_option("--protocol", options_.protocol, "TCP or UDP")->type_name("PROTOCOL");
    app.add_option("--client", options_.client, "address or prefix of either end")->type_name("PREFIX");
    app.add_option("--vip", options_.vip, "address or prefix of either end")->type_name("PREFIX");
    app.add_option("--port", options_.port, "of either end")->type_name("PORT");
    one_of(app.add_option("--verdict", options_.verdict, "tx, punt or drop")->type_name("VERDICT"), {"tx", "punt", "drop"});
    app.add_option("--reason", options_.reason, "dropped for this one, as lbctl drops names it")->type_name("REASON");
    app.add_option("--rate", options_.rate, "at most so many packets a second from each worker (default 100)")
        ->type_name("COUNT");
    app.add_option("-n", options_.count, "end after COUNT packets")->type_name("COUNT");
  };
  add_filter(verb("trace", "Show packets as workers see them, each with its way through lb; until Ctrl-C",
                  "lbctl trace --client 198.51.100.7 --port 443 -n 20", [](Session& session) { return session.trace(); }));
  CLI::App& capture =
      verb("capture", "Write packets to a pcapng file, as they came and as they left; until Ctrl-C",
           "lbctl capture -w lb.pcapng --vip 192.0.2.10 -n 1000", [](Session& session) { return session.capture(); });
  capture.add_option("-w,--write", options_.file, "the file; - writes to standard output")->required()->type_name("FILE");
  capture.add_option("--bytes", options_.bytes, "of each side of a packet, at most 1984 (the default)")->type_name("BYTES");
  add_filter(capture);
}

void CommandLine::add_drain_verbs() {
  const auto add_targets = [this](CLI::App& app) {
    app.add_option("TARGET", options_.names, "ADDRESS:PORT, [ADDRESS]:PORT for IPv6; several are done one after the other")
        ->required();
    app.add_option("--group,--target-group", options_.target_group,
                   "only in this target group (default: in every one that has it)")
        ->type_name("NAME");
  };
  CLI::App& drain = verb("drain", "Give targets no new flows; those they have stay until the deregistration delay ends",
                         "lbctl drain 10.77.2.2:80 10.77.2.3:80 --group blue --wait",
                         [](Session& session) { return session.drain(true); });
  add_targets(drain);
  drain.add_option("--deadline", options_.deadline, "how long flows may stay: 90s, 10m, 1h; default: the group's delay")
      ->type_name("TIME");
  one_of(drain.add_option("--then", options_.then, "what becomes of flows then: leave, reset or rehash")->type_name("FATE"),
         {"leave", "reset", "rehash"});
  drain.add_flag("--wait", options_.wait_drained,
                 "until their flows have ended or the delay is over; tells how many are left");
  add_targets(verb("undrain", "Let drained targets take new flows again", "lbctl undrain 10.77.2.2:80",
                   [](Session& session) { return session.drain(false); }));
  verb("freeze", "Keep health from changing any target's weight, until unfreeze", "lbctl freeze --note 'switch replaced'",
       [](Session& session) { return session.freeze(true); })
      .add_option("--note", options_.note, "why, for others to read")
      ->type_name("TEXT");
  verb("unfreeze", "Let health change weights again", "lbctl unfreeze",
       [](Session& session) { return session.freeze(false); });
}

int CommandLine::run(const std::vector<std::string>& arguments, const Io& io) {
  try {
    app_.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::ParseError& error) {
    return app_.exit(error, io.out, io.err) == 0 ? kExitOk : kExitError;
  }
  if (!shell_.empty() || man_) {
    io.out << (man_ ? man_page(app_, LB_VERSION) : completion(app_, choices_, shell_));
    return kExitOk;
  }
  if (options_.socket.empty()) options_.socket = default_socket();
  Session session(options_, io);
  return action_(session);
}

}  // namespace

int run(const std::vector<std::string>& arguments, const Io& io) {
  return CommandLine().run(arguments, io);
}

}  // namespace lb::cli
