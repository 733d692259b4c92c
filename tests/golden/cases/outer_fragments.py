"""outer_fragmentation.enabled: what does not fit goes as fragments of the outer packet."""
from scapy.all import IP, Ether, IPv6, IPv6ExtHdrFragment, raw

from ..frames import T4, T6, VIP4, VIP6, ether, gre, gue, ipip, one, tcp, udp
from ..harness import case, tx
from .gue_gre import sized

MODES = {"ipip": ipip, "gue": gue, "gre": gre}
WAYS = {"4in4": ("web", VIP4, T4[0]), "6in6": ("web6", VIP6, T6[0]), "4in6": ("web", VIP4, T6[0]), "6in4": ("web6", VIP6, T4[0])}
ON = {"outer_fragmentation.enabled": True}


def put_together(frames, mtu):
    """The whole outer frame; every rule a fragment has to keep is looked at. No DF, and no id, is left of it to compare."""
    packets = [Ether(frame) for frame in frames]
    v6 = packets[0].type == 0x86DD
    parts, at = [], 0
    for n, packet in enumerate(packets):
        ip = packet[IPv6] if v6 else packet[IP]
        header = packet[IPv6ExtHdrFragment] if v6 else ip
        last = n == len(packets) - 1
        data = raw(header.payload)
        assert len(ip) <= mtu and len(raw(packet)) == 14 + len(ip)
        assert header.id == (packets[0][IPv6ExtHdrFragment].id if v6 else packets[0][IP].id)
        assert 8 * (header.offset if v6 else header.frag) == at, "in order, without gaps"
        assert bool(header.m if v6 else ip.flags.MF) == (not last)
        assert last or (len(data) % 8 == 0 and len(ip) > mtu - 8), "filled as far as units of 8 bytes allow"
        if not v6:
            assert not ip.flags.DF
            checksum = ip.chksum
            del ip.chksum
            assert IP(raw(ip)).chksum == checksum
        parts.append(data)
        at += len(data)
    first = packets[0]
    if v6:
        first[IPv6].nh = first[IPv6ExtHdrFragment].nh
        whole = Ether(src=first.src, dst=first.dst) / IPv6(raw(first[IPv6])[:40])
        whole[IPv6].plen = at
        return raw(whole)[:54] + b"".join(parts)
    header = IP(raw(first[IP])[:20])
    header.flags, header.frag, header.id, header.len = 0, 0, 0, 20 + at
    del header.chksum
    return raw(Ether(src=first.src, dst=first.dst) / header) + b"".join(parts)


def arrives(expected, fragments, mtu=1500):
    """The fragments make the frame that would have gone, had it fitted."""
    def check(run):
        frames = run.out(0)
        assert run.verdicts[0]["verdict"] == "tx" and len(frames) == fragments, run.verdicts[0]
        came = put_together(frames, mtu)
        wanted = expected(came)
        if Ether(wanted).type == 0x0800:  # DF, id and with them the checksum of the outer header
            wanted = wanted[:18] + came[18:22] + wanted[22:24] + came[24:26] + wanted[26:]
        assert came == wanted, f"\n{came.hex()}\n{wanted.hex()}"
    return check


for mode, frame in MODES.items():
    for name, (vip_name, vip, target) in WAYS.items():
        config = one(vip=vip_name, target=target, mode=mode, attributes=ON)
        case("outer-fragments", f"{mode} {name}: 1500 bytes go in two pieces over a link of 1500", config=config, packets=[ether(sized(1500, vip))],
             check=arrives(frame(sized(1500, vip), target), 2))
        case("outer-fragments", f"{mode} {name}: a jumbo packet goes in as many pieces as it needs", config=config,
             packets=[ether(sized(8000, vip))], check=arrives(frame(sized(8000, vip), target), 6))
        small = tcp(destination=vip)
        case("outer-fragments", f"{mode} {name}: what fits is not touched", config=config, packets=[ether(small)],
             expect=[tx(frame(small, target))])

case("outer-fragments", "without DF as well", config=one(attributes=ON), packets=[ether(sized(1500, VIP4, df=False))],
     check=arrives(ipip(sized(1500, VIP4, df=False)), 2))


def ids_differ(run):
    ids = [Ether(run.out(n)[0])[IP].id for n in range(3)]
    assert len(set(ids)) == 3, ids


case("outer-fragments", "packets of a flow have different ids", config=one(attributes=ON), packets=[ether(sized(1500, VIP4))] * 3, check=ids_differ)
case("outer-fragments", "a datagram goes in pieces as well", config=one(protocol="UDP", attributes=ON),
     packets=[ether(udp(payload=b"q" * 1472))], check=arrives(ipip(udp(payload=b"q" * 1472)), 2))
