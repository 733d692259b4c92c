// Which packets of an AF_XDP port belong to lb's workers: those addressed to a VIP. Everything else stays with the kernel.
//
//   frame ── VLAN tags (≤ 2) looked through ── IPv4/IPv6 destination in `vips`, or
//              in a prefix of `vip_prefixes`? ── yes → socket of this queue, or drop
//                                             └─ no  → XDP_PASS
//
// Attached by dp/io/steering.cc before DPDK starts. The names xsk_def_prog, xsks_map and xsk_prog_version are those by which
// libxdp recognises a program that it may use as it is (it then only enters its sockets into xsks_map).
// Steered packets never fall back to the kernel: a kernel that does not own the VIP would answer or forward them.
// clang-format off
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
// clang-format on

#define MAX_VLAN_TAGS 2
#define MAX_QUEUES 64
#define MAX_VIPS 65536

// As abi::IpAddress: network order, IPv4 as ::ffff:a.b.c.d.
struct address {
  __u8 bytes[16];
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

// The VIPs of the generations that are alive. Writer: lb-dp's main thread.
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

// Reads the destination address into `out`; 0 if the frame is not a whole IPv4 or IPv6 header.
static __always_inline int read_destination(const struct xdp_md* context, struct address* out) {
  const void* const end = (const void*)(long)context->data_end;
  const struct ethhdr* ethernet = (const void*)(long)context->data;
  if ((const void*)(ethernet + 1) > end) return 0;
  __be16 ether_type = ethernet->h_proto;
  const void* next = ethernet + 1;
#pragma unroll
  for (int i = 0; i < MAX_VLAN_TAGS; ++i) {
    if (ether_type != bpf_htons(ETH_P_8021Q) && ether_type != bpf_htons(ETH_P_8021AD)) break;
    const struct vlan_header* tag = next;
    if ((const void*)(tag + 1) > end) return 0;
    ether_type = tag->ether_type;
    next = tag + 1;
  }
  if (ether_type == bpf_htons(ETH_P_IP)) {
    const struct iphdr* ip = next;
    if ((const void*)(ip + 1) > end) return 0;
    out->bytes[10] = 0xff;
    out->bytes[11] = 0xff;
    __builtin_memcpy(&out->bytes[12], &ip->daddr, 4);
    return 1;
  }
  if (ether_type == bpf_htons(ETH_P_IPV6)) {
    const struct ipv6hdr* ip = next;
    if ((const void*)(ip + 1) > end) return 0;
    __builtin_memcpy(out->bytes, &ip->daddr, 16);
    return 1;
  }
  return 0;
}

static __always_inline int is_vip(const struct address* destination) {
  if (bpf_map_lookup_elem(&vips, destination)) return 1;
  struct prefix key = {.bits = 128, .address = *destination};
  return bpf_map_lookup_elem(&vip_prefixes, &key) != 0;
}

SEC("xdp")
int xsk_def_prog(struct xdp_md* context) {
  struct address destination = {};
  if (!read_destination(context, &destination) || !is_vip(&destination)) {
    count(PASSED);
    return XDP_PASS;
  }
  const int action = bpf_redirect_map(&xsks_map, context->rx_queue_index, XDP_DROP);
  count(action == XDP_REDIRECT ? STEERED : DROPPED_NO_SOCKET);
  return action;
}

char _license[] SEC("license") = "Dual BSD/GPL";
__uint(xsk_prog_version, 1) SEC("xdp_metadata");
