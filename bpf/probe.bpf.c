// Health probes through the tunnel: a probe is an ordinary socket of lb-cp's, connected to the VIP and bound to a TUN device
// of lb-cp's own. Its packets leave that device encapsulated as the packets of clients are, and so reach the VIP on one
// target; what the target answers, from the VIP to this host, is brought back to the device:
//
//   socket, mark M ─▶ lb-probe ─ probe_out: ways[M] ─▶ Ethernet │ outer IP │ UDP, GUE / GRE │ inner packet ─▶ port ─▶ target
//          ▲                        note the flow                                                                │
//          └───────────── lb-probe ◀─ probe_in: a flow that was noted ◀─ port ◀──────── from the VIP, no tunnel ─┘
//
// Since no packet is routed by the VIP, this host may have the VIP on its own loopback. Of all other packets none is
// touched. bpf_helpers.h needs the types of linux/bpf.h before it.
// clang-format off
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
// clang-format on

#include "bpf/probe.h"

#define TTL 64
#define DONT_FRAGMENT 0x4000
#define IS_FRAGMENT 0x3fff
#define GRE_KEY 0x2000
#define GUE_SOURCE_PORT 0xc000
#define TC_NEXT (-1)  // the next filter, if there is one

volatile const __u32 device;  // ifindex of the TUN device

// By mark.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, PROBE_MOST_WAYS);
  __type(key, __u32);
  __type(value, struct probe_way);
} ways SEC(".maps");

// A probe as its answers name it; ports in network order. ICMP: own_port is the identifier.
struct probe_flow {
  struct probe_address vip;
  struct probe_address own;
  __be16 vip_port;
  __be16 own_port;
  __u32 protocol;
};

struct {
  __uint(type, BPF_MAP_TYPE_LRU_HASH);
  __uint(max_entries, PROBE_MOST_FLOWS);
  __type(key, struct probe_flow);
  __type(value, __u8);
} flows SEC(".maps");

struct gue_header {
  struct udphdr udp;
  __u8 control;
  __u8 protocol;
  __be16 flags;
};

struct gre_header {
  __be16 flags;
  __be16 ether_type;
  __be32 key;
};

// The packet as read().
struct packet {
  struct probe_address source;
  struct probe_address destination;
  __be16 source_port;
  __be16 destination_port;
  __u32 protocol;
  __u32 bytes;        // IP header included
  __u32 l4_bytes;     // behind it
  __wsum header_sum;  // of the IP header
  __u32 is_v6;
};

static __always_inline void put_v4(struct probe_address* to, __be32 address) {
  to->bytes[10] = to->bytes[11] = 0xff;
  __builtin_memcpy(to->bytes + 12, &address, 4);
}

// Reads the IP packet at `offset`; not 0: not one that a probe sends or gets.
static __always_inline int read_packet(struct __sk_buff* skb, __u32 offset, struct packet* out) {
  __u8 version = 0;
  if (bpf_skb_load_bytes(skb, offset, &version, 1)) return -1;
  if (version >> 4 == 4) {
    struct iphdr ip;
    if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) || ip.ihl != 5 || (ip.frag_off & bpf_htons(IS_FRAGMENT))) return -1;
    put_v4(&out->source, ip.saddr);
    put_v4(&out->destination, ip.daddr);
    out->protocol = ip.protocol;
    out->bytes = bpf_ntohs(ip.tot_len);
    out->l4_bytes = out->bytes - sizeof(ip);
    offset += sizeof(ip);
  } else {
    struct ipv6hdr ip;
    if (version >> 4 != 6 || bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip))) return -1;
    __builtin_memcpy(out->source.bytes, &ip.saddr, 16);
    __builtin_memcpy(out->destination.bytes, &ip.daddr, 16);
    out->protocol = ip.nexthdr;
    out->l4_bytes = bpf_ntohs(ip.payload_len);
    out->bytes = out->l4_bytes + sizeof(ip);
    out->header_sum = bpf_csum_diff(0, 0, (__be32*)&ip, sizeof(ip), 0);
    out->is_v6 = 1;
    offset += sizeof(ip);
  }
  __be16 head[4];
  if (bpf_skb_load_bytes(skb, offset, head, sizeof(head))) return -1;
  out->source_port = head[0];
  out->destination_port = head[1];
  if (out->protocol == IPPROTO_TCP || out->protocol == IPPROTO_UDP) return 0;
  if (out->protocol != IPPROTO_ICMP && out->protocol != IPPROTO_ICMPV6) return -1;
  out->source_port = out->destination_port = head[2];
  return 0;
}

