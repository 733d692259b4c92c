// Takes tunnel packets for this host out of their tunnel, for targets of forwarding modes ipip, gue and gre: the inner
// packet, addressed to the VIP, goes on into the host's own stack.
//
//   Ethernet, tags │ outer IP (20 or 40) │ ipip: –                    │ inner IP …   ─▶   Ethernet, tags │ inner IP …
//                                        │ gue: UDP 8, GUE 0 or 4     │
//                                        │ gre: 4, with a key 8       │
//
// GUE comes to the UDP ports in `gue_ports`, in variant 0 without options or in variant 1. A GRE key of any value is taken.
//
// Two programs share one body: decap_xdp, and decap_tc for interfaces that take no XDP. Only packets whose outer destination
// is in `addresses` are touched. ECN as RFC 6040 §4.2 says. Attached by target/decap.cc.
// bpf_helpers.h needs the types of linux/bpf.h before it.
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

#include "bpf/decap.h"

#define MAX_VLAN_TAGS 2
#define MORE_OR_OFFSET 0x3fff  // more-fragments flag and fragment offset
#define OFFSET 0x1fff
#define GRE_KEY 0x2000  // a key follows
#define GUE_BYTES 4
#define ECN_MASK 3
#define ECN_ECT1 1
#define ECN_ECT0 2
#define ECN_CE 3
#define NOT_OURS (-1)

// Network order, IPv4 as ::ffff:a.b.c.d.
struct address {
  __u8 bytes[16];
};

struct vlan_header {
  __be16 tci;
  __be16 ether_type;
};

struct gre_header {
  __be16 flags;
  __be16 ether_type;
};

// Outer destinations to decapsulate. Writer: lb-target.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, DECAP_MAX_ADDRESSES);
  __type(key, struct address);
  __type(value, __u8);
} addresses SEC(".maps");

// UDP destination ports of GUE, host order. Writer: lb-target.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, DECAP_MAX_GUE_PORTS);
  __type(key, __u16);
  __type(value, __u8);
} gue_ports SEC(".maps");

// Packets by enum decap_counter, per CPU.
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, DECAP_COUNTERS);
  __type(key, __u32);
  __type(value, __u64);
} counters SEC(".maps");

static __always_inline void count(__u32 counter) {
  __u64* packets = bpf_map_lookup_elem(&counters, &counter);
  if (packets) ++*packets;
}

// A tunnel packet as inspect() found it.
struct tunnel {
  __u32 tags;          // VLAN tags, 0…MAX_VLAN_TAGS
  __u32 inner_offset;  // bytes from the start of the frame
  __u32 outer_bytes;   // to remove: of the outer IP header and what follows it
  __u32 header_bytes;  // … of the latter alone
  __u32 counter;       // of a packet delivered
  __u32 inner_is_v6;
  __u32 remark;    // 1: the inner header gets the two values below
  __u8 first[2];   // bytes 0 and 1 of the inner header, with their new ECN bits
  __u16 checksum;  // IPv4 only
};

static __always_inline __u16 fold(__u64 sum) {
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return (__u16)sum;
}

static __always_inline int is_local_v4(__be32 address) {
  struct address key = {.bytes = {[10] = 0xff, [11] = 0xff}};
  __builtin_memcpy(key.bytes + 12, &address, 4);
  return bpf_map_lookup_elem(&addresses, &key) != 0;
}

static __always_inline int is_local_v6(const struct in6_addr* address) {
  struct address key;
  __builtin_memcpy(key.bytes, address, 16);
  return bpf_map_lookup_elem(&addresses, &key) != 0;
}

// The outer IP header as inspect_outer() found it.
struct outer {
  __u32 bytes;    // of the IP header
  __u32 payload;  // bytes after it
  __u8 protocol;
  __u8 ecn;
};

static __always_inline int is_gue_port(__be16 port) {
  __u16 key = bpf_ntohs(port);
  return bpf_map_lookup_elem(&gue_ports, &key) != 0;
}

// Whether `header`, behind an IP header with this protocol, is that of one of lb's tunnels. Other GRE and UDP is the host's.
static __always_inline int is_tunnel(__u8 protocol, void* header, void* end) {
  if (protocol == IPPROTO_IPIP || protocol == IPPROTO_IPV6) return 1;
  if (protocol == IPPROTO_UDP) {
    struct udphdr* udp = header;
    return (void*)(udp + 1) <= end && is_gue_port(udp->dest);
  }
  struct gre_header* gre = header;
  if (protocol != IPPROTO_GRE || (void*)(gre + 1) > end || (gre->flags & ~bpf_htons(GRE_KEY))) return 0;
  return gre->ether_type == bpf_htons(ETH_P_IP) || gre->ether_type == bpf_htons(ETH_P_IPV6);
}

