"""Who may open flows: a security group's rules, of which one decides."""
import ipaddress


def ports(rule):
    first, last = (int(part) for part in (str(rule.get("port", "0-65535")).replace("any", "0-65535").split("-") * 2)[:2])
    return first, last


def admits(group, p):
    """Of the rules that speak of the packet the longest prefix decides, then fewer ports, then one protocol, then deny."""
    speaking = []
    for rule in group["rules"]:
        source = ipaddress.ip_network(rule["source"].replace("any", "::/0" if ":" in p.src else "0.0.0.0/0"))
        first, last = ports(rule)
        if ipaddress.ip_address(p.src) in source and rule.get("protocol", p.kind) == p.kind and first <= p.dport <= last:
            speaking.append((source.prefixlen, first - last, "protocol" in rule, rule["action"] == "deny", rule["action"]))
    return (max(speaking)[-1] if speaking else group.get("default", "deny")) == "allow"