static __always_inline __u16 fold(__u64 sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return (__u16)sum;
}

// Of the bytes behind the inner IP header: the L4 checksum, which may not have been computed yet, makes them the complement
// of the pseudo header. ICMP over IPv4 has none.
static __always_inline __u16 l4_sum(struct packet* inner) {
  if (inner->protocol == IPPROTO_ICMP) return 0;
  __u64 sum = bpf_htonl(inner->l4_bytes);
  sum += bpf_htonl(inner->protocol);
  if (inner->is_v6) {
    sum += (__u32)bpf_csum_diff(0, 0, (__be32*)&inner->source, 2 * sizeof(inner->source), 0);
  } else {
    sum += *(__u32*)(inner->source.bytes + 12);
    sum += *(__u32*)(inner->destination.bytes + 12);
  }
  return ~fold(sum);
}

static __always_inline __u16 gue_checksum(struct probe_way* way, struct gue_header* gue, struct packet* inner) {
  __u64 sum = (__u32)bpf_csum_diff(0, 0, (__be32*)&way->source, 2 * sizeof(way->source), 0);
  sum += (__u32)bpf_csum_diff(0, 0, (__be32*)gue, sizeof(*gue), 0);
  sum += bpf_htonl(sizeof(*gue) + inner->bytes);
  sum += bpf_htonl(IPPROTO_UDP);
  sum += (__u32)inner->header_sum;  // of IPv4 none: its own checksum makes it nothing
  sum += l4_sum(inner);
  __u16 checksum = ~fold(sum);
  return checksum ? checksum : 0xffff;
}

static __always_inline int write_outer_v4(struct __sk_buff* skb, struct probe_way* way, __u8 protocol, __u32 bytes) {
  struct iphdr ip = {.version = 4, .ihl = 5, .ttl = TTL, .protocol = protocol};
  ip.tot_len = bpf_htons(sizeof(ip) + bytes);
  ip.frag_off = bpf_htons(DONT_FRAGMENT);
  __builtin_memcpy(&ip.saddr, way->source.bytes + 12, 4);
  __builtin_memcpy(&ip.daddr, way->destination.bytes + 12, 4);
  ip.check = ~fold((__u32)bpf_csum_diff(0, 0, (__be32*)&ip, sizeof(ip), 0));
  return bpf_skb_store_bytes(skb, 0, &ip, sizeof(ip), 0);
}

static __always_inline int write_outer_v6(struct __sk_buff* skb, struct probe_way* way, __u8 protocol, __u32 bytes) {
  struct ipv6hdr ip = {.version = 6, .nexthdr = protocol, .hop_limit = TTL};
  ip.payload_len = bpf_htons(bytes);
  __builtin_memcpy(&ip.saddr, way->source.bytes, 16);
  __builtin_memcpy(&ip.daddr, way->destination.bytes, 16);
  return bpf_skb_store_bytes(skb, 0, &ip, sizeof(ip), 0);
}

