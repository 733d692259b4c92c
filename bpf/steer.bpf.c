// Which packets of an AF_XDP port belong to lb's workers: those addressed to a VIP or SNAT address, what nat targets send to
// clients and what appliances send back; of a port with a gateway listener, whatever is not this host's. Everything else
// stays with the kernel.
//
//   frame ── VLAN tags (≤ 2) looked through ── IPv6 neighbour discovery? ── yes → XDP_PASS
//     ── destination in `vips`, or in a prefix of `vip_prefixes`? ── yes → socket of this queue, or drop
//     ── UDP 6081 to a prefix of `tunnel_ends`? ───────────────────── yes → the same
//     ── `everything`, and the packet is one that is routed; or
//        source in `returns`, or an ICMP error that quotes a packet
//        to one, and destination not in `own_addresses`? ─────────── yes → the same
//     ── else → XDP_PASS
//
// Answers to lb's own probes of nat targets go to an address of this host, and so to the kernel.
// Attached by dp/io/steering.cc before DPDK starts. The names xsk_def_prog, xsks_map and xsk_prog_version are those by which
// libxdp recognises a program that it may use as it is (it then only enters its sockets into xsks_map).
// Steered packets never fall back to the kernel: a kernel that does not own the VIP would answer or forward them.
// clang-format off
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
// clang-format on

#define MAX_VLAN_TAGS 2
#define MAX_QUEUES 64
#define MAX_VIPS 65536
#define MAX_RETURNS (1 << 20)
#define MAX_OWN_ADDRESSES 4096
#define FRAGMENT_OFFSET 0x1fff
#define ICMP_BYTES 8
#define GENEVE_PORT 6081

// As abi::IpAddress: network order, IPv4 as ::ffff:a.b.c.d.
struct address {
  __u8 bytes[16];
};

// Where replies come from. As ReturnSource in dp/io/steering.h.
struct source {
  struct address address;
  __u16 port;  // host order
  __u8 protocol;
  __u8 reserved;
};

struct vlan_header {
  __be16 tci;
  __be16 ether_type;
};

// Sockets by receive queue. Writer: libxdp in lb-dp.
struct {
  __uint(type, BPF_MAP_TYPE_XSKMAP);
  __uint(max_entries, MAX_QUEUES);
  __uint(key_size, 4);
  __uint(value_size, 4);
} xsks_map SEC(".maps");

// The VIPs and SNAT addresses of the generations that are alive. Writer: lb-dp's main thread.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, MAX_VIPS);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct address);
  __type(value, __u32);
} vips SEC(".maps");

// VIPs that are prefixes; bits of the 16-byte form. Writer: as of `vips`.
struct prefix {
  __u32 bits;
  struct address address;
};
struct {
  __uint(type, BPF_MAP_TYPE_LPM_TRIE);
  __uint(max_entries, MAX_VIPS);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct prefix);
  __type(value, __u32);
} vip_prefixes SEC(".maps");

// The nat targets of the generations that are alive. Writer: lb-dp's main thread.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, MAX_RETURNS);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct source);
  __type(value, __u32);
} returns SEC(".maps");

// Where appliances send Geneve packets to: the tunnel sources, while there is a gateway listener. Writer: as of `vips`.
struct {
  __uint(type, BPF_MAP_TYPE_LPM_TRIE);
  __uint(max_entries, 16);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct prefix);
  __type(value, __u32);
} tunnel_ends SEC(".maps");

// Not 0: all that is routed by this interface goes through appliances. Writer: as of `vips`.
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, __u32);
} everything SEC(".maps");

// This host's addresses. Writer: lb-dp's main thread, once a second.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, MAX_OWN_ADDRESSES);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct address);
  __type(value, __u32);
} own_addresses SEC(".maps");

// Packets by outcome, per CPU. Order as SteeringStats in dp/io/steering.h.
enum outcome { STEERED, PASSED, DROPPED_NO_SOCKET, OUTCOMES };
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, OUTCOMES);
  __type(key, __u32);
  __type(value, __u64);
} outcomes SEC(".maps");

static __always_inline void count(__u32 outcome) {
  __u64* packets = bpf_map_lookup_elem(&outcomes, &outcome);
  if (packets) ++*packets;
}

// What steering looks at of an IP packet; ports 0 where there are none.
struct packet {
  struct source source;
  struct address destination;
};

static __always_inline void set_v4(struct address* to, __be32 address) {
  __builtin_memset(to->bytes, 0, 10);
  to->bytes[10] = 0xff;
  to->bytes[11] = 0xff;
  __builtin_memcpy(&to->bytes[12], &address, 4);
}

// Reads the addresses of the IP header at `ip`, of version 4 or 6, and says where the next header is; 0 if it is not whole.
// `later`: set if no ports stand there: a later fragment, or a header that says wrong things of itself. A VIP gets that all
// the same: lb drops it by name.
static __always_inline void* read_addresses(void* header, const void* end, int version, struct packet* out, int* later) {
  if (version == 4) {
    const struct iphdr* ip = header;
    if ((const void*)(ip + 1) > end) return 0;
    set_v4(&out->source.address, ip->saddr);
    set_v4(&out->destination, ip->daddr);
    out->source.protocol = ip->protocol;
    *later = (ip->frag_off & bpf_htons(FRAGMENT_OFFSET)) != 0 || ip->version != 4 || ip->ihl < 5;
    return header + ip->ihl * 4;
  }
  const struct ipv6hdr* ip = header;
  if ((const void*)(ip + 1) > end) return 0;
  *later = ip->version != 6;
  __builtin_memcpy(out->source.address.bytes, &ip->saddr, 16);
  __builtin_memcpy(out->destination.bytes, &ip->daddr, 16);
  out->source.protocol = ip->nexthdr;
  return header + sizeof(*ip);
}

