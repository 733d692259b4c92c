// lb-dp: the data plane's process. Exit codes: 0 ended by SIGTERM or SIGINT, or --check found nothing; 1 could not start or
// go on; 2 wrong arguments or config.
#include <fmt/format.h>
#include <signal.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/signalfd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <string>

#include "dp/io/config.h"
#include "dp/io/eal.h"
#include "dp/io/fd.h"
#include "dp/lb/dispatch.h"
#include "dp/worker/data_plane.h"

namespace {

constexpr int kExitFailure = 1;
constexpr int kExitConfig = 2;

int complain(const std::vector<std::string>& errors) {
  for (const std::string& error : errors) fmt::print(stderr, "{}\n", error);
  return errors.empty() ? 0 : kExitConfig;
}

// Blocks the signals that end lb-dp in every thread that is yet to come, and makes them readable.
lb::io::Fd end_signals() {
  sigset_t signals;
  ::sigemptyset(&signals);
  ::sigaddset(&signals, SIGTERM);
  ::sigaddset(&signals, SIGINT);
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  return lb::io::Fd(::signalfd(-1, &signals, SFD_CLOEXEC));
}

int run(const lb::io::DpConfig& config) {
  const auto& kernel = lb::chosen_kernel();
  if (!kernel) {
    spdlog::critical("{}", kernel.error());
    return kExitConfig;
  }
  spdlog::info("{}: lb-dp {}, packet path built for x86-64-{}", config.name, LB_VERSION, (*kernel)->name);
  const lb::io::Fd signals = end_signals();
  if (!signals) {
    spdlog::critical("signalfd: {}", std::strerror(errno));
    return kExitFailure;
  }
  lb::worker::DataPlane data_plane(config);
  if (auto r = data_plane.start(); !r) {
    spdlog::critical("{}", r.error());
    return kExitFailure;
  }
  if (auto r = data_plane.serve(signals.get()); !r) {
    spdlog::critical("{}", r.error());
    return kExitFailure;
  }
  spdlog::info("{} ends", config.name);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("lb-dp, the data plane of lb: forwards packets by the snapshots that lb-cp publishes");
  std::string config_file;
  bool check = false;
  app.set_version_flag("--version", "lb-dp " LB_VERSION);
  app.add_option("--config", config_file, "configuration of this machine's data plane (YAML)")
      ->required()
      ->type_name("FILE");
  app.add_flag("--check", check, "check the configuration and the machine, and exit");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : kExitConfig;
  }

  auto logger = spdlog::stderr_logger_mt("lb-dp");
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%l%$ %v");
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));

  const auto config = lb::io::load_config(config_file);
  if (!config) return complain(config.error());
  if (const int code = complain(lb::io::check_machine(*config)); code != 0) return code;
  if (check) {
    fmt::print("{}: ok\n", config_file);
    return 0;
  }
  return run(*config);
}
