#include "cp/snapshot/quic_tables.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string_view>

namespace lb::cp {
namespace {

// Of the server IDs of a target the one of so many bytes.
std::optional<abi::QuicServerId> server_id_of(std::string_view text, std::size_t bytes) {
  while (!text.empty()) {
    const std::string_view part = text.substr(0, text.find(','));
    text.remove_prefix(std::min(part.size() + 1, text.size()));
    if (part.size() != 2 * bytes) continue;
    const auto octets = parse_hex(part);
    if (!octets || octets->size() > abi::kMaxQuicServerIdBytes) return std::nullopt;
    abi::QuicServerId id{};
    std::ranges::copy(*octets, id.begin());
    return id;
  }
  return std::nullopt;
}

}  // namespace

void QuicTables::add_group(std::uint32_t group, const GroupInput& input) {
  if (input.config.quic.empty()) return;
  of_group_[group] = {static_cast<std::uint32_t>(configs_.size()), static_cast<std::uint32_t>(input.config.quic.size())};
  for (const QuicConfig& from : input.config.quic) {
    std::map<abi::QuicServerId, const TargetInput*> servers;
    for (const TargetInput& target : input.targets) {
      const auto id = server_id_of(target.server_id, from.server_id_bytes);
      if (!id) continue;
      const auto [known, is_new] = servers.try_emplace(*id, &target);
      if (!is_new && known->second->weight == 0) known->second = &target;
    }
    configs_.push_back({.group = group,
                        .first_server = static_cast<std::uint32_t>(servers_.size()),
                        .server_count = static_cast<std::uint32_t>(servers.size()),
                        .config_id = from.id,
                        .server_id_bytes = from.server_id_bytes,
                        .nonce_bytes = from.nonce_bytes,
                        .keyed = static_cast<std::uint8_t>(from.key ? 1 : 0),
                        .key = from.key.value_or(std::array<std::uint8_t, abi::kQuicKeyBytes>{})});
    for (const auto& [id, target] : servers) servers_.push_back({id, target->id});
  }
}

void QuicTables::add_to(abi::Listener& listener, std::uint32_t group) {
  const auto configs = of_group_.find(group);
  if (configs == of_group_.end()) return;
  const auto [first, count] = configs->second;
  if (listener.has_quic == 0) {
    listener.has_quic = 1;
    listener.quic = static_cast<std::uint32_t>(maps_.size());
    maps_.emplace_back();
  }
  for (std::uint32_t i = first; i < first + count; ++i) {
    std::uint32_t& at = maps_[listener.quic].config[configs_[i].config_id];
    if (at == abi::kNoIndex) at = i;
  }
}

}  // namespace lb::cp