// Checks the outer header. Returns 0, NOT_OURS or a counter.
static __always_inline int inspect_outer_v4(struct iphdr* ip, void* end, __u32 bytes, struct outer* out) {
  if ((void*)(ip + 1) > end || !is_local_v4(ip->daddr)) return NOT_OURS;
  // What a later fragment of UDP or GRE holds cannot be told.
  __u16 fragment = bpf_ntohs(ip->frag_off) & MORE_OR_OFFSET;
  int is_plain = ip->protocol == IPPROTO_IPIP || ip->protocol == IPPROTO_IPV6;
  if (!is_plain && ((fragment & OFFSET) || ip->ihl != 5)) return NOT_OURS;
  if (!is_tunnel(ip->protocol, ip + 1, end)) return NOT_OURS;
  if (fragment) return DECAP_FRAGMENT;
  // lb sends no options; with none, the checksum has a fixed length for the verifier.
  __u32 total = bpf_ntohs(ip->tot_len);
  if (ip->version != 4 || ip->ihl != 5 || total < sizeof(*ip) || total > bytes) return DECAP_MALFORMED;
  __u32* words = (__u32*)ip;
  __u64 sum = 0;
#pragma unroll
  for (int i = 0; i < 5; ++i) sum += words[i];
  if (fold(sum) != 0xffff) return DECAP_MALFORMED;
  out->bytes = sizeof(*ip);
  out->payload = total - sizeof(*ip);
  out->protocol = ip->protocol;
  out->ecn = ip->tos & ECN_MASK;
  return 0;
}

static __always_inline int inspect_outer_v6(struct ipv6hdr* ip, void* end, __u32 bytes, struct outer* out) {
  if ((void*)(ip + 1) > end || !is_local_v6(&ip->daddr) || !is_tunnel(ip->nexthdr, ip + 1, end)) return NOT_OURS;
  out->payload = bpf_ntohs(ip->payload_len);
  if (ip->version != 6 || out->payload + sizeof(*ip) > bytes) return DECAP_MALFORMED;
  out->bytes = sizeof(*ip);
  out->protocol = ip->nexthdr;
  out->ecn = (((__u8*)ip)[1] >> 4) & ECN_MASK;
  return 0;
}

// Which inner family a GUE header announces, 4 or 6, or 0: malformed. *bytes: of the UDP and GUE headers.
static __always_inline int inspect_gue(struct udphdr* udp, void* end, __u32* bytes) {
  __u8* gue = (void*)(udp + 1);
  if ((void*)(gue + GUE_BYTES) > end) return 0;
  *bytes = sizeof(*udp);
  if (gue[0] >> 6 == 1) return gue[0] >> 4;  // variant 1 is the inner packet itself
  *bytes += GUE_BYTES;
  if (gue[0] || gue[2] || gue[3]) return 0;  // control messages and options
  return gue[1] == IPPROTO_IPIP ? 4 : gue[1] == IPPROTO_IPV6 ? 6 : 0;
}

// Checks what is between the outer IP header and the inner one, and lowers outer->payload to the bytes behind it.
static __always_inline int inspect_header(void* header, void* end, struct outer* outer, struct tunnel* out) {
  __u32 bytes = 0;
  __u32 kind = 0;  // of the tunnel, as enum decap_counter orders them
  int family = outer->protocol == IPPROTO_IPV6 ? 6 : 4;
  if (outer->protocol == IPPROTO_UDP) {
    struct udphdr* udp = header;
    if ((void*)(udp + 1) > end) return DECAP_MALFORMED;
    __u32 udp_bytes = bpf_ntohs(udp->len);
    if (udp_bytes > outer->payload) return DECAP_MALFORMED;
    outer->payload = udp_bytes;
    family = inspect_gue(udp, end, &bytes);
    kind = DECAP_GUE_IPV4_IN_IPV4;
  } else if (outer->protocol == IPPROTO_GRE) {
    struct gre_header* gre = header;
    if ((void*)(gre + 1) > end) return DECAP_MALFORMED;
    bytes = gre->flags ? 2 * sizeof(*gre) : sizeof(*gre);
    family = gre->ether_type == bpf_htons(ETH_P_IPV6) ? 6 : 4;
    kind = DECAP_GRE_IPV4_IN_IPV4;
  }
  if ((family != 4 && family != 6) || outer->payload < bytes) return DECAP_MALFORMED;
  outer->payload -= bytes;
  out->outer_bytes = outer->bytes + bytes;
  out->header_bytes = bytes;
  out->inner_offset += out->outer_bytes;
  out->inner_is_v6 = family == 6;
  out->counter = kind + (outer->bytes == sizeof(struct ipv6hdr) ? 2 : 0) + out->inner_is_v6;
  return 0;
}

