// What bpf/decap.bpf.c counts, shared with lb-target: plain C, so that both sides read the one list.
#pragma once

// X(name, text, help): text is the name in `lb-target stats`. The first twelve are packets delivered, named INNERinOUTER,
// four for each tunnel; the rest are packets dropped. Packets that are no tunnel packets for this host are passed on and not
// counted.
#define LB_DECAP_COUNTERS(X)                                                                    \
  X(IPV4_IN_IPV4, "4in4", "IPv4 packets taken out of IPv4")                                     \
  X(IPV6_IN_IPV4, "6in4", "IPv6 packets taken out of IPv4")                                     \
  X(IPV4_IN_IPV6, "4in6", "IPv4 packets taken out of IPv6")                                     \
  X(IPV6_IN_IPV6, "6in6", "IPv6 packets taken out of IPv6")                                     \
  X(GUE_IPV4_IN_IPV4, "gue-4in4", "IPv4 packets taken out of GUE over IPv4")                    \
  X(GUE_IPV6_IN_IPV4, "gue-6in4", "IPv6 packets taken out of GUE over IPv4")                    \
  X(GUE_IPV4_IN_IPV6, "gue-4in6", "IPv4 packets taken out of GUE over IPv6")                    \
  X(GUE_IPV6_IN_IPV6, "gue-6in6", "IPv6 packets taken out of GUE over IPv6")                    \
  X(GRE_IPV4_IN_IPV4, "gre-4in4", "IPv4 packets taken out of GRE over IPv4")                    \
  X(GRE_IPV6_IN_IPV4, "gre-6in4", "IPv6 packets taken out of GRE over IPv4")                    \
  X(GRE_IPV4_IN_IPV6, "gre-4in6", "IPv4 packets taken out of GRE over IPv6")                    \
  X(GRE_IPV6_IN_IPV6, "gre-6in6", "IPv6 packets taken out of GRE over IPv6")                    \
  X(MALFORMED, "malformed", "tunnel packets with wrong lengths, versions or header checksum")   \
  X(FRAGMENT, "fragment", "fragments of tunnel packets: raise the MTU towards this host")       \
  X(CONGESTION, "congestion", "marked as congested on the way, but not ECN capable (RFC 6040)") \
  X(FAILED, "failed", "the kernel could not remove the outer header")

enum decap_counter {
#define X(name, text, help) DECAP_##name,
  LB_DECAP_COUNTERS(X)
#undef X
      DECAP_COUNTERS
};

#define DECAP_MAX_ADDRESSES 256
#define DECAP_MAX_GUE_PORTS 16
