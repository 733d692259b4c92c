"""Security groups: who may open flows to a listener, longest prefix first, and what becomes of tracked flows when rules change."""
from ..frames import CLIENT6, T6, VIP6, config, ether, group, ipip, listener, tcp, udp
from ..harness import case, drop, tx

CHECKED = {"health_check": {"port": 80}}  # the listeners of some cases have more than one port


def guarded(*rules, default=None, ports=80):
    of_group = {"name": "office", "rules": [dict(zip(("action", "source", "protocol", "port"), rule)) for rule in rules]}
    if default:
        of_group["default"] = default
    guarded_by = {"security_group": "office"}
    return config([{**listener(protocol="TCP_UDP", port=ports), **guarded_by},
                   {**listener("web6-80", "web6", protocol="TCP_UDP", groups=["blue6"], port=ports), **guarded_by}],
                  [group(protocol="TCP_UDP", **CHECKED), group("blue6", [T6[0]], protocol="TCP_UDP", **CHECKED)], security_groups=[of_group])


def frm(source, packet=tcp, **fields):
    return packet(source=source, **fields)


def passes(packet):
    return tx(ipip(packet), flow="new")


denied = drop("security_group", flow="none", target=None, listener="web-80")

NET = guarded(("allow", "203.0.113.0/24"))
case("security-group", "a client within an allowed prefix passes", config=NET, packets=[ether(frm("203.0.113.0")), ether(frm("203.0.113.255"))],
     expect=[passes(frm("203.0.113.0")), passes(frm("203.0.113.255"))])
case("security-group", "a client outside of every prefix is denied by default", config=NET,
     packets=[ether(frm("203.0.112.255")), ether(frm("203.0.114.0")), ether(frm("1.2.3.4"))], expect=[denied] * 3)
case("security-group", "the default may be to allow", config=guarded(("deny", "203.0.113.0/24"), default="allow"),
     packets=[ether(frm("203.0.113.9")), ether(frm("203.0.114.9"))], expect=[denied, passes(frm("203.0.114.9"))])
NESTED = guarded(("allow", "10.0.0.0/8"), ("deny", "10.1.0.0/16"), ("allow", "10.1.2.0/24"), ("deny", "10.1.2.3"), ("deny", "any"))
case("security-group", "the longest prefix decides, in whatever order rules are written", config=NESTED,
     packets=[ether(frm(a)) for a in ("10.9.9.9", "10.1.9.9", "10.1.2.9", "10.1.2.3", "11.0.0.1")],
     expect=[passes(frm("10.9.9.9")), denied, passes(frm("10.1.2.9")), denied, denied])
PORTS = guarded(("allow", "any", "TCP", "80"), ("deny", "198.51.100.0/24", "TCP", "443"), ("allow", "198.51.100.0/24", "UDP"), ports="any")
case("security-group", "a longer prefix that does not name protocol and port leaves the word to a shorter one", config=PORTS,
     packets=[ether(frm("198.51.100.7", dport=80)), ether(frm("198.51.100.7", dport=443, sport=2)),
              ether(frm("198.51.100.7", packet=udp, dport=443)), ether(frm("203.0.113.7", packet=udp)),
              ether(frm("203.0.113.7", dport=81))],
     expect=[passes(frm("198.51.100.7", dport=80)), drop("security_group"), passes(frm("198.51.100.7", packet=udp, dport=443)),
             drop("security_group"), drop("security_group")])
EQUAL = guarded(("allow", "192.0.2.0/25", "TCP", "1-1000"), ("deny", "192.0.2.0/25", "TCP", "80-90"), ports="any")
case("security-group", "of rules of one prefix the narrower port range decides", config=EQUAL,
     packets=[ether(frm("192.0.2.1", dport=79)), ether(frm("192.0.2.1", dport=80)), ether(frm("192.0.2.1", dport=91, sport=2))],
     expect=[passes(frm("192.0.2.1", dport=79)), drop("security_group"), passes(frm("192.0.2.1", dport=91, sport=2))])