// The ECN bits of the inner packet after decapsulation, or -1: to be dropped (RFC 6040 figure 4).
static __always_inline int merge_ecn(__u8 outer, __u8 inner) {
  if (outer == ECN_CE) return inner == 0 ? -1 : ECN_CE;
  if (outer == ECN_ECT1 && inner == ECN_ECT0) return ECN_ECT1;
  return inner;
}

// Checks the inner header against the `payload` bytes of the outer packet, and plans its ECN bits.
static __always_inline int inspect_inner(void* inner, void* end, __u32 payload, __u8 outer_ecn, struct tunnel* out) {
  __u8* bytes = inner;
  if (out->inner_is_v6) {
    struct ipv6hdr* ip = inner;
    if ((void*)(ip + 1) > end || ip->version != 6 || bpf_ntohs(ip->payload_len) + sizeof(*ip) > payload)
      return DECAP_MALFORMED;
    __u8 old = (bytes[1] >> 4) & ECN_MASK;
    int ecn = merge_ecn(outer_ecn, old);
    if (ecn < 0) return DECAP_CONGESTION;
    out->remark = ecn != old;
    out->first[0] = bytes[0];
    out->first[1] = (bytes[1] & ~(ECN_MASK << 4)) | ecn << 4;
    return 0;
  }
  struct iphdr* ip = inner;
  if ((void*)(ip + 1) > end || ip->version != 4 || ip->ihl < 5) return DECAP_MALFORMED;
  __u32 total = bpf_ntohs(ip->tot_len);
  if (total < ip->ihl * 4U || total > payload) return DECAP_MALFORMED;
  __u8 old = ip->tos & ECN_MASK;
  int ecn = merge_ecn(outer_ecn, old);
  if (ecn < 0) return DECAP_CONGESTION;
  out->remark = ecn != old;
  out->first[0] = bytes[0];
  out->first[1] = (ip->tos & ~ECN_MASK) | ecn;
  // RFC 1624 on the word (version, IHL, TOS); the TOS is its high byte as read here.
  out->checksum = ~fold((__u64)(__u16)~ip->check + (__u16) ~(bytes[0] | ip->tos << 8) + (bytes[0] | out->first[1] << 8));
  return 0;
}

// Returns the counter of a packet to decapsulate (`out` says how), the counter of one to drop, or NOT_OURS.
static __always_inline int inspect(void* data, void* end, __u32 frame_bytes, struct tunnel* out) {
  struct ethhdr* eth = data;
  if ((void*)(eth + 1) > end) return NOT_OURS;
  __be16 ether_type = eth->h_proto;
  __u32 offset = sizeof(*eth);
#pragma unroll
  for (int i = 0; i < MAX_VLAN_TAGS; ++i) {
    if (ether_type != bpf_htons(ETH_P_8021Q) && ether_type != bpf_htons(ETH_P_8021AD)) break;
    struct vlan_header* tag = data + offset;
    if ((void*)(tag + 1) > end) return NOT_OURS;
    ether_type = tag->ether_type;
    offset += sizeof(*tag);
    ++out->tags;
  }
  struct outer outer = {};
  out->inner_offset = offset;
  int outer_is_v6 = ether_type == bpf_htons(ETH_P_IPV6);
  if (!outer_is_v6 && ether_type != bpf_htons(ETH_P_IP)) return NOT_OURS;
  int wrong = outer_is_v6 ? inspect_outer_v6(data + offset, end, frame_bytes - offset, &outer)
                          : inspect_outer_v4(data + offset, end, frame_bytes - offset, &outer);
  if (wrong) return wrong;
  wrong = inspect_header(data + offset + outer.bytes, end, &outer, out);
  if (wrong) return wrong;
  wrong = inspect_inner(data + out->inner_offset, end, outer.payload, outer.ecn, out);
  return wrong ? wrong : (int)out->counter;
}

static __always_inline int is_drop(int counter) {
  return counter >= DECAP_MALFORMED;
}

