// What bpf/probe.bpf.c shares with lb-cp (cp/net/probe_tunnel.cc): plain C.
#pragma once

enum {
  PROBE_MOST_WAYS = 1 << 20,
  PROBE_MOST_FLOWS = 1 << 16,
};

enum probe_kind { PROBE_L2DSR, PROBE_IPIP, PROBE_GUE, PROBE_GRE };

enum {
  PROBE_KEYED = 1,          // gre: `word` is the key
  PROBE_ZERO_CHECKSUM = 2,  // gue over IPv6: RFC 6935
};

// Network order, IPv4 as ::ffff:a.b.c.d.
struct probe_address {
  unsigned char bytes[16];
};

// How packets of a socket with some mark get to their target. Writer: lb-cp, before each probe.
struct probe_way {
  struct probe_address source;  // of the outer header, unless l2dsr
  struct probe_address destination;
  unsigned char next_hop_mac[6];
  unsigned char source_mac[6];
  unsigned int ifindex;
  unsigned int word;    // gue: UDP destination port; gre: key
  unsigned short vlan;  // 0: none
  unsigned char kind;   // enum probe_kind
  unsigned char flags;
};
