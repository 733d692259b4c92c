// The layout fingerprint: a number computed at compile time from the size, alignment and field offsets of every struct of
// the contract, and from its enumerator counts. Two builds that disagree about the bytes disagree about this number, and
// lb-dp refuses a snapshot or a region by name (`fingerprint`) instead of misreading it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dp/abi/control.h"
#include "dp/abi/counters.h"
#include "dp/abi/rates.h"
#include "dp/abi/region.h"
#include "dp/abi/security.h"
#include "dp/abi/snapshot.h"
#include "dp/abi/types.h"

namespace lb::abi {

namespace detail {
constexpr std::uint64_t mix(std::uint64_t h, std::uint64_t v) {
  h = (h ^ v) * 0x100000001b3ULL;
  return h ^ (h >> 29);
}
template <typename... T>
constexpr std::uint64_t mix_all(std::uint64_t h, T... v) {
  ((h = mix(h, static_cast<std::uint64_t>(v))), ...);
  return h;
}
template <typename T>
constexpr std::uint64_t size_align(std::uint64_t h) {
  return mix_all(h, sizeof(T), alignof(T));
}
}  // namespace detail

constexpr std::uint64_t snapshot_fingerprint() {
  using namespace detail;
  std::uint64_t h = 0xcbf29ce484222325ULL;
  h = size_align<SegmentHeader>(h);
  h = mix_all(h, offsetof(SegmentHeader, version), offsetof(SegmentHeader, kind),
              offsetof(SegmentHeader, layout_fingerprint), offsetof(SegmentHeader, size_bytes),
              offsetof(SegmentHeader, segment_id), offsetof(SegmentHeader, checksum));
  h = size_align<Root>(h);
  h = mix_all(h, offsetof(Root, generation), offsetof(Root, fleet_seed), offsetof(Root, segments), offsetof(Root, vip_table),
              offsetof(Root, vips), offsetof(Root, range_listeners), offsetof(Root, listeners), offsetof(Root, groups),
              offsetof(Root, group_targets), offsetof(Root, targets), offsetof(Root, ports), offsetof(Root, names),
              offsetof(Root, tunnel_source_v4), offsetof(Root, tunnel_source_v6), offsetof(Root, hygiene),
              offsetof(Root, security_segment), offsetof(Root, security_epoch), offsetof(Root, vip_prefix_lengths),
              offsetof(Root, return_table), offsetof(Root, return_listeners), offsetof(Root, snat_addresses),
              offsetof(Root, route_table), offsetof(Root, route_next_hops), offsetof(Root, gateways),
              offsetof(Root, route_prefix_lengths), offsetof(Root, quic_maps), offsetof(Root, quic_configs),
              offsetof(Root, quic_servers), offsetof(Root, rate_limits));
  h = size_align<SegmentEntry>(h);
  h = mix_all(h, offsetof(SegmentEntry, size_bytes), offsetof(SegmentEntry, checksum));
  h = size_align<Vip>(h);
  h = mix_all(h, offsetof(Vip, name), offsetof(Vip, prefix_length), offsetof(Vip, flags), offsetof(Vip, gateway));
  h = size_align<VipCell>(h);
  h = mix_all(h, offsetof(VipCell, port), offsetof(VipCell, protocol), offsetof(VipCell, kind), offsetof(VipCell, index),
              offsetof(VipCell, count), offsetof(VipCell, first_group), offsetof(VipCell, counter_index));
  h = size_align<Listener>(h);
  h = mix_all(h, offsetof(Listener, first_port), offsetof(Listener, last_port), offsetof(Listener, protocol),
              offsetof(Listener, draining), offsetof(Listener, group_count), offsetof(Listener, total_weight),
              offsetof(Listener, counter_index), offsetof(Listener, name), offsetof(Listener, groups),
              offsetof(ListenerGroup, cumulative_weight));
  h = mix_all(h, offsetof(Listener, security_group), offsetof(Listener, has_quic), offsetof(Listener, quic));
  h = mix_all(h, sizeof(QuicMap), sizeof(QuicConfig), offsetof(QuicConfig, first_server), offsetof(QuicConfig, server_count),
              offsetof(QuicConfig, config_id), offsetof(QuicConfig, server_id_bytes), offsetof(QuicConfig, nonce_bytes),
              offsetof(QuicConfig, keyed), offsetof(QuicConfig, key), sizeof(QuicServer), offsetof(QuicServer, target));
  h = mix_all(h, offsetof(Listener, guards), offsetof(Listener, rate_limits));
  h = size_align<RateLimits>(h);
  h = mix_all(h, offsetof(RateLimits, source), offsetof(RateLimits, action), offsetof(RateLimits, dscp),
              offsetof(RateLimits, prefix_v4), offsetof(RateLimits, prefix_v6), offsetof(RateLimits, identity),
              kRateActionCount);
  h = mix_all(h, sizeof(RateSet), offsetof(RateSet, hold), offsetof(RateSet, flows), kRateKinds, kRateCostShift);
  h = size_align<SecurityRoot>(h);
  h = mix_all(h, offsetof(SecurityRoot, groups), offsetof(SecurityRoot, nodes), offsetof(SecurityRoot, leaves),
              offsetof(SecurityRoot, rules), offsetof(SecurityRoot, names));
  h = size_align<SecurityGroup>(h);
  h = mix_all(h, offsetof(SecurityGroup, root_v6), offsetof(SecurityGroup, name), offsetof(SecurityGroup, allow_by_default));
  h = size_align<PrefixNode>(h);
  h = mix_all(h, offsetof(PrefixNode, leaves), offsetof(PrefixNode, first_child), offsetof(PrefixNode, first_leaf));
  h = size_align<SecurityRule>(h);
  h = mix_all(h, offsetof(SecurityRule, first_port), offsetof(SecurityRule, prefix_length),
              offsetof(SecurityRule, any_source), offsetof(SecurityRule, protocols), offsetof(SecurityRule, allow),
              offsetof(SecurityRule, number), offsetof(SecurityRule, next));
  h = size_align<TargetGroup>(h);
  h = mix_all(h, offsetof(TargetGroup, slot_count), offsetof(TargetGroup, slots_offset), offsetof(TargetGroup, first_target),
              offsetof(TargetGroup, target_count), offsetof(TargetGroup, table_hash), offsetof(TargetGroup, name),
              offsetof(TargetGroup, tcp_idle_timeout_s), offsetof(TargetGroup, udp_idle_timeout_s),
              offsetof(TargetGroup, mode), offsetof(TargetGroup, stickiness), offsetof(TargetGroup, fail_open),
              offsetof(TargetGroup, algorithm), offsetof(TargetGroup, weight_unit), kAlgorithmCount,
              offsetof(TargetGroup, client_address), offsetof(TargetGroup, first_snat), offsetof(TargetGroup, snat_count),
              kClientAddressCount);
  h = size_align<Target>(h);
  h = mix_all(h, offsetof(Target, identity), offsetof(Target, group), offsetof(Target, port), offsetof(Target, weight),
              offsetof(Target, flags), offsetof(Target, tracked), offsetof(Target, state), offsetof(Target, out_port),
              offsetof(Target, mode), offsetof(Target, mtu_bytes), offsetof(Target, vlan), offsetof(Target, next_hop_mac),
              offsetof(Target, source_mac), offsetof(Target, tunnel_flags), offsetof(Target, tunnel_word));
  h = size_align<TunnelSource>(h);
  h = mix_all(h, sizeof(Port), offsetof(Port, gateway), sizeof(Table), sizeof(Name));
  h = mix_all(h, sizeof(Gateway), offsetof(Gateway, attachment_id), offsetof(Gateway, option_class));
  h = mix_all(h, sizeof(RouteNextHop), offsetof(RouteNextHop, source_mac), offsetof(RouteNextHop, vlan),
              offsetof(RouteNextHop, mtu_bytes), offsetof(RouteNextHop, out_port), offsetof(RouteNextHop, flags));
  return mix_all(h, kForwardingModeCount, kStickinessCount, kTrackedFlowsCount, kTargetStateCount, kVipCellKindCount,
                 kHygieneAll, kSnapshotVersion);
}

constexpr std::uint64_t region_fingerprint() {
  using namespace detail;
  std::uint64_t h = 0x84222325cbf29ce4ULL;
  h = size_align<FlowRegionHeader>(h);
  h = mix_all(h, offsetof(FlowRegionHeader, size_bytes), offsetof(FlowRegionHeader, node_secret),
              offsetof(FlowRegionHeader, worker_count), offsetof(FlowRegionHeader, lines_per_worker),
              offsetof(FlowRegionHeader, directory_offset), offsetof(FlowRegionHeader, lines_offset),
              offsetof(FlowRegionHeader, ways_offset));
  h = size_align<NatWays>(h);
  h = mix_all(h, offsetof(NatWays, last_used_s), kNatWays);
  h = size_align<FlowLine>(h);
  h = mix_all(h, offsetof(FlowLine, key), offsetof(FlowLine, meta), offsetof(FlowLine, sequence));
  h = mix_all(h, offsetof(FlowRegionHeader, translations_offset), offsetof(FlowRegionHeader, translations_per_worker));
  h = size_align<Translation>(h);
  h = mix_all(h, offsetof(Translation, tick), offsetof(Translation, client), offsetof(Translation, client_port),
              offsetof(Translation, target_id), offsetof(Translation, hash), offsetof(Translation, way));
  h = size_align<StatsRegionHeader>(h);
  h = size_align<WorkerStats>(h);
  h = mix_all(h, offsetof(WorkerStats, counters), offsetof(StatsRegionHeader, workers_offset),
              offsetof(StatsRegionHeader, listeners_offset), offsetof(StatsRegionHeader, target_flows_offset),
              offsetof(StatsRegionHeader, target_troubles_offset), offsetof(StatsRegionHeader, rates_offset));
  h = size_align<RateLine>(h);
  h = size_align<RateMeter>(h);
  h = mix_all(h, offsetof(RateMeter, full_at), offsetof(RateMeter, share), offsetof(RateMeter, used),
              offsetof(RateMeter, used_then), offsetof(RateMeter, flows), offsetof(RateMeter, since),
              offsetof(RateMeter, prefix_length), kRateLines, kRateTickShift);
  return mix_all(h, kCounterCount, kRegionVersion);
}

}  // namespace lb::abi
