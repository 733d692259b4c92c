// The snapshot: what lb-cp tells lb-dp to do, as immutable, position-independent bytes.
//
//   root segment                                     group segments (shared between generations)
//   ┌────────────────┐                               ┌───────────────┐
//   │ Root (header)  │                               │ SegmentHeader │
//   │ segments[]     │── id, size, checksum ───────▶ │ slots of      │
//   │ vip_table[]    │   open-addressed, see below   │   group 0 u16 │
//   │ vips[]         │                               │   group 1 u16 │
//   │ listeners[]    │── groups by weight            │   …           │
//   │ groups[]       │── (segment, offset) of slots ▶└───────────────┘
//   │ group_targets[]│   u16 slot value → u32 target id
//   │ targets[]      │   indexed by dense target id, one cache line each
//   │ return_table[] │   where replies of nat targets come from
//   │ snat_addresses[]   sources of fullnat flows, by group
//   │ quic_maps[] …  │   how servers are read from QUIC connection IDs (dp/abi/quic.h)
//   │ route_table[]  │   where packets back from appliances go
//   │ ports[] names[]│
//   └────────────────┘
//
// Writer: lb-cp (cp/snapshot), once, into a memfd that it then seals (WRITE, SHRINK, GROW, SEAL). Readers: lb-dp's main
// thread, which verifies every byte it will use (dp/lb/snapshot.h), then workers, lb-replay and `why`. Offsets are bytes
// from the start of the segment named; all tables are 64-byte aligned. Nothing here is a pointer.
#pragma once

#include <cstdint>
#include <type_traits>

#include "dp/abi/quic.h"
#include "dp/abi/types.h"

