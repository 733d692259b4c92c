"""Every length, version and checksum wrong in turn, and every truncation, in every mode and on the way back: one verdict each.

That each packet ends once, and is counted once, is what the harness asks of every run; here it is also asked what may come of it.
"""
from scapy.all import IP, Ether, IPv6, raw

from ..frames import CLIENT4, CLIENT6, T4, T6, TUNNEL_V4, VIP4, VIP6, ether, one, tcp
from ..harness import case
from . import geneve as gateway
from .nat import nat, reply, reply_frame

FAULTS = {"truncated", "bad_ip_header", "bad_ip_checksum", "bad_l4_header", "bad_extension_header"}
FAMILIES = {"v4": ("web", VIP4, T4[0], CLIENT4), "v6": ("web6", VIP6, T6[0], CLIENT6)}
HEADERS = {"v4": 14 + 20 + 20, "v6": 14 + 40 + 20}
OTHERS = (0x00, 0x01, 0x0F, 0x40, 0x7F, 0x80, 0xFF)


def cut(frame):
    return [raw(frame)[:n] for n in range(len(raw(frame)))]


def with_other_bytes(frame, first, last):
    """The frame with each byte of a part of it changed in seven ways."""
    data = raw(frame)
    return [data[:at] + bytes([data[at] ^ change]) + data[at + 1:] for at in range(first, last) for change in OTHERS[1:]]


def summed(frames):
    """IPv4 header checksums put right: what they protect is looked at by itself."""
    result = []
    for data in frames:
        if data[12:14] == b"\x08\x00" and len(data) >= 34:
            length = max(20, min((data[14] & 15) * 4, len(data) - 14))
            header = bytearray(data[14:14 + length])
            header[10:12] = b"\0\0"
            total = sum(int.from_bytes(header[i:i + 2], "big") for i in range(0, length, 2))
            while total >> 16:
                total = (total & 0xFFFF) + (total >> 16)
            header[10:12] = (0xFFFF - total).to_bytes(2, "big")
            data = data[:14] + bytes(header) + data[14 + length:]
        result.append(data)
    return result


def nothing_leaves(run):
    for verdict in run.verdicts:
        assert verdict["verdict"] == "punt" or verdict["reason"] in FAULTS, verdict


def whatever(run):
    """Held to the harness's accounting alone: a changed port, address or flag may well be another good packet."""
    assert len(run.verdicts) > 200


MODES = ("l2dsr", "ipip", "gue", "gre", "nat")
for mode in MODES:
    for family, (vip_name, vip, target, client) in FAMILIES.items():
        syn = ether(tcp(destination=vip, payload=b"data"))
        settings = {"config": one(vip=vip_name, target=target, mode=mode)}
        case("every-byte", f"{mode} {family}: cut at every byte, a packet goes nowhere", packets=cut(syn), check=nothing_leaves, **settings)
        changed = with_other_bytes(syn, 12, HEADERS[family])
        case("every-byte", f"{mode} {family}: with every byte of its headers changed it has one verdict",
             packets=[*changed, *(summed(changed) if family == "v4" else [])], check=whatever, **settings)

for family, (vip_name, vip, target, client) in FAMILIES.items():
    back = reply_frame(reply(target, client, payload=b"data"))
    settings = {"config": nat(vip_name, targets=[target])}

    def goes_to_the_client_or_nowhere(run, client=client):
        for n in range(1, len(run.verdicts)):
            for frame in run.out(n):
                packet = Ether(frame)[IPv6 if ":" in client else IP]
                assert packet.src in (VIP4, VIP6) or packet.dst in (VIP4, VIP6) or packet.dst in (T4[0], T6[0])

    case("every-byte", f"nat {family}: a reply that is cut at every byte goes nowhere", packets=[ether(tcp(destination=vip)), *cut(back)], **settings,
         check=lambda run: nothing_leaves(run.__class__(run.verdicts[1:], run.frames, run.stamps, run.summary)))
    changed = with_other_bytes(back, 12, HEADERS[family])
    case("every-byte", f"nat {family}: a reply with every byte changed has one verdict, and leaves from the VIP if at all", **settings,
         packets=[ether(tcp(destination=vip)), *changed, *(summed(changed) if family == "v4" else [])], check=goes_to_the_client_or_nowhere)

# Back from an appliance: outer headers, Geneve, options, the packet inside. Nothing but the packet as it was may go on.
WHOLE = gateway.given_back(gateway.SYN)
INNER_AT = 14 + 20 + 8 + 40


def only_the_packet_inside(run):
    for n in range(1, len(run.verdicts)):
        for frame in run.out(n):
            packet = Ether(frame)
            assert IP in packet and packet[IP].src != TUNNEL_V4, packet.summary()


CHANGED = with_other_bytes(WHOLE, 12, INNER_AT + 40)
case("every-byte", "geneve: a packet back from an appliance with every byte changed has one verdict", config=gateway.gateway(),
     packets=[ether(gateway.SYN), *CHANGED, *summed(CHANGED)], check=only_the_packet_inside)
for family, (_, vip, _, client) in FAMILIES.items():
    sent = ether(tcp(source=client, destination=vip, payload=b"data"))
    case("every-byte", f"geneve {family}: on the way in, cut at every byte, a packet goes nowhere", config=gateway.gateway(), packets=cut(sent),
         check=nothing_leaves)
    case("every-byte", f"geneve {family}: with every byte of its headers changed it has one verdict", config=gateway.gateway(),
         packets=with_other_bytes(sent, 12, HEADERS[family]), check=whatever)

FLOOD = [(0.0, ether(tcp("A", sport=1000 + n, payload=b"x" * 1460, seq=1, ack=1))) for n in range(150)]


def a_tenth_of_a_second_is_answered(run):
    reasons = [verdict["reason"] for verdict in run.verdicts]
    assert reasons == ["answered_icmp"] * 100 + ["too_big"] * 50


case("mtu", "of 150 packets at once that do not fit, 100 are answered: at most 1,000 a second", config=one(), packets=FLOOD,
     check=a_tenth_of_a_second_is_answered)