static __always_inline int is_return_source(struct source* source, __be16 port) {
  if (source->protocol != IPPROTO_TCP && source->protocol != IPPROTO_UDP) return 0;
  source->port = bpf_ntohs(port);
  return bpf_map_lookup_elem(&returns, source) != 0;
}

// Whether the packet comes from a nat target's address and port, or is an ICMP error about a packet sent there.
static __always_inline int is_return(struct packet* packet, void* l4, const void* end, int version) {
  const __be16* ports = l4;
  if ((const void*)(ports + 2) > end) return 0;
  const __u8 protocol = packet->source.protocol;
  if (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP) return is_return_source(&packet->source, ports[0]);
  if (protocol != (version == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6)) return 0;
  const __u8 type = *(const __u8*)l4;
  if (version == 4 ? type != 3 && type != 11 && type != 12 : type < 1 || type > 4) return 0;
  struct packet quoted = {};
  int later = 0;
  __be16* quoted_ports = read_addresses(l4 + ICMP_BYTES, end, version, &quoted, &later);
  if (!quoted_ports || later || (const void*)(quoted_ports + 2) > end) return 0;
  quoted.source.address = quoted.destination;
  return is_return_source(&quoted.source, quoted_ports[1]);
}

static __always_inline int is_vip(const struct address* destination) {
  if (bpf_map_lookup_elem(&vips, destination)) return 1;
  struct prefix key = {.bits = 128, .address = *destination};
  return bpf_map_lookup_elem(&vip_prefixes, &key) != 0;
}

// Also to a VIP or SNAT address that stands on an interface: the kernel answers for it, as it does by ARP.
static __always_inline int is_neighbour_discovery(const struct packet* packet, const void* l4, const void* end,
                                                  int version) {
  const __u8* type = l4;
  if (version != 6 || packet->source.protocol != IPPROTO_ICMPV6 || (const void*)(type + 1) > end) return 0;
  return *type >= 133 && *type <= 137;
}

// UDP 6081 to a tunnel source.
static __always_inline int is_from_appliance(const struct packet* packet, const void* l4, const void* end) {
  const __be16* ports = l4;
  if (packet->source.protocol != IPPROTO_UDP || (const void*)(ports + 2) > end || ports[1] != bpf_htons(GENEVE_PORT))
    return 0;
  struct prefix key = {.bits = 128, .address = packet->destination};
  return bpf_map_lookup_elem(&tunnel_ends, &key) != 0;
}

// Unicast that routers forward: to no group of hosts, and neither from nor to an address of this link alone.
static __always_inline int is_routed(const struct address* address, int version) {
  if (version == 4) return address->bytes[12] < 224 && !(address->bytes[12] == 169 && address->bytes[13] == 254);
  return address->bytes[0] != 0xff && !(address->bytes[0] == 0xfe && (address->bytes[1] & 0xc0) == 0x80);
}

static __always_inline int is_for_gateway(const struct ethhdr* ethernet, const struct packet* packet, int version) {
  const __u32 zero = 0;
  const __u32* all = bpf_map_lookup_elem(&everything, &zero);
  return all && *all && !(ethernet->h_dest[0] & 1) && is_routed(&packet->destination, version) &&
         is_routed(&packet->source.address, version);
}

// Whether the frame is a worker's.
static __always_inline int is_steered(const struct xdp_md* context) {
  const void* const end = (const void*)(long)context->data_end;
  const struct ethhdr* ethernet = (const void*)(long)context->data;
  if ((const void*)(ethernet + 1) > end) return 0;
  __be16 ether_type = ethernet->h_proto;
  void* next = (void*)(ethernet + 1);
#pragma unroll
  for (int i = 0; i < MAX_VLAN_TAGS; ++i) {
    if (ether_type != bpf_htons(ETH_P_8021Q) && ether_type != bpf_htons(ETH_P_8021AD)) break;
    const struct vlan_header* tag = next;
    if ((const void*)(tag + 1) > end) return 0;
    ether_type = tag->ether_type;
    next = (void*)(tag + 1);
  }
  const int version = ether_type == bpf_htons(ETH_P_IP) ? 4 : ether_type == bpf_htons(ETH_P_IPV6) ? 6 : 0;
  struct packet packet = {};
  int later = 0;
  void* l4 = version ? read_addresses(next, end, version, &packet, &later) : 0;
  if (!l4 || is_neighbour_discovery(&packet, l4, end, version)) return 0;
  if (is_vip(&packet.destination)) return 1;
  if (!later && is_from_appliance(&packet, l4, end)) return 1;
  if (bpf_map_lookup_elem(&own_addresses, &packet.destination)) return 0;
  return is_for_gateway(ethernet, &packet, version) || (!later && is_return(&packet, l4, end, version));
}

SEC("xdp")
int xsk_def_prog(struct xdp_md* context) {
  if (!is_steered(context)) {
    count(PASSED);
    return XDP_PASS;
  }
  const int action = bpf_redirect_map(&xsks_map, context->rx_queue_index, XDP_DROP);
  count(action == XDP_REDIRECT ? STEERED : DROPPED_NO_SOCKET);
  return action;
}

char _license[] SEC("license") = "Dual BSD/GPL";
__uint(xsk_prog_version, 1) SEC("xdp_metadata");