static __always_inline int encapsulate(struct __sk_buff* skb, struct probe_way* way, struct packet* inner, int outer_is_v6) {
  const __u8 inner_protocol = inner->is_v6 ? IPPROTO_IPV6 : IPPROTO_IPIP;
  const __u32 outer = outer_is_v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
  __u64 flags = outer_is_v6 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV4;
  __u8 protocol = inner_protocol;
  __u32 header = 0;
  if (way->kind == PROBE_GUE) {
    header = sizeof(struct gue_header);
    protocol = IPPROTO_UDP;
    flags |= BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
  } else if (way->kind == PROBE_GRE) {
    header = way->flags & PROBE_KEYED ? sizeof(struct gre_header) : sizeof(struct gre_header) - sizeof(__be32);
    protocol = IPPROTO_GRE;
    flags |= BPF_F_ADJ_ROOM_ENCAP_L4_GRE;
  }
  if (bpf_skb_adjust_room(skb, outer + header, BPF_ADJ_ROOM_MAC, flags)) return -1;
  const __u32 bytes = header + inner->bytes;
  if (outer_is_v6 ? write_outer_v6(skb, way, protocol, bytes) : write_outer_v4(skb, way, protocol, bytes)) return -1;
  if (way->kind == PROBE_GUE) {
    struct gue_header gue = {.protocol = inner_protocol};
    gue.udp.source = bpf_htons(GUE_SOURCE_PORT | (bpf_ntohs(inner->source_port) & 0x3fff));
    gue.udp.dest = bpf_htons(way->word);
    gue.udp.len = bpf_htons(bytes);
    if (outer_is_v6 && !(way->flags & PROBE_ZERO_CHECKSUM)) gue.udp.check = gue_checksum(way, &gue, inner);
    return bpf_skb_store_bytes(skb, outer, &gue, sizeof(gue), 0);
  }
  if (way->kind == PROBE_GRE) {
    struct gre_header gre = {.ether_type = bpf_htons(inner->is_v6 ? ETH_P_IPV6 : ETH_P_IP)};
    if (!(way->flags & PROBE_KEYED)) return bpf_skb_store_bytes(skb, outer, &gre, sizeof(gre) - sizeof(gre.key), 0);
    gre.flags = bpf_htons(GRE_KEY);
    gre.key = bpf_htonl(way->word);
    return bpf_skb_store_bytes(skb, outer, &gre, sizeof(gre), 0);
  }
  return 0;
}

static __always_inline int is_v4(const struct probe_address* address) {
  const __u32* words = (const __u32*)address->bytes;
  return !words[0] && !words[1] && words[2] == bpf_htonl(0xffff);
}

// Egress of the TUN device: packets begin with their IP header. What is no probe's ends here.
SEC("tc") int probe_out(struct __sk_buff* skb) {
  __u32 mark = skb->mark;
  struct probe_way* way = bpf_map_lookup_elem(&ways, &mark);
  if (!way) return TC_ACT_SHOT;
  struct packet inner = {};
  if (read_packet(skb, 0, &inner)) return TC_ACT_SHOT;
  struct probe_flow flow = {.vip = inner.destination,
                            .own = inner.source,
                            .vip_port = inner.destination_port,
                            .own_port = inner.source_port,
                            .protocol = inner.protocol};
  const __u8 present = 1;
  if (bpf_map_update_elem(&flows, &flow, &present, BPF_ANY)) return TC_ACT_SHOT;
  int is_v6 = inner.is_v6;
  if (way->kind != PROBE_L2DSR) {
    is_v6 = !is_v4(&way->destination);
    if (is_v6 ? encapsulate(skb, way, &inner, 1) : encapsulate(skb, way, &inner, 0)) return TC_ACT_SHOT;
  }
  struct ethhdr link = {.h_proto = is_v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP)};
  __builtin_memcpy(link.h_dest, way->next_hop_mac, ETH_ALEN);
  __builtin_memcpy(link.h_source, way->source_mac, ETH_ALEN);
  if (bpf_skb_change_head(skb, sizeof(link), 0) || bpf_skb_store_bytes(skb, 0, &link, sizeof(link), 0)) return TC_ACT_SHOT;
  if (way->vlan && bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), way->vlan)) return TC_ACT_SHOT;
  return bpf_redirect(way->ifindex, 0);
}

// Ingress of the ports.
SEC("tc") int probe_in(struct __sk_buff* skb) {
  if (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6)) return TC_NEXT;
  struct packet answer = {};
  if (read_packet(skb, sizeof(struct ethhdr), &answer)) return TC_NEXT;
  struct probe_flow flow = {.vip = answer.source,
                            .own = answer.destination,
                            .vip_port = answer.source_port,
                            .own_port = answer.destination_port,
                            .protocol = answer.protocol};
  if (!bpf_map_lookup_elem(&flows, &flow)) return TC_NEXT;
  if (skb->vlan_present && bpf_skb_vlan_pop(skb)) return TC_NEXT;
  return bpf_redirect(device, BPF_F_INGRESS);
}

char LICENSE[] SEC("license") = "Apache-2.0";
