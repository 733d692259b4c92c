"""Forwarding mode l2dsr; VLAN tags; Ethernet padding."""
from scapy.all import Ether, Raw, raw

from ..frames import (ANY_MAC, CLIENT_MAC, LB_MAC, T4, T6, VIP4, VIP6, at, ether, ip, ipip, l2dsr, one, tcp, udp)
from ..harness import case, tx

for family, vip_name, vip, target in (("v4", "web", VIP4, T4[0]), ("v6", "web6", VIP6, T6[0])):
    dsr = {"config": one(vip=vip_name, target=target, mode="l2dsr")}
    syn = tcp(destination=vip)
    case("l2dsr", f"{family} packets get the target's MAC and nothing else changes", packets=[ether(syn)],
         expect=[tx(l2dsr(syn, target), flow="new", target=at(target))], **dsr)
    data = tcp("PA", destination=vip, payload=b"x" * 1000, seq=1001, ack=5)
    case("l2dsr", f"{family} flows stay on their target", packets=[ether(syn), ether(data)],
         expect=[tx(l2dsr(syn, target), flow="new"), tx(l2dsr(data, target), flow="hit")], **dsr)
    query = udp(destination=vip)
    case("l2dsr", f"{family} UDP is forwarded untouched", config=one(vip=vip_name, target=target, mode="l2dsr", protocol="UDP"),
         packets=[ether(query)], expect=[tx(l2dsr(query, target), flow="new")])
    marked = tcp(destination=vip, tos=0x2E, ttl=9)
    case("l2dsr", f"{family} TTL and traffic class stay as they came", packets=[ether(marked)],
         expect=[tx(l2dsr(marked, target))], **dsr)

for tags, name in (((100,), "a tagged frame"), ((200, 300), "a double-tagged frame"), ((0,), "a priority-tagged frame")):
    case("vlan", f"{name} leaves untagged inside the tunnel", config=one(), packets=[ether(tcp(), vlan=tags)],
         expect=[tx(ipip(tcp()), flow="new")])
    case("vlan", f"{name} leaves untagged in l2dsr", config=one(mode="l2dsr"), packets=[ether(tcp(), vlan=tags)],
         expect=[tx(l2dsr(tcp()), flow="new")])

case("vlan", "a tag changes neither flow nor target", config=one(), packets=[ether(tcp(), vlan=(7,)), ether(tcp())],
     expect=[tx(ipip(tcp()), flow="new"), tx(ipip(tcp()), flow="hit")])

provider = Ether(src=CLIENT_MAC, dst=ANY_MAC, type=0x88A8) / Raw(b"\x00\x64\x08\x00") / Raw(raw(tcp()))
case("vlan", "a provider tag of type 88a8 is read too", config=one(), packets=[provider], expect=[tx(ipip(tcp()))])

PADDING = b"\x00" * 6
case("padding", "Ethernet padding does not enter the tunnel", config=one(), packets=[raw(ether(tcp())) + PADDING],
     expect=[tx(ipip(tcp()))])
case("padding", "padding that is not zero does not enter the tunnel either", config=one(), packets=[raw(ether(tcp())) + b"\xff" * 6],
     expect=[tx(ipip(tcp()))])
padded6 = tcp(destination=VIP6)
case("padding", "padding behind an IPv6 packet is cut off", config=one(vip="web6", target=T6[0]),
     packets=[raw(ether(padded6)) + b"trailer"], expect=[tx(ipip(padded6, T6[0]))])

case("next-hop", "a static neighbour's MAC is used",
     config=one(static_neighbours=[{"address": T4[0], "mac": "02:aa:bb:cc:dd:ee", "interface": "eth0"}]),
     packets=[ether(tcp())], expect=[tx(ipip(tcp(), mac="02:aa:bb:cc:dd:ee"))])


def macs(run):
    frame = Ether(run.frames[0])
    assert frame.src == LB_MAC and frame.dst == "02:04:0a:4d:02:02"


case("next-hop", "the made-up MAC of a target is 02:04 and its address", config=one(), packets=[ether(tcp())], check=macs)
for mac in ("ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "00:11:22:33:44:55"):
    case("next-hop", f"a frame for {mac} is taken like any other", config=one(),
         packets=[Ether(src=CLIENT_MAC, dst=mac) / (ip() / tcp().payload)], expect=[tx(ipip(tcp()))])
