// lb-dp: the data plane's process. Exit codes: 0 ended by a signal, or --check found nothing, or `upgrade` has taken over; 1
// could not start or go on; 2 wrong arguments or config.
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <functional>
#include <string>

#include "dp/io/config.h"
#include "dp/io/eal.h"
#include "dp/io/fd.h"
#include "dp/lb/dispatch.h"
#include "dp/worker/data_plane.h"
#include "dp/worker/hand_over.h"

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
  ::sigaddset(&signals, lb::worker::kHandOverSignal);
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  return lb::io::Fd(::signalfd(-1, &signals, SFD_CLOEXEC));
}

using lb::worker::DataPlane;

// The way an lb-dp comes to its work, up to DataPlane::serve().
using Begin = std::function<tl::expected<void, std::string>(DataPlane&)>;

int run(const lb::io::DpConfig& config, const Begin& begin, const DataPlane::Hooks& hooks) {
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
  DataPlane data_plane(config);
  const auto served = begin(data_plane).and_then([&] { return data_plane.serve(signals.get(), hooks); });
  if (!served) {
    spdlog::critical("{}", served.error());
    return kExitFailure;
  }
  spdlog::info("{} ends", config.name);
  return 0;
}

int run(const lb::io::DpConfig& config) {
  return run(config,
             [](DataPlane& data_plane) {
               return data_plane.lock({}).and_then([&] { return data_plane.prepare(); }).and_then([&] {
                 return data_plane.start();
               });
             },
             {});
}

// The part of `upgrade` that goes on as lb-dp; `told` hears when it serves.
int take_over(const lb::io::DpConfig& config, pid_t old, const lb::io::Fd& told) {
  using Clock = std::chrono::steady_clock;
  std::uint64_t dropped = 0;
  Clock::time_point asked;
  std::string result;
  const auto ask = [&](DataPlane& data_plane) {
    dropped = lb::worker::dropped_without_socket(config);
    asked = Clock::now();
    return lb::worker::ask_to_hand_over(old).and_then([&] { return data_plane.lock(lb::worker::kHandOverPatience); });
  };
  const auto begin = [&](DataPlane& data_plane) {
    // Other drivers hold their devices from the start of EAL on.
    const bool early = std::ranges::all_of(config.ports, [](const auto& p) { return p.driver == lb::io::Driver::af_xdp; });
    auto ready = early ? data_plane.prepare() : tl::expected<void, std::string>{};
    return ready.and_then([&] { return ask(data_plane); })
        .and_then([&] { return early ? tl::expected<void, std::string>{} : data_plane.prepare(); })
        .and_then([&] { return data_plane.start(); });
  };
  DataPlane::Hooks hooks;
  hooks.on_ready = [&] {
    const std::string line = result + "\n";
    if (::write(told.get(), line.data(), line.size()) < 0) spdlog::warn("nobody waits for the upgrade's end");
  };
  return run(
      config,
      [&](DataPlane& data_plane) {
        hooks.on_work = [&] {
          result = fmt::format(
              "process {} has taken over from {}: no worker ran for {} ms, {} packets were dropped meanwhile", ::getpid(),
              old, std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - asked).count(),
              data_plane.dropped_without_socket() - dropped);
          spdlog::info("{}", result);
        };
        return begin(data_plane);
      },
      hooks);
}

// Ends when the new lb-dp, a child of its own, serves, or has failed.
int upgrade(const lb::io::DpConfig& config) {
  const auto old = lb::worker::running_lb_dp(config.control_socket);
  const auto fits = old ? lb::worker::can_take_over(config) : tl::unexpected(old.error());
  if (!fits) {
    fmt::print(stderr, "lb-dp upgrade: {}\n", fits.error());
    return kExitFailure;
  }
  lb::worker::take_environment_of(*old);
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return kExitFailure;
  lb::io::Fd read_end(ends[0]);
  lb::io::Fd write_end(ends[1]);
  const pid_t child = ::fork();
  if (child == 0) {
    read_end = lb::io::Fd{};
    ::setsid();
    ::dup2(STDERR_FILENO, STDOUT_FILENO);  // whoever reads our result sees its end
    return take_over(config, *old, write_end);
  }
  write_end = lb::io::Fd{};
  std::array<char, 512> line{};
  const ssize_t length = child < 0 ? 0 : ::read(read_end.get(), line.data(), line.size());
  if (length <= 0) {
    fmt::print(stderr, "lb-dp upgrade: the new lb-dp could not take over: see its log\n");
    return kExitFailure;
  }
  fmt::print("{}", std::string_view(line.data(), static_cast<std::size_t>(length)));
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
  CLI::App* upgrades =
      app.add_subcommand("upgrade", "take over from the lb-dp that runs, flows and all, and go on in the background")
          ->fallthrough();
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
  return upgrades->parsed() ? upgrade(*config) : run(*config);
}
