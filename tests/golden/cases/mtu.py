"""Packets that do not fit towards the target once they carry an outer header."""
from scapy.all import TCP, Ether

from ..frames import (LB_MAC, T4, T6, VIP4, VIP6, ether, fragmentation_needed, ipip, l2dsr, one, packet_too_big, tcp, udp)
from ..harness import answered, case, drop, tx


def sized(ip_bytes, destination=VIP4, **fields):
    headers = 60 if destination == VIP6 else 40
    return tcp("A", destination=destination, payload=bytes(i % 251 for i in range(ip_bytes - headers)), seq=1, ack=1, **fields)


WAYS = {
    "4in4": ("web", VIP4, T4[0], 1480), "4in6": ("web", VIP4, T6[0], 1460),
    "6in4": ("web6", VIP6, T4[0], 1480), "6in6": ("web6", VIP6, T6[0], 1460),
}
for name, (vip_name, vip, target, room) in WAYS.items():
    settings = {"config": one(vip=vip_name, target=target)}
    case("mtu", f"{name} carries a packet of {room} bytes over a link of 1500", packets=[ether(sized(room, vip))],
         expect=[tx(ipip(sized(room, vip), target), out_len=1514)], **settings)
    answer = packet_too_big if vip == VIP6 else fragmentation_needed
    case("mtu", f"{name} answers a packet of {room + 1} bytes with the MTU that fits", packets=[ether(sized(room + 1, vip))],
         expect=[answered("answered_icmp", answer(sized(room + 1, vip), room), listener="web-80")], **settings)

case("mtu", "a packet without DF that does not fit is dropped by name", config=one(), packets=[ether(sized(1481, df=False))],
     expect=[drop("too_big")])
case("mtu", "l2dsr carries 1500 bytes over a link of 1500", config=one(mode="l2dsr"), packets=[ether(sized(1500))],
     expect=[tx(l2dsr(sized(1500)))])
case("mtu", "l2dsr tells the client of the link's MTU", config=one(mode="l2dsr"), packets=[ether(sized(1501))],
     expect=[answered("answered_icmp", fragmentation_needed(sized(1501), 1500))])
case("mtu", "a larger link carries a full packet of the client", config=one(), args=["--mtu", "1520"], packets=[ether(sized(1500))],
     expect=[tx(ipip(sized(1500)))])
case("mtu", "an IPv6 client is never told less than 1280", config=one(vip="web6", target=T6[0]), args=["--mtu", "1300"],
     packets=[ether(sized(1261, VIP6))],
     expect=[answered("answered_icmp", packet_too_big(sized(1261, VIP6), 1280))])
case("mtu", "a UDP datagram that is too big is answered as well", config=one(protocol="UDP"), packets=[ether(udp(payload=b"q" * 1460))],
     expect=[answered("answered_icmp", fragmentation_needed(udp(payload=b"q" * 1460), 1480))])
case("mtu", "the answer goes back with the tag the packet came with", config=one(), packets=[ether(sized(1481), vlan=(42,))],
     expect=[answered("answered_icmp", fragmentation_needed(sized(1481), 1480, vlan=(42,)))])
GROUP_MAC, ANSWER = ether(sized(1481)), fragmentation_needed(sized(1481), 1480)
GROUP_MAC[Ether].dst = "ff:ff:ff:ff:ff:ff"
case("mtu", "a frame to the broadcast MAC counts as one to lb's own", config=one(), packets=[GROUP_MAC],
     expect=[answered("answered_icmp", ANSWER[:6] + bytes.fromhex(LB_MAC.replace(":", "")) + ANSWER[12:])])

# ---- tcp.mss_clamp ----

CLAMP = {"tcp.mss_clamp.enabled": True}
for name, (vip_name, vip, target, room) in WAYS.items():
    headers = 60 if vip == VIP6 else 40

    def announcing(mss, vip=vip, flags="S", before=(), **fields):
        packet = tcp(flags, destination=vip, **fields)
        packet[TCP].options = [*before, ("MSS", mss), ("SAckOK", b"")]
        return packet

    settings = {"config": one(vip=vip_name, target=target, attributes=CLAMP)}
    case("mss", f"{name} a SYN announces no more than {room - headers} bytes, which fit the tunnel", packets=[ether(announcing(8960)), ether(announcing(1460))],
         expect=[tx(ipip(announcing(room - headers), target), flow="new"), tx(ipip(announcing(room - headers), target), flow="hit")], **settings)
    case("mss", f"{name} one that announces less stays as it is, and so do packets without SYN", **settings,
         packets=[ether(announcing(536)), ether(announcing(8960, flags="A", seq=1001, ack=1))],
         expect=[tx(ipip(announcing(536), target)), tx(ipip(announcing(8960, flags="A", seq=1001, ack=1), target))])
    case("mss", f"{name} the checksum is right where the option begins at an odd byte", **settings,
         packets=[ether(announcing(8960, before=[("NOP", None)]))], expect=[tx(ipip(announcing(room - headers, before=[("NOP", None)]), target))])
BARE = tcp()
case("mss", "a SYN without the option stays without", config=one(attributes=CLAMP), packets=[ether(BARE)], expect=[tx(ipip(BARE))])
case("mss", "l2dsr: a SYN announces what fits the link", config=one(mode="l2dsr", attributes=CLAMP), args=["--mtu", "1400"],
     packets=[ether(announcing(1460, VIP4))],
     expect=[tx(l2dsr(announcing(1360, VIP4)))])
case("mss", "without the attribute no SYN is changed", config=one(), packets=[ether(announcing(8960, VIP4))], expect=[tx(ipip(announcing(8960, VIP4)))])
