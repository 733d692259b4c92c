// lb-cp: command line, signals, and the order in which things start and end.
#include <pthread.h>
#include <signal.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

#include "cp/api/server.h"
#include "cp/config/load.h"
#include "cp/config/schema.h"
#include "cp/control/confine.h"
#include "cp/control/controller.h"
#include "cp/stats/metrics.h"
#include "dp/base/notify.h"

namespace lb::cp {
namespace {

struct Flags {
  ControllerOptions controller;
  ApiOptions api;
  std::string view_socket;  // empty: beside the other one
  std::string metrics = "127.0.0.1:9700";
  bool check = false;
  bool schema = false;
  bool verbose = false;
};

// --check: 0 if the file can be applied, 1 if not. Violations and warnings as FILE:LINE: FIELD: TEXT.
int check(const std::string& file) {
  std::ifstream stream(file);
  if (!stream) {
    std::cerr << file << ":0: cannot be read\n";
    return 1;
  }
  std::ostringstream text;
  text << stream.rdbuf();
  const LoadResult result = load(text.str(), file);
  std::cerr << to_text(result.violations);
  for (const Violation& warning : result.warnings)
    std::cerr << to_text({{warning.file, warning.line, warning.field, "warning: " + warning.text}});
  if (result.config) std::cout << file << ": ok\n";
  return result.config ? 0 : 1;
}

// A probe in flight and a scrape are a descriptor each.
void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int fail(const std::string& text) {
  std::cerr << "lb-cp: " << text << (text.ends_with('\n') ? "" : "\n");
  return 1;
}

// /run/lb/cp.sock has /run/lb/cp-view.sock beside it.
std::string view_socket(const Flags& flags) {
  if (flags.view_socket == "off") return "";
  if (!flags.view_socket.empty()) return flags.view_socket;
  const std::filesystem::path admin = flags.api.socket_path;
  return admin.parent_path() / (admin.stem().string() + "-view" + admin.extension().string());
}

int run(const Flags& flags) {
  raise_descriptor_limit();
  const auto filtered = filter_system_calls();  // before any thread: all of them inherit it
  if (!filtered) return fail(filtered.error());
  if (geteuid() == 0) spdlog::warn("lb-cp runs as root, which it does not need: configs/lb-cp.service");
  spdlog::info("confined: user {}, system calls {}", geteuid(), *filtered ? "filtered" : "not filtered in this build");
  signal(SIGPIPE, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, number);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // before any thread: all of them inherit it

  auto controller = Controller::open(flags.controller);
  if (!controller) return fail(controller.error());
  (*controller)->start();
  std::unique_ptr<MetricsServer> metrics;
  if (flags.metrics != "off") {
    auto opened = MetricsServer::open(flags.metrics, [&] { return (*controller)->metrics(); });
    if (!opened) return fail(opened.error());
    metrics = std::move(*opened);
  }
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(flags.api.socket_path).parent_path(), ignored);
  if (!flags.api.view_socket_path.empty())
    std::filesystem::create_directories(std::filesystem::path(flags.api.view_socket_path).parent_path(), ignored);
  ApiServer api(**controller, flags.api);
  if (auto started = api.start(); !started) {
    metrics.reset();
    return fail(started.error());
  }
  spdlog::info("lb-cp {} is ready: API {}, lb-dp {}, state {}, metrics {}", LB_VERSION, flags.api.socket_path,
               flags.controller.data_plane_socket, flags.controller.state_directory, flags.metrics);
  notify_manager("READY=1");
  for (int number = 0; number != SIGTERM && number != SIGINT;) {
    if (sigwait(&signals, &number) != 0) continue;
    if (number == SIGHUP) (*controller)->reload();
  }
  notify_manager("STOPPING=1");
  spdlog::info("lb-cp ends; lb-dp goes on forwarding by what it has");
  api.stop();
  metrics.reset();
  (*controller)->stop();
  return 0;
}

}  // namespace
}  // namespace lb::cp

int main(int argc, char** argv) {
  lb::cp::Flags flags;
  CLI::App app(
      "lb-cp: the control plane of lb. It owns the configuration, health, drain, routes and neighbours, and tells lb-dp "
      "what to do.");
  app.add_option("--config", flags.controller.config_file,
                 "configuration to apply at start and on SIGHUP (examples: configs/); without it the one in force when "
                 "lb-cp ended");
  app.add_option("--state-dir", flags.controller.state_directory, "where configuration, ids, states and drains are kept")
      ->capture_default_str();
  app.add_option("--socket,--api-socket", flags.api.socket_path, "Unix socket for lbctl, admin: everything")
      ->capture_default_str();
  app.add_option("--api-group", flags.api.group, "group that may use it beside the owner");
  app.add_option("--view-socket", flags.view_socket,
                 "Unix socket for lbctl, view: what changes nothing; default NAME-view.sock beside NAME.sock; or off");
  app.add_option("--view-group", flags.api.view_group, "group that may use it beside the owner");
  app.add_option("--dp-socket", flags.controller.data_plane_socket, "lb-dp's control socket")->capture_default_str();
  app.add_option("--metrics", flags.metrics, "ADDRESS:PORT for Prometheus, or off")->capture_default_str();
  app.add_flag("--check", flags.check, "check --config and exit: 0 if it can be applied, 1 if not");
  app.add_flag("--schema", flags.schema, "print the JSON Schema of the configuration, for editors, and exit");
  app.add_flag("--verbose", flags.verbose, "log more");
  app.set_version_flag("--version", "lb-cp " LB_VERSION);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  spdlog::set_default_logger(spdlog::stderr_color_mt("lb-cp"));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");
  spdlog::flush_on(spdlog::level::info);
  if (flags.verbose) spdlog::set_level(spdlog::level::debug);
  if (flags.schema) {
    std::cout << lb::cp::config_schema();
    return 0;
  }
  if (flags.check) {
    if (flags.controller.config_file.empty()) return lb::cp::fail("--check needs --config FILE");
    return lb::cp::check(flags.controller.config_file);
  }
  flags.api.view_socket_path = lb::cp::view_socket(flags);
  return lb::cp::run(flags);
}
