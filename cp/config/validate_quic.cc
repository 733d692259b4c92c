#include "cp/config/validate_quic.h"

#include <algorithm>
#include <array>
#include <map>
#include <string_view>

#include "proto/config.pb.h"

namespace lb::cp {
namespace {

constexpr std::size_t kMostServerIdBytes = 15;
constexpr std::uint32_t kMostBytes = 19;  // server ID and nonce: QUIC version 1 has 20 for a connection ID

// Calls `take` with each part of a list with commas.
template <typename Take>
void each_part(std::string_view text, Take take) {
  for (;;) {
    const std::size_t comma = text.find(',');
    take(text.substr(0, comma));
    if (comma == std::string_view::npos) return;
    text.remove_prefix(comma + 1);
  }
}

class QuicValidator {
 public:
  QuicValidator(const config::TargetGroup& file, const std::string& path, const Judgements& judgements, TargetGroup& group)
      : file_(file), path_(path), judge_(judgements), group_(group) {}

  void run() {
    if (!file_.has_quic()) return no_server_ids();
    if (group_.protocol == ListenerProtocol::tcp) violation(".quic", "needs protocol: UDP or TCP_UDP");
    if (group_.mode == abi::ForwardingMode::geneve) violation(".quic", "cannot be had with forwarding_mode: geneve");
    if (group_.algorithm == abi::Algorithm::per_packet) {
      violation(".attributes.algorithm",
                "per_packet cannot be had with quic: a connection's first packets name no target yet, and go by their flow");
    }
    for (int i = 0; i < file_.quic().configs_size(); ++i) one_config(i);
    std::ranges::sort(group_.quic, {}, &QuicConfig::id);
    for (int i = 0; i < file_.targets_size(); ++i) server_ids(i);
    unreached();
  }

 private:
  void violation(const std::string& field, std::string text) const { judge_.violation(path_ + field, std::move(text)); }

  void no_server_ids() const {
    for (int i = 0; i < file_.targets_size(); ++i) {
      if (!file_.targets(i).server_id().empty())
        violation(".targets[" + std::to_string(i) + "].server_id", "needs quic in its target group");
    }
  }

  void one_config(int index) {
    const config::QuicConfig& from = file_.quic().configs(index);
    const std::string field = ".quic.configs[" + std::to_string(index) + "]";
    QuicConfig config{.id = static_cast<std::uint8_t>(from.id()),
                      .key = std::nullopt,
                      .server_id_bytes = static_cast<std::uint8_t>(from.server_id_length()),
                      .nonce_bytes = static_cast<std::uint8_t>(from.nonce_length())};
    if (std::ranges::find(group_.quic, config.id, &QuicConfig::id) != group_.quic.end())
      violation(field + ".id", std::to_string(from.id()) + " is taken by an entry above");
    if (from.server_id_length() + from.nonce_length() > kMostBytes) {
      violation(field + ".nonce_length", "must be at most " + std::to_string(kMostBytes - from.server_id_length()) +
                                             " beside server_id_length " + std::to_string(from.server_id_length()) +
                                             ": a connection ID has 20 bytes at most");
    }
    if (!from.key().empty()) {
      const auto bytes = parse_hex(from.key());
      if (bytes && bytes->size() == config.key.emplace().size()) {
        std::ranges::copy(*bytes, config.key->begin());
      } else {
        violation(field + ".key", "must be 32 hex digits");
      }
    } else {
      judge_.warning(path_ + field + ".key",
                     "is left out: whoever sees a connection ID can tell which connections are on one target");
    }
    group_.quic.push_back(config);
  }

  bool is_length(std::size_t bytes) const {
    return std::ranges::any_of(group_.quic, [&](const QuicConfig& config) { return config.server_id_bytes == bytes; });
  }

  void server_ids(int index) {
    const config::Target& from = file_.targets(index);
    const std::string field = ".targets[" + std::to_string(index) + "].server_id";
    if (from.server_id().empty()) return;
    each_part(from.server_id(), [&](std::string_view part) {
      const auto bytes = parse_hex(part);
      if (!bytes || bytes->empty()) return;  // told already
      if (!is_length(bytes->size())) {
        violation(field, "'" + std::string(part) + "' has " + std::to_string(bytes->size()) +
                             " bytes, and no entry of quic.configs has that server_id_length");
      }
      const auto [known, is_new] = taken_.try_emplace(format_hex(*bytes), from.address());
      if (!is_new) violation(field, "'" + std::string(part) + "' is taken by target " + known->second + " above");
    });
  }

  // Targets that no connection ID of some config can name.
  void unreached() const {
    for (std::size_t i = 0; i < group_.targets.size(); ++i) {
      const Target& target = group_.targets[i];
      for (const QuicConfig& config : group_.quic) {
        bool named = false;
        if (!target.server_id.empty())
          each_part(target.server_id, [&](std::string_view part) { named |= part.size() == 2U * config.server_id_bytes; });
        if (named) continue;
        judge_.warning(path_ + ".targets", "target " + format_address(target.address) + " has no server_id of " +
                                               std::to_string(config.server_id_bytes) +
                                               " bytes: no connection ID of config " + std::to_string(config.id) +
                                               " leads to it");
        return;  // one is enough to make people look
      }
    }
  }

  const config::TargetGroup& file_;
  const std::string& path_;
  const Judgements& judge_;
  TargetGroup& group_;
  std::map<std::string, std::string> taken_;  // server ID: target
};

}  // namespace

std::string read_server_id(const std::string& text, const std::string& path, const Judgements& judgements) {
  if (text.empty()) return {};
  std::string result;
  std::array<bool, kMostServerIdBytes + 1> lengths{};
  bool good = true;
  each_part(text, [&](std::string_view part) {
    const auto bytes = parse_hex(part);
    if (!bytes || bytes->empty() || bytes->size() > kMostServerIdBytes || lengths[bytes->size()]) {
      good = false;
      return;
    }
    lengths[bytes->size()] = true;
    result += (result.empty() ? "" : ",") + format_hex(*bytes);
  });
  if (good) return result;
  judgements.violation(
      path,
      "must be hex digits of 1-15 bytes, as c4605e, or several of different lengths, as c4605e,0a01, not '" + text + "'");
  return {};
}

void validate_quic(const config::TargetGroup& file, const std::string& path, const Judgements& judgements,
                   TargetGroup& group) {
  QuicValidator(file, path, judgements, group).run();
}

std::string quic_clash(const std::vector<const TargetGroup*>& groups) {
  std::map<std::uint8_t, const TargetGroup*> owners;
  for (const TargetGroup* group : groups) {
    for (const QuicConfig& config : group->quic) {
      const auto [owner, is_new] = owners.try_emplace(config.id, group);
      if (is_new || owner->second == group) continue;
      return "'" + owner->second->name + "' and '" + group->name + "' both have a quic config " + std::to_string(config.id);
    }
  }
  return {};
}

}  // namespace lb::cp
