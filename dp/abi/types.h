// Words that both processes and every tool use: addresses, protocols, modes, states. Plain data, std only.
//
// Addresses are kept in network byte order, ports and every other number in host byte order. The structs here are part of
// the shared-memory contract: changing one changes the layout fingerprint (dp/abi/fingerprint.h) and needs a new version.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace lb::abi {

inline constexpr std::size_t kCacheLineBytes = 64;

// An IPv4 or IPv6 address, 16 bytes in network order; IPv4 as ::ffff:a.b.c.d (RFC 4291 §2.5.5.2).
struct IpAddress {
  std::array<std::uint8_t, 16> bytes{};

  [[nodiscard]] constexpr bool is_v4() const {
    for (std::size_t i = 0; i < 10; ++i) {
      if (bytes[i] != 0) return false;
    }
    return bytes[10] == 0xff && bytes[11] == 0xff;
  }
  [[nodiscard]] constexpr bool is_zero() const { return bytes == std::array<std::uint8_t, 16>{}; }
  friend constexpr auto operator<=>(const IpAddress&, const IpAddress&) = default;

  [[nodiscard]] static constexpr IpAddress v4(std::uint8_t a, std::uint8_t b, std::uint8_t c, std::uint8_t d) {
    return IpAddress{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d}};
  }
};
static_assert(sizeof(IpAddress) == 16);

// The address with all bits behind the first `length` (0…128) cleared.
[[nodiscard]] constexpr IpAddress masked(IpAddress address, std::uint32_t length) {
  for (std::uint32_t i = 0; i < 16; ++i) {
    const std::uint32_t bits = length <= 8 * i ? 0 : length - 8 * i;
    if (bits < 8) address.bytes[i] &= static_cast<std::uint8_t>(0xff00U >> bits);
  }
  return address;
}

using MacAddress = std::array<std::uint8_t, 6>;

// IANA protocol numbers.
enum class Protocol : std::uint8_t { icmp = 1, ipip = 4, tcp = 6, udp = 17, ipv6_in = 41, gre = 47, icmpv6 = 58 };

// How a packet travels to its target.
enum class ForwardingMode : std::uint8_t { l2dsr = 0, ipip = 1, gue = 2, gre = 3, geneve = 4, nat = 5, fullnat = 6 };
inline constexpr std::uint8_t kForwardingModeCount = 7;  // numbers below it that to_string() does not know are no modes

inline constexpr std::uint16_t kGuePort = 6080;        // of IANA; the default
inline constexpr std::uint16_t kGenevePort = 6081;     // RFC 8926
inline constexpr std::uint16_t kGeneveClass = 0x0108;  // of the options, by default: those of AWS' gateway load balancer

// How the target of a fullnat flow, who sees a SNAT address, is told the client's.
enum class ClientAddress : std::uint8_t { hidden = 0, proxy_v2 = 1, tcp_option = 2 };
inline constexpr std::uint8_t kClientAddressCount = 3;

inline constexpr std::uint32_t kMaxSnatAddresses = 256;  // different ones, of all target groups

// What the bytes of the source tuple are that choose a slot: stickiness of a target group.
// symmetric: the same for both directions of a flow (mode geneve).
enum class Stickiness : std::uint8_t {
  five_tuple = 0,
  source_ip = 1,
  source_ip_dest_ip = 2,
  source_ip_dest_ip_proto = 3,
  symmetric_five_tuple = 4,
  symmetric_ip = 5,
  symmetric_ip_proto = 6,
};
inline constexpr std::uint8_t kStickinessCount = 7;

// How a new flow is given its target. What has no entry in the flow table always goes by Maglev. per_packet: UDP has no
// flows, every datagram is given a target by itself; TCP goes by Maglev.
enum class Algorithm : std::uint8_t { maglev = 0, round_robin = 1, least_connections = 2, per_packet = 3 };
inline constexpr std::uint8_t kAlgorithmCount = 4;

// What becomes of a target's tracked flows, decided by lb-cp, obeyed by workers at the next packet of each flow.
//   keep     forward as before (healthy, draining, weight 0, fail-open)
//   reset    TCP: answer RST to the client and send one to the target; UDP: as rehash
//   rehash   forget the entry and pick by the present table
enum class TrackedFlows : std::uint8_t { keep = 0, reset = 1, rehash = 2 };
inline constexpr std::uint8_t kTrackedFlowsCount = 3;

// Target states of AWS NLB; lb-cp alone decides them, the data plane only shows them.
enum class TargetState : std::uint8_t {
  initial = 0,
  healthy = 1,
  unhealthy = 2,
  unhealthy_draining = 3,
  draining = 4,
  unused = 5,
  unavailable = 6,
};
inline constexpr std::uint8_t kTargetStateCount = 7;

[[nodiscard]] constexpr std::string_view to_string(ForwardingMode mode) {
  switch (mode) {
    case ForwardingMode::l2dsr: return "l2dsr";
    case ForwardingMode::ipip: return "ipip";
    case ForwardingMode::gue: return "gue";
    case ForwardingMode::gre: return "gre";
    case ForwardingMode::geneve: return "geneve";
    case ForwardingMode::nat: return "nat";
    case ForwardingMode::fullnat: return "fullnat";
  }
  return "?";
}

[[nodiscard]] constexpr std::string_view to_string(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::maglev: return "maglev";
    case Algorithm::round_robin: return "round_robin";
    case Algorithm::least_connections: return "least_connections";
    case Algorithm::per_packet: return "per_packet";
  }
  return "?";
}

[[nodiscard]] constexpr std::string_view to_string(TargetState state) {
  switch (state) {
    case TargetState::initial: return "initial";
    case TargetState::healthy: return "healthy";
    case TargetState::unhealthy: return "unhealthy";
    case TargetState::unhealthy_draining: return "unhealthy.draining";
    case TargetState::draining: return "draining";
    case TargetState::unused: return "unused";
    case TargetState::unavailable: return "unavailable";
  }
  return "?";
}

// A generation: which lb-cp wrote it (epoch) and its running number. Ordered by epoch, then n; {0,0} is "none".
struct Generation {
  std::uint64_t epoch = 0;
  std::uint64_t n = 0;
  friend constexpr auto operator<=>(const Generation&, const Generation&) = default;
};

}  // namespace lb::abi
