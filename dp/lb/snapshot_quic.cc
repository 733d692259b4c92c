#include "dp/lb/snapshot_quic.h"

#include "dp/lb/aes_portable.h"
#include "dp/lb/snapshot_checks.h"

namespace lb {
namespace {

Check check_config(const QuicView& view, std::size_t index, const Snapshot& snapshot) {
  const abi::QuicConfig& config = view.configs[index];
  const std::uint32_t bytes = std::uint32_t{config.server_id_bytes} + config.nonce_bytes;
  if (config.config_id >= abi::kQuicConfigIds || config.server_id_bytes < abi::kMinQuicServerIdBytes ||
      config.nonce_bytes < abi::kMinQuicNonceBytes || bytes > abi::kMaxQuicIdBytes || config.keyed > 1) {
    return refuse(kBounds, "quic_configs[%zu]: id %u, server ID of %u bytes, nonce of %u, keyed %u", index, config.config_id,
                  config.server_id_bytes, config.nonce_bytes, config.keyed);
  }
  if (config.group >= snapshot.groups().size())
    return refuse(kBounds, "quic_configs[%zu]: group %u of %zu", index, config.group, snapshot.groups().size());
  if (config.first_server > view.servers.size() || config.server_count > view.servers.size() - config.first_server) {
    return refuse(kBounds, "quic_configs[%zu]: %u servers at %u of %zu", index, config.server_count, config.first_server,
                  view.servers.size());
  }
  for (std::uint32_t i = 0; i < config.server_count; ++i) {
    const std::uint32_t at = config.first_server + i;
    if (view.servers[at].target >= snapshot.targets().size())
      return refuse(kBounds, "quic_servers[%u]: target %u of %zu", at, view.servers[at].target, snapshot.targets().size());
    if (i > 0 && view.servers[at].server_id <= view.servers[at - 1].server_id)
      return refuse(kBounds, "quic_servers[%u]: not above the server ID before it", at);
  }
  return {};
}

Check check_map(const QuicView& view, std::size_t index) {
  for (std::uint32_t id = 0; id < abi::kQuicConfigIds; ++id) {
    const std::uint32_t config = view.maps[index].config[id];
    if (config == abi::QuicMap::no_config) continue;
    if (config >= view.configs.size() || view.configs[config].config_id != id)
      return refuse(kBounds, "quic_maps[%zu]: config %u of %zu for id %u", index, config, view.configs.size(), id);
  }
  return {};
}

Check check_listener(const QuicView& view, const abi::Listener& listener, std::size_t index) {
  if (listener.has_quic == 0) return {};
  const bool udp = listener.protocol == static_cast<std::uint8_t>(abi::Protocol::udp);
  if (listener.has_quic == 1 && udp && listener.quic < view.maps.size()) return {};
  return refuse(kBounds, "listeners[%zu]: has_quic %u, protocol %u, map %u of %zu", index, listener.has_quic,
                listener.protocol, listener.quic, view.maps.size());
}

}  // namespace

tl::expected<void, SnapshotError> verify_quic(std::span<const std::byte> root, const Snapshot& snapshot, QuicView& view) {
  constexpr std::uint64_t kMostConfigs = std::uint64_t{abi::kMaxGroups} * abi::kQuicConfigIds;
  const auto maps = table_of<abi::QuicMap>(root, snapshot.root().quic_maps, abi::kMaxListeners, "quic_maps");
  if (!maps) return tl::unexpected(maps.error());
  const auto configs = table_of<abi::QuicConfig>(root, snapshot.root().quic_configs, kMostConfigs, "quic_configs");
  if (!configs) return tl::unexpected(configs.error());
  const auto servers = table_of<abi::QuicServer>(root, snapshot.root().quic_servers, 1U << 24, "quic_servers");
  if (!servers) return tl::unexpected(servers.error());
  view.maps = *maps;
  view.configs = *configs;
  view.servers = *servers;
  for (std::size_t i = 0; i < view.configs.size(); ++i) {
    if (auto ok = check_config(view, i, snapshot); !ok) return ok;
  }
  for (std::size_t i = 0; i < view.maps.size(); ++i) {
    if (auto ok = check_map(view, i); !ok) return ok;
  }
  for (std::size_t i = 0; i < snapshot.listeners().size(); ++i) {
    if (auto ok = check_listener(view, snapshot.listeners()[i], i); !ok) return ok;
  }
  view.round_keys.reserve(view.configs.size());
  for (const abi::QuicConfig& config : view.configs) view.round_keys.push_back(aes::expand_key(config.key));
  return {};
}

}  // namespace lb
