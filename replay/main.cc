// lb-replay: a capture in, what lb would have sent out, and why.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cstdio>
#include <exception>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "replay/replay.h"
#include "replay/toeplitz.h"

namespace lb::replay {
namespace {

// 1-32 hex digits, a number of at most 128 bits.
std::optional<NodeSecret> parse_secret(const std::string& text) {
  if (text.empty() || text.size() > 32) return std::nullopt;
  if (!std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isxdigit(c) != 0; })) return std::nullopt;
  const std::string digits = std::string(32 - text.size(), '0') + text;
  NodeSecret secret{};
  for (std::size_t i = 0; i < secret.size(); ++i) {
    secret[i] = static_cast<std::uint8_t>(std::stoul(digits.substr(2 * i, 2), nullptr, 16));
  }
  return secret;
}

int main(int argc, char** argv) {
  Options options;
  std::string secret;
  std::vector<std::string> unhealthy;
  bool summary = false;
  CLI::App app{"Runs a capture through lb's packet path with a configuration; needs no root and no hugepages."};
  app.set_version_flag("--version", "lb-replay " LB_VERSION);
  app.add_option("--config", options.config_file, "configuration, as lb-cp's (lb.yaml)")->required();
  app.add_option("--in", options.in_file, "capture to read: pcap or pcapng of Ethernet frames")->required();
  app.add_option("--out", options.out_file, "capture to write: every frame lb emits, in order")->required();
  app.add_option("--json", options.json_file, "verdicts to write, one line of JSON for each packet");
  app.add_option("--events", options.events_file,
                 "YAML list of {at: SECONDS, apply: FILE} or {at: SECONDS, drain|undrain|healthy|unhealthy: ADDR:PORT}");
  app.add_option("--unhealthy", unhealthy, "target ADDR:PORT whose health checks fail; the others are healthy");
  app.add_option("--workers", options.workers, "workers to spread flows over, as receive-side scaling does")
      ->check(CLI::Range(1U, kMaxWorkers))
      ->capture_default_str();
  app.add_option("--secret", secret, "node secret of the flow table's hash, up to 32 hex digits; fixed by default");
  app.add_option("--mtu", options.mtu_bytes, "MTU towards every target, bytes")
      ->check(CLI::Range(1280U, 65535U))
      ->capture_default_str();
  app.add_option("--flows", options.flows_per_worker, "flows each worker's table holds")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1} << 28))
      ->capture_default_str();
  app.add_flag("--summary", summary, "print the counters at the end");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 1;
  }

  std::vector<std::string> errors;
  if (!secret.empty()) {
    const auto parsed = parse_secret(secret);
    if (!parsed) errors.push_back("--secret " + secret + ": must be 1 to 32 hex digits");
    options.secret = parsed.value_or(kDefaultSecret);
  }
  for (const std::string& text : unhealthy) {
    const auto target = cp::parse_address_port(text);
    if (!target) errors.push_back("--unhealthy " + text + ": must be ADDRESS:PORT");
    if (target) options.unhealthy.insert({target->address, target->port});
  }
  if (errors.empty()) {
    auto result = run(options);
    if (result) {
      for (const std::string& warning : result->warnings) std::cerr << "lb-replay: warning: " << warning << '\n';
      if (summary) print_summary(*result, std::cout);
      return std::cout.flush() ? 0 : 1;
    }
    errors = std::move(result.error());
  }
  for (const std::string& error : errors) std::cerr << "lb-replay: " << error << '\n';
  return 1;
}

}  // namespace
}  // namespace lb::replay

int main(int argc, char** argv) {
  try {
    return lb::replay::main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "lb-replay: %s\n", error.what());
    return 1;
  }
}
