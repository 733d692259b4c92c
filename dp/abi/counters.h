// The one list of counters. It generates the enum, the names of drop reasons in verdicts, Prometheus and lbctl text.
//
// Accounting (exact at quiescence), per worker:
//   rx_packets = forwarded_packets + punted_packets + Σ drop_* + in_flight
//   tx_packets = forwarded_packets + extra_fragments + originated_rst + originated_icmp
//                - (those that failed tx, which are drops)
// A packet lb answers itself is a drop with reason answered_*, and the answer is counted as originated_*.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "dp/abi/types.h"

namespace lb::abi {

// X(name, unit, help): plain counters, monotonic.
#define LB_PLAIN_COUNTERS(X)                                                                                  \
  X(rx_packets, "packets", "packets received")                                                                \
  X(rx_bytes, "bytes", "bytes received, Ethernet header included")                                            \
  X(tx_packets, "packets", "packets handed to a port and accepted by it")                                     \
  X(tx_bytes, "bytes", "bytes sent, Ethernet header included")                                                \
  X(forwarded_packets, "packets", "input packets sent on to a target")                                        \
  X(extra_fragments, "packets", "fragments of outer packets beside the one counted as forwarded")             \
  X(punted_packets, "packets", "input packets given to the kernel")                                           \
  X(originated_rst, "packets", "TCP resets lb sent itself, to clients and to targets")                        \
  X(originated_icmp, "packets", "ICMP messages lb sent itself")                                               \
  X(flow_hits, "packets", "packets that found their flow in the flow table")                                  \
  X(flow_new, "flows", "flows entered into the flow table")                                                   \
  X(flow_untracked, "packets", "packets forwarded by Maglev because no entry could be had")                   \
  X(flow_evicted, "flows", "unproven flows that gave their entry to another flow")                            \
  X(flow_expired, "flows", "flows removed after their idle timeout")                                          \
  X(flow_rehashed, "flows", "tracked flows moved because their target is gone, or was to be re-picked")       \
  X(flow_reset, "flows", "tracked flows reset because their target is unhealthy or gone")                     \
  X(fail_open_flows, "flows", "flows picked while their target group was fail-open")                          \
  X(flow_refused, "flows", "flows refused because the flow table had no room for the entry their mode needs") \
  X(snat_refused, "flows", "fullnat flows refused because no SNAT port of their target group was free")       \
  X(snat_evicted, "flows", "fullnat flows without an answer that gave their SNAT port to another")            \
  X(returned_packets, "packets", "of the forwarded packets: replies of nat and fullnat targets, to clients")  \
  X(gateway_returned, "packets", "of the forwarded packets: came back from appliances, and went on")          \
  X(per_packet, "packets", "datagrams of per_packet target groups, each given a target by itself")            \
  X(quic_routed, "packets", "datagrams sent where their QUIC connection ID says")                             \
  X(quic_unroutable, "packets", "datagrams of QUIC listeners whose connection ID names no target in use")     \
  X(rate_marked, "packets", "packets over a rate limit, sent on with the DSCP that the listener says")        \
  X(mss_clamped, "packets", "SYNs whose announced segment size was lowered to what fits")                     \
  X(flow_moved_lines, "entries", "entries moved to their other line to make room")                            \
  X(flow_adopted, "flows", "flows taken over from another worker's table")                                    \
  X(fragment_notes_lost, "notes", "first fragments forgotten early, to note newer ones")                      \
  X(peer_looks, "looks", "looks into another worker's flow table, for packets that miss their own")

// X(name, help): a packet that ends here. `name` is the verdict's reason in lb-replay, why, drops and metrics.
#define LB_DROP_REASONS(X)                                                                                \
  X(truncated, "frame shorter than its headers or their lengths say")                                     \
  X(not_ip, "frame is neither IPv4 nor IPv6 and there is no kernel interface to punt it to")              \
  X(bad_ip_header, "IP version, header length or total length is wrong")                                  \
  X(bad_ip_checksum, "IPv4 header checksum is wrong")                                                     \
  X(bad_l4_header, "TCP data offset or UDP length is wrong")                                              \
  X(bad_extension_header, "IPv6 extension headers are malformed or too many")                             \
  X(ttl_expired, "TTL or hop limit is 0 or 1")                                                            \
  X(fragment, "fragment of a packet to a VIP that is neither TCP nor UDP")                                \
  X(bad_fragment, "fragment that no datagram can have: too long, or no multiple of eight")                \
  X(fragment_table_full, "fragment before its first one, and no room to hold it")                         \
  X(fragment_timeout, "fragment was held, but its first one never came")                                  \
  X(bad_source, "source address no client can have: loopback, multicast, link-local, ...")                \
  X(land, "source address is the VIP itself")                                                             \
  X(source_route, "IPv4 source route option, or IPv6 routing header with segments left")                  \
  X(bad_tcp_flags, "TCP flags no client sends: SYN with FIN or RST, none, Xmas")                          \
  X(tiny_fragment, "fragment so small that it hides ports or TCP flags")                                  \
  X(security_group, "denied by the security group of the listener")                                       \
  X(source_rate_limit, "over what the listener takes from each source")                                   \
  X(listener_rate_limit, "over what the listener takes in all")                                           \
  X(bad_l4_checksum, "TCP or UDP checksum is wrong")                                                      \
  X(no_listener, "destination is a VIP, but no listener takes this protocol and port")                    \
  X(listener_draining, "listener was removed; only its tracked flows are served")                         \
  X(no_target, "target group has no target")                                                              \
  X(flow_table_full, "flow table has no room for a flow that needs an entry, and no reset could be sent") \
  X(no_way_back, "too many neighbours send flows of nat listeners: no room to remember the way back")     \
  X(snat_exhausted, "no SNAT port is free for the flow, and no answer could be sent")                     \
  X(no_translation, "packet to a SNAT address that belongs to no flow")                                   \
  X(next_hop_unresolved, "no MAC address is known for the way to the target")                             \
  X(no_tunnel_source, "no tunnel source address of the outer family is configured")                       \
  X(too_big, "packet does not fit the MTU towards the target")                                            \
  X(no_headroom, "buffer has no room for the outer header")                                               \
  X(own_outer, "lb's own outer packet came back")                                                         \
  X(bad_geneve, "version, length, options or protocol of a Geneve header from an appliance are wrong")    \
  X(geneve_no_flow, "packet from an appliance that has no such flow")                                     \
  X(bad_cookie, "flow cookie or ids of a packet from an appliance are not those it was sent with")        \
  X(bad_ecn, "outer header says congestion, and the packet inside cannot carry it (RFC 6040)")            \
  X(no_route, "packet from an appliance, and the kernel has no route to its destination")                 \
  X(answered_rst, "answered with a TCP reset by lb")                                                      \
  X(answered_icmp, "answered with an ICMP error by lb")                                                   \
  X(reset_rate_limited, "would have been answered with a reset, but the limit was reached")               \
  X(answered_echo, "ICMP echo request to a VIP, answered by lb")                                          \
  X(echo_disabled, "ICMP echo request to a VIP that is configured not to answer")                         \
  X(bad_icmp, "ICMP message to a VIP is too short, or its checksum or its quote is wrong")                \
  X(icmp_no_flow, "ICMP error to a VIP quotes no packet that a target has sent from it")                  \
  X(icmp_rate_limited, "ICMP echo request beyond the limit of answers")                                   \
  X(no_snapshot, "no configuration has been accepted yet")                                                \
  X(segmented, "frame is spread over several buffers")                                                    \
  X(punt_failed, "the kernel interface did not take the packet")                                          \
  X(tx_full, "the port did not take the packet")

enum class DropReason : std::uint8_t {
  none = 0,
#define X(name, help) name,
  LB_DROP_REASONS(X)
#undef X
};

enum class Counter : std::uint16_t {
#define X(name, unit, help) name,
  LB_PLAIN_COUNTERS(X)
#undef X
#define X(name, help) drop_##name,
      LB_DROP_REASONS(X)
#undef X
};

struct CounterInfo {
  std::string_view name;  // plain: the counter's name; drop: the reason's name
  std::string_view unit;
  std::string_view help;
  bool is_drop;
};

inline constexpr auto kCounters = std::to_array<CounterInfo>({
#define X(name, unit, help) {#name, unit, help, false},
    LB_PLAIN_COUNTERS(X)
#undef X
#define X(name, help) {#name, "packets", help, true},
        LB_DROP_REASONS(X)
#undef X
});

inline constexpr std::size_t kCounterCount = kCounters.size();
inline constexpr std::size_t kFirstDropCounter = static_cast<std::size_t>(Counter::drop_truncated);
inline constexpr std::size_t kDropReasonCount = kCounterCount - kFirstDropCounter + 1;  // with `none`

[[nodiscard]] constexpr std::string_view to_string(DropReason reason) {
  return reason == DropReason::none ? std::string_view{}
                                    : kCounters[kFirstDropCounter + static_cast<std::size_t>(reason) - 1].name;
}

[[nodiscard]] constexpr Counter drop_counter(DropReason reason) {
  return static_cast<Counter>(kFirstDropCounter + static_cast<std::size_t>(reason) - 1);
}

// Per listener and worker. Writer: the worker. Readers: lb-cp.
struct ListenerStats {
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;
  std::uint64_t new_flows = 0;
  std::uint64_t dropped_packets = 0;
};
static_assert(sizeof(ListenerStats) == 32);

// One worker's block. Writer: that worker, plain stores (relaxed, never read-modify-write across workers). Readers: anyone.
struct alignas(kCacheLineBytes) WorkerStats {
  std::uint64_t heartbeat = 0;         // loop iterations; stands still only if the worker does
  std::uint64_t generation_epoch = 0;  // the generation this worker forwards by
  std::uint64_t generation_n = 0;
  std::uint64_t flows = 0;          // gauge: entries in the table
  std::uint64_t flow_capacity = 0;  // entries the table can hold
  std::uint64_t busy_tsc = 0;       // TSC cycles spent on bursts that had packets
  std::uint64_t total_tsc = 0;      // TSC cycles since the worker started
  std::uint64_t lcore = 0;
  std::uint64_t in_flight = 0;      // gauge: packets held (fragments before their first one)
  std::uint64_t snat_ports = 0;     // gauge: SNAT ports in use, those that wait to be given again included
  std::uint64_t snat_capacity = 0;  // how many there are, or how many translations fit if that is less
  std::array<std::uint64_t, (kCounterCount + 7) / 8 * 8> counters{};
};

// The stats region: a memfd made by lb-dp, handed read-only to lb-cp.
//   header | WorkerStats[workers] | ListenerStats[workers][listener_capacity] | u32 target_flows[workers][target_capacity]
//          | u32 target_troubles[workers][target_capacity] | rates of each worker (dp/abi/rates.h)
// target_flows counts the entries that name each target: what drain waits for, and what tells that an id may be reused.
// target_troubles counts, where replies come through lb, connections that the target reset and SYNs that had to be sent
// again; it wraps. What lb-cp makes of it: it probes sooner.
struct alignas(kCacheLineBytes) StatsRegionHeader {
  std::uint64_t magic = 0;
  std::uint32_t version = 0;
  std::uint32_t worker_count = 0;
  std::uint64_t layout_fingerprint = 0;  // region_fingerprint()
  std::uint64_t size_bytes = 0;
  std::uint32_t listener_capacity = 0;
  std::uint32_t target_capacity = 0;
  std::uint64_t workers_offset = 0;
  std::uint64_t listeners_offset = 0;
  std::uint64_t target_flows_offset = 0;
  std::uint64_t tsc_hz = 0;
  std::uint64_t target_troubles_offset = 0;
  std::uint64_t reserved[2] = {};
  std::uint64_t rates_offset = 0;
  std::uint64_t reserved2[2] = {};
};
inline constexpr std::uint64_t kStatsMagic = 0x31307473626c0000;

}  // namespace lb::abi
