// Which target a QUIC datagram's connection ID names (draft-ietf-quic-load-balancers-21, sections 4 and 5). Stateless: every
// worker, node and lb-replay reads the same, so a client may change its address, port and worker and keeps its target. All
// versions of QUIC: nothing but what RFC 8999 says of a header is read.
//
//   datagram ── destination_cid ──▶ connection ID ── first octet ──▶ config ── AES ──▶ server ID ──▶ target in use?
//                                                                                     no, at any step: "unroutable", and
//                                                                                     the packet goes by its flow or hash
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "dp/abi/quic.h"
#include "dp/lb/snapshot.h"
#include "dp/net/parse.h"

namespace lb {

struct Work;

enum class CidResult : std::uint8_t {
  routed,       // `target` is in use
  none,         // no QUIC header, or no connection ID in it
  no_config,    // its first octet names no config of the listener
  too_short,    // for the config it names
  no_server,    // no target has this server ID
  target_gone,  // the target's tracked flows are not to stay with it
};

struct CidRoute {
  CidResult result = CidResult::none;
  std::uint32_t config = abi::kNoIndex;  // into snapshot.quic().configs
  abi::QuicServerId server_id{};         // from no_server on
  std::uint32_t target = abi::kNoIndex;  // id; from target_gone on
};

// The destination connection ID of a UDP payload. A short header does not tell its length: all that follows the first byte.
// Empty: there is none.
[[nodiscard]] std::span<const std::uint8_t> destination_cid(std::span<const std::uint8_t> datagram);

// What a UDP packet carries. The frame holds the whole packet.
[[nodiscard]] std::span<const std::uint8_t> udp_payload(const std::uint8_t* frame, const net::ParsedPacket& packet);

// The server ID in a connection ID, of which `octets` are those behind the first one: at least server ID and nonce. AES
// instructions are used where the CPU has them.
[[nodiscard]] abi::QuicServerId server_id_of(const abi::QuicConfig& config,
                                             const std::array<std::array<std::uint8_t, 16>, 11>& round_keys,
                                             const std::uint8_t* octets);
// The same without AES instructions.
[[nodiscard]] abi::QuicServerId server_id_portable(const abi::QuicConfig& config,
                                                   const std::array<std::array<std::uint8_t, 16>, 11>& round_keys,
                                                   const std::uint8_t* octets);

// `listener` has_quic.
[[nodiscard]] CidRoute route_by_cid(const Snapshot& snapshot, const abi::Listener& listener,
                                    std::span<const std::uint8_t> cid);

// The target that packet i of the burst is for by its connection ID, counted; abi::kNoIndex: it is unroutable. The packet is
// UDP, for a listener that has_quic, and not rewritten yet.
std::uint32_t target_by_cid(Work& work, std::uint32_t i);

}  // namespace lb
