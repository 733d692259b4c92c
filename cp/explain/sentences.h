// What an answer of `why` says about one stage, in words: of tables and headers alone, without the flow's story.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "dp/abi/region.h"
#include "dp/lb/explain_flow.h"
#include "dp/lb/quic_route.h"
#include "dp/lb/snapshot.h"
#include "dp/net/flow_key.h"

namespace lb::cp::explain {

// "TCP 192.0.2.10:80 → listener web-80 of VIP web". `listener`: index, abi::kNoIndex: none takes the packet.
std::string listener_text(const lb::Snapshot& snapshot, std::uint32_t listener, const net::FlowKey& key);

// Which rule spoke: "security group office: rule 17, deny 203.0.113.0/24 TCP 80-443". `listener`: of one that has a security
// group. `rule`: index into snapshot.security().rules, abi::kNoIndex: none did.
std::string security_text(const lb::Snapshot& snapshot, std::uint32_t listener, std::uint32_t rule);

// "config 2 (single-pass AES), server ID c4605e → 10.77.2.2:443". `target`: the label of route.target.
std::string connection_id_text(const lb::Snapshot& snapshot, const CidRoute& route,
                               std::span<const std::uint8_t> connection_id, const std::string& target);

// "203.0.113.7:40000 is 10.77.2.1:1024 towards 10.77.2.2:80, established".
std::string translation_text(const abi::Translation& flow);

// How fullnat tells a target who its client is: a sentence's last part, or empty.
std::string client_address_text(abi::ClientAddress how);

// Tunnel modes: the outer header of decision's packet to that target.
std::string outer_header_text(const FlowDecision& decision, const abi::Target& target);

}  // namespace lb::cp::explain