namespace lb::abi {

inline constexpr std::uint64_t kSnapshotMagic = 0x31306e736c626c00;  // "\0lblsn01"
inline constexpr std::uint32_t kSnapshotVersion = 1;

inline constexpr std::uint32_t kMaxTargets = 1U << 20;  // dense ids 0 … 2^20-1
inline constexpr std::uint32_t kMaxListeners = 1U << 16;
inline constexpr std::uint32_t kMaxGroups = (1U << 16) - 1;  // VipCell::first_group has one number more
inline constexpr std::uint32_t kMaxSegments = 1U << 16;
inline constexpr std::uint32_t kMaxPorts = 32;
inline constexpr std::uint32_t kMaxGroupsPerListener = 8;
inline constexpr std::uint32_t kMaxTargetsPerGroup = 65535;  // slots are 16 bits wide
inline constexpr std::uint64_t kMaxSegmentBytes = 1ULL << 32;
inline constexpr std::uint32_t kNoIndex = 0xffffffff;

enum class SegmentKind : std::uint32_t { root = 1, groups = 2, security = 3 };

// First 64 bytes of every segment.
struct alignas(kCacheLineBytes) SegmentHeader {
  std::uint64_t magic = kSnapshotMagic;
  std::uint32_t version = kSnapshotVersion;
  SegmentKind kind = SegmentKind::root;
  std::uint64_t layout_fingerprint = 0;  // dp/abi/fingerprint.h
  std::uint64_t size_bytes = 0;          // of the whole segment, header included
  std::uint64_t segment_id = 0;          // never reused within an epoch; 0 for a root
  std::uint64_t checksum = 0;  // segment_checksum() (dp/base/segment_checksum.h) over the segment with this field as 0
  std::uint64_t reserved[2] = {};
};
static_assert(sizeof(SegmentHeader) == 64);

// `count` elements starting `offset` bytes into the root segment.
struct Table {
  std::uint64_t offset = 0;
  std::uint32_t count = 0;
  std::uint32_t reserved = 0;
};

// One other segment this root needs.
struct SegmentEntry {
  std::uint64_t segment_id = 0;
  std::uint64_t size_bytes = 0;
  std::uint64_t checksum = 0;
  std::uint64_t reserved = 0;
};
static_assert(sizeof(SegmentEntry) == 32);

// A string in the root's name blob; not NUL-terminated.
struct Name {
  std::uint32_t offset = 0;  // into Root::names
  std::uint32_t length = 0;
};

enum VipFlags : std::uint32_t {
  kVipAnswersEcho = 1 << 0,  // lb answers ICMP echo requests itself; else they are dropped
};

// A VIP: an address, or every address of a prefix, that lb answers for. Traffic to it that no listener takes is dropped as
// `no_listener`.
struct Vip {
  IpAddress address;  // of a prefix the first, all bits behind prefix_length 0
  Name name;
  std::uint32_t prefix_length = 128;  // of the 16-byte form: an IPv4 /24 is 120; 1…128
  std::uint32_t flags = 0;            // VipFlags
  std::uint32_t gateway = kNoIndex;   // into listeners: takes all IP traffic that no other listener takes
  std::uint32_t reserved = 0;
};
static_assert(sizeof(Vip) == 40);

// Cell of the VIP table: (address, protocol, port) → listener. Open addressing, linear probing from
// vip_table_hash(…) & (count-1); count is a power of two and at most half of the cells are used; `kind` empty ends a
// probe. Lookup order: exact port; then the VIP's `ranges` cell (port 0), whose listeners stand in range_listeners
// narrowest first; then the `vip` cell (protocol 0, port 0). An address that has none of these may be in a prefix: for each
// length in Root::vip_prefix_lengths, the longest first, the `prefix` cell (address masked, protocol 0, port = length) names
// the VIP, and its listeners stand in cells prefix_exact and prefix_ranges with the address prefix_vip_key(VIP). The longest
// prefix that holds an address is the only VIP that is asked.
enum class VipCellKind : std::uint8_t {
  empty = 0,
  exact = 1,
  ranges = 2,
  vip = 3,
  prefix = 4,
  prefix_exact = 5,
  prefix_ranges = 6,
};
inline constexpr std::uint8_t kVipCellKindCount = 7;

struct VipCell {
  IpAddress address;
  std::uint16_t port = 0;     // host order; exact ones only; `prefix`: the length
  std::uint8_t protocol = 0;  // abi::Protocol; 0 for `vip` and `prefix`
  VipCellKind kind = VipCellKind::empty;
  std::uint32_t index = 0;  // exact ones: listener; ranges: first of range_listeners; vip, prefix: into vips
  std::uint32_t count = 0;  // ranges: how many
  // exact: what the listener has as groups[0].group and counter_index, so that a hit need not read its line. Of a listener
  // whose packets are each asked for their connection ID: kNoCommonHit, which is no target's group.
  std::uint16_t first_group = 0;
  std::uint16_t counter_index = 0;
};
static_assert(sizeof(VipCell) == 32);
inline constexpr std::uint16_t kNoCommonHit = 0xffff;

// A share of a listener's new flows for one target group. cumulative_weight is the sum of weights up to and including
// this one; a flow with hash h takes the first share whose cumulative_weight > (h scaled to total_weight).
struct ListenerGroup {
  std::uint32_t group = 0;
  std::uint32_t cumulative_weight = 0;
};

inline constexpr std::uint8_t kAllProtocols = 0;  // Listener::protocol of a gateway listener: all IP traffic, no ports

struct alignas(kCacheLineBytes) Listener {
  std::uint32_t vip = 0;         // into vips; kNoIndex: a gateway listener of a port (Port::gateway)
  std::uint16_t first_port = 0;  // host order; both 0…65535
  std::uint16_t last_port = 0;
  std::uint8_t protocol = 0;        // abi::Protocol, or kAllProtocols
  std::uint8_t draining = 0;        // 1: removed from the config, kept for its tracked flows; takes no new ones
  std::uint8_t group_count = 0;     // 1…kMaxGroupsPerListener
  std::uint8_t has_quic = 0;        // 1: datagrams go by their connection IDs; UDP only
  std::uint32_t total_weight = 0;   // sum of the groups' weights; 0: no new flows
  std::uint32_t counter_index = 0;  // dense, stable while the listener lives; < kMaxListeners
  Name name;
  std::uint32_t security_group = kNoIndex;           // into the security segment's groups (dp/abi/security.h)
  ListenerGroup groups[kMaxGroupsPerListener] = {};  // the first four share the first cache line
  std::uint32_t guards = 0;                          // GuardFlags (dp/abi/rates.h)
  std::uint32_t rate_limits = kNoIndex;              // into rate_limits
  std::uint32_t reserved2[5] = {};
  std::uint32_t quic = kNoIndex;  // into quic_maps, if it has_quic
};
static_assert(sizeof(Listener) == 128);

[[nodiscard]] constexpr std::uint16_t first_group_of(const Listener& listener) {
  return listener.has_quic != 0 ? kNoCommonHit : static_cast<std::uint16_t>(listener.groups[0].group);
}

struct alignas(kCacheLineBytes) TargetGroup {
  std::uint32_t segment = 0;       // index into Root::segments; kNoIndex when slot_count is 0
  std::uint32_t slot_count = 0;    // Maglev table size M, a prime; 0: the group has no target (drop no_target)
  std::uint64_t slots_offset = 0;  // bytes into that segment; slot_count × u16, each < target_count
  std::uint32_t first_target = 0;  // into Root::group_targets
  std::uint32_t target_count = 0;  // targets a slot may name (those in rotation), ≤ kMaxTargetsPerGroup
  std::uint64_t table_hash = 0;    // of the slots by target identity: the same on every node of a fleet
  Name name;
  std::uint32_t tcp_idle_timeout_s = 350;
  std::uint32_t udp_idle_timeout_s = 120;
  ForwardingMode mode = ForwardingMode::ipip;
  Stickiness stickiness = Stickiness::five_tuple;
  std::uint8_t fail_open = 0;  // 1: too few healthy targets, all get traffic
  Algorithm algorithm = Algorithm::maglev;
  std::uint16_t weight_unit = 1;                         // greatest common divisor of the weights in rotation; at least 1
  ClientAddress client_address = ClientAddress::hidden;  // fullnat
  std::uint8_t reserved = 0;
  std::uint32_t first_snat = 0;  // fullnat: into Root::snat_addresses
  std::uint32_t snat_count = 0;  // how many; each at most once
};
static_assert(sizeof(TargetGroup) == 64);

enum TargetFlags : std::uint8_t {
  kTargetLive = 1 << 0,        // this id names a target; clear: the id is free and no flow may use it
  kTargetResolved = 1 << 1,    // next hop known: mac, port and mtu below are valid
  kTargetClampsMss = 1 << 3,   // a SYN that passes announces no larger MSS than fits the way (dp/net/mss.h)
  kTargetNoNewFlows = 1 << 2,  // draining, unhealthy, weight 0 or unused: a SYN on a dead entry re-picks (rule 7)
};

enum TunnelFlags : std::uint8_t {
  kTunnelKeyed = 1 << 0,         // gre: the header has a key (RFC 2890)
  kTunnelFragment = 1 << 2,      // any tunnel: what does not fit goes as fragments of the outer packet
  kTunnelZeroChecksum = 1 << 1,  // gue: an outer IPv6 packet has UDP checksum 0 (RFC 6935), else the right one
};

// Indexed by target id. One line holds all a worker needs to send a packet there.
struct alignas(kCacheLineBytes) Target {
  IpAddress address;
  std::uint64_t identity = 0;      // hash of (group name, address, port): equal on every node and restart
  std::uint32_t group = kNoIndex;  // into groups
  std::uint16_t port = 0;          // host order
  std::uint16_t weight = 0;
  std::uint8_t flags = 0;  // TargetFlags
  TrackedFlows tracked = TrackedFlows::keep;
  TargetState state = TargetState::unused;
  std::uint8_t out_port = 0;                   // into Root::ports
  ForwardingMode mode = ForwardingMode::ipip;  // its group's: so that a hit needs no line of the group
  std::uint8_t tunnel_flags = 0;               // TunnelFlags
  std::uint16_t mtu_bytes = 1500;              // of the way to the next hop: largest outer IP packet
  std::uint16_t vlan = 0;                      // 0: untagged, else the VID
  MacAddress next_hop_mac{};                   // destination MAC
  MacAddress source_mac{};                     // MAC of out_port
  // gue: UDP destination port, host order; gre: the key, with kTunnelKeyed; geneve: into Root::gateways; else 0
  std::uint32_t tunnel_word = 0;
};
static_assert(sizeof(Target) == 64);

// A port of lb-dp by the name of its kernel twin; lb-dp maps names to its own ports when it accepts a snapshot.
struct Port {
  char name[16] = {};                // NUL-terminated interface name
  std::uint32_t gateway = kNoIndex;  // into listeners: takes what comes in by this port and is nobody else's
};

// What the options of a geneve group's packets say of it.
struct Gateway {
  std::uint64_t vpce_id = 0;        // option type 1
  std::uint64_t attachment_id = 0;  // option type 2
  std::uint16_t option_class = kGeneveClass;
  std::uint16_t reserved[3] = {};
};
static_assert(sizeof(Gateway) == 24);

enum RouteFlags : std::uint8_t {  // with one of these nothing else is set
  kRouteLocal = 1 << 0,           // this host's own, or a broadcast: the kernel's
  kRouteUnresolved = 1 << 1,      // no MAC address is known yet: the kernel finds it, and forwards meanwhile
};

// Where packets that come back from appliances leave: what the kernel's routes and neighbours say.
struct RouteNextHop {
  MacAddress mac{};
  MacAddress source_mac{};
  std::uint16_t vlan = 0;          // 0: untagged
  std::uint16_t mtu_bytes = 1500;  // largest IP packet
  std::uint8_t out_port = 0;       // into Root::ports
  std::uint8_t flags = 0;          // RouteFlags
};
static_assert(sizeof(RouteNextHop) == 18);

// Outer source addresses: prefix, whose host bits follow the flow hash so that targets' RSS spreads (rule 9).
struct TunnelSource {
  IpAddress prefix;
  std::uint8_t prefix_length = 128;  // of the 16-byte form: an IPv4 /24 is 120
  std::uint8_t present = 0;
  std::uint8_t reserved[6] = {};
};

// What is refused of packets for a VIP, whatever listener they are for (Root::hygiene; dp/lb/guard_hygiene.h).
enum Hygiene : std::uint32_t {
  kHygieneMartians = 1 << 0,
  kHygieneLand = 1 << 1,
  kHygieneTcpFlags = 1 << 2,
  kHygieneSourceRoute = 1 << 3,
  kHygieneTinyFragments = 1 << 4,
  kHygieneL4Checksums = 1 << 5,  // reads every byte of every packet
  kHygieneRates = 1 << 6,        // some listener limits packets or bytes (dp/abi/rates.h)
};
inline constexpr std::uint32_t kHygieneAll = (1 << 7) - 1;
inline constexpr std::uint32_t kHygieneEveryPacket = kHygieneL4Checksums | kHygieneRates;  // what is asked of every packet
inline constexpr std::uint32_t kHygieneDefault = kHygieneAll & ~kHygieneEveryPacket;

struct Root {
  SegmentHeader header;
  Generation generation;
  std::uint64_t fleet_seed = 0;
  Table segments;         // SegmentEntry
  Table vip_table;        // VipCell; count a power of two ≥ 2
  Table vips;             // Vip
  Table range_listeners;  // std::uint32_t, into listeners
  Table listeners;        // Listener
  Table groups;           // TargetGroup
  Table group_targets;    // std::uint32_t target ids
  Table targets;          // Target, indexed by id
  Table ports;            // Port
  Table names;            // char
  TunnelSource tunnel_source_v4;
  TunnelSource tunnel_source_v6;
  // (address, port, protocol) of each live nat target → the listeners its flows may have come by. Cells as in vip_table, all
  // `ranges`, with the target's port: index and count are of return_listeners.
  Table return_table;                         // VipCell; count 0, or a power of two ≥ 2
  Table return_listeners;                     // std::uint32_t, into listeners; each of one port
  std::uint32_t hygiene = kHygieneDefault;    // Hygiene
  std::uint32_t security_segment = kNoIndex;  // into segments; kNoIndex: no listener has a security group
  // A hash of all rules and of who has which group: another one means that tracked flows are to be asked again.
  std::uint64_t security_epoch = 0;
  Table snat_addresses;                      // IpAddress; each group's in a row
  std::uint64_t vip_prefix_lengths[3] = {};  // bit L of these 192: there is a VIP with prefix_length L < 128
  // Mode geneve. Routes: cells as in vip_table, all `prefix`: address masked, port = length (0…128), index into
  // route_next_hops; the longest prefix wins. Empty where there is no geneve group.
  Table route_table;                           // VipCell; count 0, or a power of two ≥ 2
  Table route_next_hops;                       // RouteNextHop
  Table gateways;                              // Gateway
  std::uint64_t route_prefix_lengths[3] = {};  // bit L of these 192: there is a route of prefix length L
  Table quic_maps;                             // QuicMap
  Table quic_configs;                          // QuicConfig
  Table quic_servers;                          // QuicServer; each config's in a row, sorted by server ID
  Table rate_limits;                           // RateLimits (dp/abi/rates.h)
};
static_assert(std::is_trivially_copyable_v<Root> && std::is_standard_layout_v<Root>);

// Stands for a VIP that is a prefix in the cells of its listeners.
[[nodiscard]] constexpr IpAddress prefix_vip_key(std::uint32_t vip) {
  IpAddress key;
  for (std::size_t i = 0; i < 4; ++i) key.bytes[i] = static_cast<std::uint8_t>(vip >> (8 * i));
  return key;
}

// Where a key starts to be probed in the VIP table. Not keyed: the table's keys are the operator's, its load is ≤ 1/2 and
// its longest probe is fixed when it is compiled.
[[nodiscard]] constexpr std::uint32_t vip_table_hash(const IpAddress& address, std::uint8_t protocol, std::uint16_t port) {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  for (std::size_t i = 0; i < 8; ++i) {
    high |= std::uint64_t{address.bytes[i]} << (8 * i);
    low |= std::uint64_t{address.bytes[8 + i]} << (8 * i);
  }
  std::uint64_t h = (low ^ (std::uint64_t{port} << 16 | protocol)) * 0x9e3779b97f4a7c15ULL;
  h ^= high * 0xc2b2ae3d27d4eb4fULL;
  h ^= h >> 32;
  h *= 0xd6e8feb86659fd93ULL;
  return static_cast<std::uint32_t>(h >> 32);
}

}  // namespace lb::abi
