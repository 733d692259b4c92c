"""Mode fullnat: every length, version and checksum wrong in turn, and every truncation, on the way in and on the way back, across families."""
from scapy.all import IP, Ether, IPv6

from ..frames import VIP4, VIP6, ether, tcp
from ..harness import case
from .every_byte import HEADERS, cut, nothing_leaves, summed, whatever, with_other_bytes
from .fullnat import FIRST, SIDES, SNAT4, SNAT6, TARGET_PORT, fullnat
from .nat import reply_frame


def after_the_first(check):
    """The first packet opens the flow."""
    return lambda run: check(run.__class__(run.verdicts[1:], run.frames, run.stamps, run.summary))


def all_changed(frame, family):
    changed = with_other_bytes(frame, 12, HEADERS[family])
    return changed + (summed(changed) if family == "v4" else [])


for side in SIDES:
    name, vip_name, vip, target, _, snat = side
    of_client, of_target = (name.split()[0], name.split()[-1])
    settings = {"config": fullnat(vip_name, targets=[target])}
    syn = ether(tcp(destination=vip, payload=b"data"))
    back = reply_frame(tcp("SA", source=target, destination=snat, sport=TARGET_PORT, dport=FIRST, seq=77, ack=1001, payload=b"data"))

    def keeps_addresses_apart(run):
        """Whatever goes on has an address of lb's at one end; and something does: the test is not empty."""
        assert sum(verdict["verdict"] == "tx" for verdict in run.verdicts) > 1
        for n in range(len(run.verdicts)):
            for frame in run.out(n):
                packet = Ether(frame)
                header = packet[IP] if IP in packet else packet[IPv6]
                assert {header.src, header.dst} & {VIP4, VIP6, SNAT4, SNAT6} or run.verdicts[n]["verdict"] == "drop", packet.summary()

    case("every-byte", f"fullnat {name}: cut at every byte, a packet goes nowhere", packets=cut(syn), check=nothing_leaves, **settings)
    case("every-byte", f"fullnat {name}: with every byte of its headers changed it has one verdict", packets=all_changed(syn, of_client),
         check=lambda run, apart=keeps_addresses_apart: (whatever(run), apart(run)), **settings)
    case("every-byte", f"fullnat {name}: a reply that is cut at every byte goes nowhere", packets=[ether(tcp(destination=vip)), *cut(back)],
         check=after_the_first(nothing_leaves), **settings)
    case("every-byte", f"fullnat {name}: a reply with every byte changed has one verdict, and leaves from the VIP if at all",
         packets=[ether(tcp(destination=vip)), *all_changed(back, of_target)], check=keeps_addresses_apart, **settings)