// Moves the Ethernet header and its `tags` tags up to the inner packet. `tags` is a constant in every use.
static __always_inline int strip_xdp(struct xdp_md* ctx, __u32 tags, const struct tunnel* tunnel) {
  void* data = (void*)(long)ctx->data;
  void* end = (void*)(long)ctx->data_end;
  const __u32 link_bytes =
      sizeof(struct ethhdr) - sizeof(__be16) + tags * sizeof(struct vlan_header);  // less the last EtherType
  __u8 link[sizeof(struct ethhdr) + MAX_VLAN_TAGS * sizeof(struct vlan_header)];
  if (data + link_bytes > end) return -1;
  __builtin_memcpy(link, data, link_bytes);
  if (bpf_xdp_adjust_head(ctx, tunnel->outer_bytes)) return -1;
  data = (void*)(long)ctx->data;
  end = (void*)(long)ctx->data_end;
  __u8* inner = data + link_bytes + sizeof(__be16);
  if (inner + sizeof(struct iphdr) > (__u8*)end) return -1;
  __builtin_memcpy(data, link, link_bytes);
  *(__be16*)(data + link_bytes) = bpf_htons(tunnel->inner_is_v6 ? ETH_P_IPV6 : ETH_P_IP);
  if (tunnel->remark) {
    inner[0] = tunnel->first[0];
    inner[1] = tunnel->first[1];
    if (!tunnel->inner_is_v6) ((struct iphdr*)inner)->check = tunnel->checksum;
  }
  return 0;
}

SEC("xdp.frags") int decap_xdp(struct xdp_md* ctx) {
  struct tunnel tunnel = {};
  int counter = inspect((void*)(long)ctx->data, (void*)(long)ctx->data_end, bpf_xdp_get_buff_len(ctx), &tunnel);
  if (counter == NOT_OURS) return XDP_PASS;
  int failed = 0;
  if (!is_drop(counter)) {
    if (tunnel.tags == 0) {
      failed = strip_xdp(ctx, 0, &tunnel);
    } else if (tunnel.tags == 1) {
      failed = strip_xdp(ctx, 1, &tunnel);
    } else {
      failed = strip_xdp(ctx, 2, &tunnel);
    }
  }
  if (failed) counter = DECAP_FAILED;
  count(counter);
  return is_drop(counter) ? XDP_DROP : XDP_PASS;
}

// The kernel has taken VLAN tags off the frame before a classifier sees it, so the link header is 14 bytes.
static __always_inline int strip_tc(struct __sk_buff* skb, const struct tunnel* tunnel) {
  if (tunnel->tags) return -1;
  if (tunnel->remark) {
    if (bpf_skb_store_bytes(skb, tunnel->inner_offset, tunnel->first, 2, BPF_F_RECOMPUTE_CSUM)) return -1;
    if (!tunnel->inner_is_v6 && bpf_skb_store_bytes(skb, tunnel->inner_offset + __builtin_offsetof(struct iphdr, check),
                                                    &tunnel->checksum, 2, BPF_F_RECOMPUTE_CSUM)) {
      return -1;
    }
  }
  // Where the families differ, bpf_skb_change_proto() turns the outer header into one of the inner family's size and marks
  // the packet as of that family; what is left to remove is that size. Works on every kernel since 5.10.
  const __be16 inner_type = bpf_htons(tunnel->inner_is_v6 ? ETH_P_IPV6 : ETH_P_IP);
  int remove = tunnel->outer_bytes;
  if (skb->protocol != inner_type) {
    if (bpf_skb_change_proto(skb, inner_type, 0)) return -1;
    remove = tunnel->header_bytes + (tunnel->inner_is_v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
  }
  if (bpf_skb_adjust_room(skb, -remove, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO)) return -1;
  return bpf_skb_store_bytes(skb, __builtin_offsetof(struct ethhdr, h_proto), &inner_type, sizeof(inner_type), 0) ? -1 : 0;
}

SEC("tc") int decap_tc(struct __sk_buff* skb) {
  const __u32 wanted = sizeof(struct ethhdr) + 2 * sizeof(struct ipv6hdr) + sizeof(struct udphdr) + GUE_BYTES;
  const __u32 linear = skb->len < wanted ? skb->len : wanted;
  if (skb->data_end - skb->data < linear && bpf_skb_pull_data(skb, linear)) return TC_ACT_OK;
  struct tunnel tunnel = {};
  int counter = inspect((void*)(long)skb->data, (void*)(long)skb->data_end, skb->len, &tunnel);
  if (counter == NOT_OURS) return TC_ACT_OK;
  if (!is_drop(counter) && strip_tc(skb, &tunnel)) counter = DECAP_FAILED;
  count(counter);
  return is_drop(counter) ? TC_ACT_SHOT : TC_ACT_OK;
}

char LICENSE[] SEC("license") = "Apache-2.0";