SIX = guarded(("allow", "2001:db8::/32"), ("deny", "2001:db8:c::4/127"), ("deny", "0.0.0.0/0"))
to6 = {"destination": VIP6}
case("security-group", "IPv6 prefixes of every length decide as well", config=SIX,
     packets=[ether(tcp(source=a, **to6)) for a in ("2001:db8::1", "2001:db8:c::3", "2001:db8:c::4", CLIENT6, "2001:db9::1")],
     expect=[tx(ipip(tcp(source="2001:db8::1", **to6), T6[0])), tx(ipip(tcp(source="2001:db8:c::3", **to6), T6[0])),
             drop("security_group"), drop("security_group"), drop("security_group")])
case("security-group", "a denied packet leaves no entry and its line names the rule", config=NESTED,
     packets=[ether(frm("10.1.9.9")), ether(frm("10.1.9.9", flags="A"))],
     expect=[drop("security_group", flow="none", rule="office: rule 1, deny 10.1.0.0/16")] * 2)
case("security-group", "where no rule speaks the line says so", config=NET, packets=[ether(frm("1.2.3.4"))],
     expect=[drop("security_group", rule="office: no rule speaks of this client, default deny")])

SYN, ACK = frm("10.1.2.9"), frm("10.1.2.9", flags="A")
OTHER, OTHER_ACK = frm("10.9.9.9", sport=7), frm("10.9.9.9", sport=7, flags="A")
SHUT = guarded(("allow", "10.0.0.0/8"), ("deny", "10.1.0.0/16"))
case("security-group", "a tracked flow that new rules deny ends with its next packet, others stay", config=NESTED, files={"shut.yaml": SHUT},
     events=[{"at": 1.0, "apply": "shut.yaml"}],
     packets=[(0, ether(SYN)), (0.1, ether(ACK)), (0.2, ether(OTHER)), (0.9, ether(OTHER_ACK)), (1.01, ether(ACK)), (1.02, ether(ACK)),
              (1.03, ether(OTHER_ACK)), (5, ether(OTHER_ACK))],
     expect=[tx(ipip(SYN), flow="new"), tx(ipip(ACK), flow="hit"), tx(ipip(OTHER), flow="new"), tx(ipip(OTHER_ACK), flow="hit"),
             drop("security_group"), drop("security_group"), tx(ipip(OTHER_ACK), flow="hit"), tx(ipip(OTHER_ACK), flow="hit")])
case("security-group", "a tracked flow that sleeps through the change is asked when it wakes", config=NESTED, files={"shut.yaml": SHUT},
     events=[{"at": 1.0, "apply": "shut.yaml"}],
     packets=[(0, ether(SYN)), (0.1, ether(ACK)), (1.5, ether(OTHER)), (120, ether(ACK))],
     expect=[tx(ipip(SYN), flow="new"), tx(ipip(ACK), flow="hit"), tx(ipip(OTHER), flow="new"), drop("security_group")])
case("security-group", "rules that open again let new flows in", config=SHUT, files={"open.yaml": NESTED},
     events=[{"at": 1.0, "apply": "open.yaml"}], packets=[(0, ether(SYN)), (2, ether(SYN))],
     expect=[drop("security_group"), tx(ipip(SYN), flow="new")])

OFFICE = {"name": "office", "rules": [{"action": "allow", "source": "192.0.2.0/24"}]}
WIDE = {**listener("wide", port="1-1000"), "security_group": "office"}
case("security-group", "a listener that goes leaves its tracked flows to a wider one, whose security group asks them",
     config=config([listener(), WIDE], [group(**CHECKED)], security_groups=[OFFICE]),
     files={"wide.yaml": config([WIDE], [group(**CHECKED)], security_groups=[OFFICE])}, events=[{"at": 1.0, "apply": "wide.yaml"}],
     packets=[(0, ether(tcp())), (0.9, ether(tcp("A"))), (1.5, ether(tcp("A")))],
     expect=[tx(ipip(tcp()), flow="new", listener="web-80"), tx(ipip(tcp("A")), flow="hit", listener="web-80"),
             drop("security_group", flow="none", listener="wide")])
