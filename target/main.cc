// lb-target: sets a target host up for lb's tunnels, and says what its set-up lacks.
#include <arpa/inet.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "target/check.h"
#include "target/decap.h"

namespace {

using namespace lb;
using namespace lb::target;

constexpr int kExitOk = 0;
constexpr int kExitError = 1;
constexpr int kExitMissing = 2;

constexpr std::string_view kCounterNames[] = {
#define X(name, text, help) text,
    LB_DECAP_COUNTERS(X)
#undef X
};
constexpr std::string_view kCounterHelp[] = {
#define X(name, text, help) help,
    LB_DECAP_COUNTERS(X)
#undef X
};

struct Options {
  std::string interface;
  std::string mode = "auto";
  std::string output = "table";
  std::string forwarding_mode = "ipip";
  std::uint32_t client_mtu_bytes = 1500;
  std::vector<std::uint16_t> gue_ports = {abi::kGuePort};
  std::vector<std::string> addresses;
  std::vector<std::string> vips;
};

bool parse_address(const std::string& text, abi::IpAddress& address) {
  address = abi::IpAddress::v4(0, 0, 0, 0);
  return inet_pton(AF_INET, text.c_str(), address.bytes.data() + 12) == 1 ||
         inet_pton(AF_INET6, text.c_str(), address.bytes.data()) == 1;
}

std::string address_error(const std::string& text) {
  abi::IpAddress ignored;
  return parse_address(text, ignored) ? std::string() : "'" + text + "' is not an IPv4 or IPv6 address";
}

// Those that address_error() has accepted.
std::vector<abi::IpAddress> to_addresses(const std::vector<std::string>& texts) {
  std::vector<abi::IpAddress> addresses(texts.size());
  for (std::size_t i = 0; i < texts.size(); ++i) parse_address(texts[i], addresses[i]);
  return addresses;
}

int fail(const std::string& error) {
  std::fprintf(stderr, "lb-target: %s\n", error.c_str());
  return kExitError;
}

int run_attach(const Options& options) {
  static const std::map<std::string, std::optional<Mode>> kModes = {
      {"auto", std::nullopt}, {"native", Mode::native}, {"generic", Mode::generic}, {"tc", Mode::tc}};
  const auto result = attach(options.interface, kModes.at(options.mode), to_addresses(options.addresses), options.gue_ports);
  if (!result) return fail(result.error());
  std::printf("%s: %s (%s), decapsulates for %zu addresses\n", options.interface.c_str(),
              result->was_attached ? "was attached" : "attached", std::string(to_string(result->mode)).c_str(),
              result->address_count);
  return kExitOk;
}

int run_detach(const Options& options) {
  const auto result = detach(options.interface);
  if (!result) return fail(result.error());
  std::printf("%s: %s\n", options.interface.c_str(), *result ? "detached" : "was not attached");
  return kExitOk;
}

int run_stats(const Options& options) {
  const auto result = status(options.interface);
  if (!result) return fail(result.error());
  if (!result->has_value()) return fail(options.interface + ": not attached: lb-target attach " + options.interface);
  const Status& status = **result;
  if (options.output == "json") {
    nlohmann::ordered_json json{{"interface", options.interface}, {"mode", to_string(status.mode)}};
    json["addresses"] = nlohmann::ordered_json::array();
    for (const auto& address : status.addresses) json["addresses"].push_back(to_text(address));
    json["gue_ports"] = status.gue_ports;
    for (std::size_t i = 0; i < status.counters.size(); ++i)
      json["counters"][std::string(kCounterNames[i])] = status.counters[i];
    std::printf("%s\n", json.dump(2).c_str());
    return kExitOk;
  }
  std::printf("%s: attached (%s)\n", options.interface.c_str(), std::string(to_string(status.mode)).c_str());
  for (const auto& address : status.addresses) std::printf("  for %s\n", to_text(address).c_str());
  for (const std::uint16_t port : status.gue_ports) std::printf("  GUE on UDP port %u\n", port);
  for (std::size_t i = 0; i < status.counters.size(); ++i) {
    std::printf("%12llu  %-11s %s\n", static_cast<unsigned long long>(status.counters[i]), kCounterNames[i].data(),
                kCounterHelp[i].data());
  }
  return kExitOk;
}

int run_check(const Options& options) {
  auto host = read_host(options.interface);
  if (!host) return fail(host.error());
  const auto attached = status(options.interface);
  if (!attached) return fail(attached.error());
  host->decap_attached = attached->has_value();
  static const std::map<std::string, abi::ForwardingMode> kModes = {{"ipip", abi::ForwardingMode::ipip},
                                                                    {"gue", abi::ForwardingMode::gue},
                                                                    {"gre", abi::ForwardingMode::gre},
                                                                    {"l2dsr", abi::ForwardingMode::l2dsr}};
  const auto mode = kModes.at(options.forwarding_mode);
  bool all_ok = true;
  for (const Finding& finding : check(*host, to_addresses(options.vips), mode, options.client_mtu_bytes)) {
    all_ok = all_ok && finding.ok;
    if (finding.ok) {
      std::printf("ok       %s\n", finding.what.c_str());
    } else {
      std::printf("missing  %s; run: %s\n", finding.what.c_str(), finding.command.c_str());
    }
  }
  return all_ok ? kExitOk : kExitMissing;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Sets a target host up for lb: takes packets out of lb's tunnels (IP in IP, GUE, GRE), and says what is missing."};
  app.set_version_flag("--version", std::string("lb-target " LB_VERSION));
  app.require_subcommand(1);
  app.footer("Exit codes: 0 ok, 1 error, 2 check found something missing.");
  Options options;
  const auto interface_of = [&](CLI::App* command) {
    command->add_option("IFACE", options.interface, "the interface that faces lb")->required();
    return command;
  };

  auto* attach_command = interface_of(app.add_subcommand("attach", "attach the decapsulation program; may be repeated"));
  attach_command->add_option("--mode", options.mode, "where: in the driver, in front of the stack, or as a classifier")
      ->check(CLI::IsMember({"auto", "native", "generic", "tc"}))
      ->capture_default_str();
  attach_command
      ->add_option("--address", options.addresses,
                   "outer destination to decapsulate, repeatable; default: the addresses of IFACE")
      ->check(address_error);
  attach_command->add_option("--gue-port", options.gue_ports, "UDP port on which GUE packets come, repeatable")
      ->check(CLI::Range(1, 65535))
      ->capture_default_str();
  auto* detach_command = interface_of(app.add_subcommand("detach", "detach it; its counters are lost"));
  auto* stats_command = interface_of(app.add_subcommand("stats", "what it decapsulates for, and its counters"));
  stats_command->add_option("-o", options.output, "output")->check(CLI::IsMember({"table", "json"}))->capture_default_str();
  auto* check_command =
      interface_of(app.add_subcommand("check", "what this host lacks to be a target, and the commands that mend it"));
  check_command->add_option("--vip", options.vips, "a VIP this host serves, repeatable")->required()->check(address_error);
  check_command->add_option("--forwarding-mode", options.forwarding_mode, "of its target group")
      ->check(CLI::IsMember({"ipip", "gue", "gre", "l2dsr"}))
      ->capture_default_str();
  check_command->add_option("--client-mtu", options.client_mtu_bytes, "bytes of the largest packet clients send")
      ->check(CLI::Range(576, 65535))
      ->capture_default_str();

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitError;
  }
  if (attach_command->parsed()) return run_attach(options);
  if (detach_command->parsed()) return run_detach(options);
  if (stats_command->parsed()) return run_stats(options);
  return run_check(options);
}
