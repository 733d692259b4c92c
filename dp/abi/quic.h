// QUIC connection IDs that name their server (draft-ietf-quic-load-balancers-21), as tables of the snapshot's root.
//
//   connection ID     ┌─────────────┬───────────┬───────────┬───────────────────┐
//                     │ first octet │ server ID │ nonce     │ the server's own  │
//                     └─────────────┴───────────┴───────────┴───────────────────┘
//                      id of the config: the upper three bits; with a key, server ID and nonce are encrypted as one
//
//   Listener::quic ──▶ QuicMap [config id] ──▶ QuicConfig ──▶ QuicServer[], by server ID ──▶ target id
//
// Writer: lb-cp (cp/snapshot/quic_tables.h). Readers: lb-dp, which verifies every index (dp/lb/snapshot_quic.h) and expands
// the keys; `why` and lb-replay. Keys are secrets: a snapshot lies in memfds and in files that only root may read.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace lb::abi {

inline constexpr std::uint32_t kQuicConfigIds = 7;  // 0…6; 7 stands for a connection ID that no config made
inline constexpr std::size_t kQuicKeyBytes = 16;    // AES-128
inline constexpr std::uint32_t kMinQuicServerIdBytes = 1;
inline constexpr std::uint32_t kMinQuicNonceBytes = 4;
inline constexpr std::uint32_t kMaxQuicIdBytes = 19;  // server ID and nonce: QUIC version 1 has 20 bytes for all of it
inline constexpr std::uint32_t kMaxQuicServerIdBytes = kMaxQuicIdBytes - kMinQuicNonceBytes;
inline constexpr std::uint32_t kQuicSinglePassBytes = 16;  // server ID and nonce of one AES block; else four passes

using QuicServerId = std::array<std::uint8_t, 16>;  // zeros behind its bytes

// A listener's configs by their ids: indices into quic_configs, of its target groups; no_config: it has none of that id.
struct QuicMap {
  static constexpr std::uint32_t no_config = 0xffffffff;
  std::array<std::uint32_t, kQuicConfigIds> config{no_config, no_config, no_config, no_config,
                                                   no_config, no_config, no_config};
};
static_assert(sizeof(QuicMap) == 28);

// One way in which a target group's servers make their connection IDs.
struct QuicConfig {
  std::uint32_t group = 0;         // into groups
  std::uint32_t first_server = 0;  // into quic_servers
  std::uint32_t server_count = 0;
  std::uint8_t config_id = 0;        // below kQuicConfigIds
  std::uint8_t server_id_bytes = 0;  // kMinQuicServerIdBytes…kMaxQuicServerIdBytes
  std::uint8_t nonce_bytes = 0;      // at least kMinQuicNonceBytes; with the server ID at most kMaxQuicIdBytes
  std::uint8_t keyed = 0;            // 1: encrypted with `key`
  std::array<std::uint8_t, kQuicKeyBytes> key{};
};
static_assert(sizeof(QuicConfig) == 32);

struct QuicServer {
  QuicServerId server_id{};
  std::uint32_t target = 0;  // id
};
static_assert(sizeof(QuicServer) == 20);

}  // namespace lb::abi
