#include "target/check.h"

#include <arpa/inet.h>

#include <algorithm>

namespace lb::target {
namespace {

constexpr const char* kLoopback = "lo";

// Collects findings; a finding that is not ok needs its command.
class Findings {
 public:
  void add(bool ok, const std::string& what, const std::string& command) { list_.push_back({ok, what, ok ? "" : command}); }
  std::vector<Finding> take() { return std::move(list_); }

 private:
  std::vector<Finding> list_;
};

const LocalAddress* find(const HostFacts& host, const abi::IpAddress& address) {
  const auto found =
      std::find_if(host.addresses.begin(), host.addresses.end(), [&](const auto& a) { return a.address == address; });
  return found == host.addresses.end() ? nullptr : &*found;
}

std::string with_length(const abi::IpAddress& address) {
  return to_text(address) + (address.is_v4() ? "/32" : "/128");
}

void check_vip(const HostFacts& host, const abi::IpAddress& vip, Findings& out) {
  const std::string text = "VIP " + to_text(vip);
  const std::string add = "ip addr add " + with_length(vip) + " dev lo" + (vip.is_v4() ? "" : " nodad");
  const LocalAddress* local = find(host, vip);
  if (local == nullptr) return out.add(false, text + " is not an address of this host", add);
  if (local->interface != kLoopback) {
    return out.add(false, text + " is on " + local->interface + ", which answers for it on the link; it belongs on lo",
                   add + " && ip addr del " + with_length(vip) + " dev " + local->interface);
  }
  if (!local->usable) {
    return out.add(false, text + " is on lo, but not usable: duplicate address detection",
                   "ip addr del " + with_length(vip) + " dev lo && " + add);
  }
  out.add(true, text + " is on lo", "");
}

std::string sysctl(const HostFacts& host, const char* name, int value) {
  return "sysctl -w net.ipv4.conf." + host.interface + "." + name + "=" + std::to_string(value);
}

// For arp_ignore, arp_announce and rp_filter the kernel takes the larger of `all` and the interface's own.
void check_ipv4(const HostFacts& host, Findings& out) {
  const int ignore = std::max(host.ipv4_all.arp_ignore, host.ipv4_interface.arp_ignore);
  out.add(ignore >= 1,
          "arp_ignore is " + std::to_string(ignore) + (ignore >= 1 ? "" : ": this host answers ARP for the VIP"),
          sysctl(host, "arp_ignore", 1));
  const int announce = std::max(host.ipv4_all.arp_announce, host.ipv4_interface.arp_announce);
  out.add(announce >= 2,
          "arp_announce is " + std::to_string(announce) + (announce >= 2 ? "" : ": ARP requests may name the VIP"),
          sysctl(host, "arp_announce", 2));
  const int filter = std::max(host.ipv4_all.rp_filter, host.ipv4_interface.rp_filter);
  out.add(filter != 1,
          "rp_filter is " + std::to_string(filter) + (filter != 1 ? "" : ": clients routed elsewhere are dropped"),
          (host.ipv4_all.rp_filter == 1 ? "sysctl -w net.ipv4.conf.all.rp_filter=0; " : "") + sysctl(host, "rp_filter", 0));
}

void check_ipv6(const HostFacts& host, Findings& out) {
  out.add(!host.ipv6_off_lo, host.ipv6_off_lo ? "IPv6 is off on lo" : "IPv6 is on on lo",
          "sysctl -w net.ipv6.conf.lo.disable_ipv6=0");
  const std::string where = host.interface;
  out.add(!host.ipv6_off_interface, host.ipv6_off_interface ? "IPv6 is off on " + where : "IPv6 is on on " + where,
          "sysctl -w net.ipv6.conf." + where + ".disable_ipv6=0");
}

bool is_link_local(const abi::IpAddress& address) {
  return address.bytes[0] == 0xfe && (address.bytes[1] & 0xc0) == 0x80;
}

// Bytes between outer and inner IP header; gre with room for a key.
std::uint32_t tunnel_header_bytes(abi::ForwardingMode mode) {
  if (mode == abi::ForwardingMode::gue) return 12;
  return mode == abi::ForwardingMode::gre ? 8 : 0;
}

void check_tunnel(const HostFacts& host, abi::ForwardingMode mode, std::uint32_t client_mtu_bytes, Findings& out) {
  const bool outer_v6 = std::any_of(host.addresses.begin(), host.addresses.end(), [&](const auto& a) {
    return a.interface == host.interface && !a.address.is_v4() && !is_link_local(a.address);
  });
  const std::uint32_t needed = client_mtu_bytes + (outer_v6 ? 40 : 20) + tunnel_header_bytes(mode);
  out.add(host.mtu_bytes >= needed,
          "MTU of " + host.interface + " is " + std::to_string(host.mtu_bytes) +
              ", a tunnel packet of a full-sized client packet has " + std::to_string(needed),
          "ip link set dev " + host.interface + " mtu " + std::to_string(needed));
  out.add(host.decap_attached,
          host.decap_attached ? "tunnel packets are decapsulated" : "nothing decapsulates tunnel packets",
          "lb-target attach " + host.interface);
}

}  // namespace

std::vector<Finding> check(const HostFacts& host, std::span<const abi::IpAddress> vips, abi::ForwardingMode mode,
                           std::uint32_t client_mtu_bytes) {
  Findings out;
  const bool any_v4 = std::any_of(vips.begin(), vips.end(), [](const auto& vip) { return vip.is_v4(); });
  const bool any_v6 = std::any_of(vips.begin(), vips.end(), [](const auto& vip) { return !vip.is_v4(); });
  if (any_v4) check_ipv4(host, out);  // before the VIP is added: not even one ARP answer for it
  if (any_v6) check_ipv6(host, out);
  for (const auto& vip : vips) check_vip(host, vip, out);
  if (mode != abi::ForwardingMode::l2dsr) check_tunnel(host, mode, client_mtu_bytes, out);
  if (host.is_veth) {
    out.add(!host.tx_checksum,
            host.tx_checksum
                ? host.interface + " is a veth that leaves checksums out, and AF_XDP at its other end sees them missing"
                : host.interface + " is a veth and computes checksums",
            "ethtool -K " + host.interface + " tx off");
  }
  return out.take();
}

std::string to_text(const abi::IpAddress& address) {
  char text[INET6_ADDRSTRLEN] = {};
  const bool is_v4 = address.is_v4();
  inet_ntop(is_v4 ? AF_INET : AF_INET6, address.bytes.data() + (is_v4 ? 12 : 0), text, sizeof text);
  return text;
}

}  // namespace lb::target
