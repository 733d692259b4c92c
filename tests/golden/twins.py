"""Published algorithms written a second time, to compare lb's with."""
import ipaddress

from scapy.all import TCP, UDP

from tests.lib.aes import encrypt, expand_key, xor

RSS_KEY = bytes.fromhex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")


def toeplitz(data):
    key = int.from_bytes(RSS_KEY, "big")
    result = 0
    for i in range(len(data) * 8):
        if data[i // 8] >> (7 - i % 8) & 1:
            result ^= key >> (len(RSS_KEY) * 8 - 32 - i) & 0xFFFFFFFF
    return result


def rss(packet):
    """Toeplitz over addresses and ports of a TCP or UDP packet."""
    l4 = packet[TCP] if TCP in packet else packet[UDP]
    data = ipaddress.ip_address(packet.src).packed + ipaddress.ip_address(packet.dst).packed
    return toeplitz(data + l4.sport.to_bytes(2, "big") + l4.dport.to_bytes(2, "big"))


class SlotHash:
    """The keyed hash that chooses group and slot, as dp/lb/flow_hash.h describes it."""

    def __init__(self, seed):
        keys = expand_key(seed.to_bytes(8, "little") + b"lb slots")
        self.v4 = expand_key(encrypt(keys, bytes([4]) + bytes(15)))
        self.v6 = expand_key(encrypt(keys, bytes([6]) + bytes(15)))

    def of(self, packet):
        """(low, high) 64 bits of the five-tuple."""
        l4 = packet[TCP] if TCP in packet else packet[UDP]
        return self.of_flow(packet.src, packet.dst, l4.sport, l4.dport, 6 if TCP in packet else 17)

    def cookie(self, source, destination, sport, dport, protocol):
        """What appliances are told of a flow: the same for both directions (dp/lb/gateway.h)."""
        ends = sorted([(ipaddress.ip_address(source).packed, sport), (ipaddress.ip_address(destination).packed, dport)])
        (low, low_port), (high, high_port) = ends
        return self.of_flow(low, high, low_port, high_port, protocol)[0] & 0xFFFFFFFF

    def of_flow(self, source, destination, sport, dport, protocol):
        source, destination = (ipaddress.ip_address(a).packed for a in (source, destination))
        last = sport.to_bytes(2, "big") + dport.to_bytes(2, "big") + bytes([protocol])
        if len(source) == 4:
            block = encrypt(self.v4, source + destination + last.ljust(8, b"\0"))
        else:
            block = encrypt(self.v6, source)
            block = encrypt(self.v6, xor(block, destination))
            block = encrypt(self.v6, xor(block, last.ljust(16, b"\0")))
        return int.from_bytes(block[:8], "little"), int.from_bytes(block[8:], "little")


# ---- Maglev (NSDI 2016, §3.4), with weights as quotas: cp/snapshot/maglev.h ----

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mixed(h):
    h = (h ^ h >> 33) * 0xFF51AFD7ED558CCD & MASK
    h = (h ^ h >> 33) * 0xC4CEB9FE1A85EC53 & MASK
    return h ^ h >> 33


def add_bytes(h, data):
    h = mixed(h ^ len(data) * GOLDEN & MASK)
    for at in range(0, len(data), 8):
        h = mixed(h ^ int.from_bytes(data[at:at + 8], "little")) + GOLDEN & MASK
    return h


def identity(group, address, port):
    packed = ipaddress.ip_address(address).packed
    if len(packed) == 4:
        packed = bytes(10) + b"\xff\xff" + packed
    return mixed(add_bytes(add_bytes(0x6C625F7461726765, group.encode()), packed) ^ port)


def quotas(weights, slots):
    """Largest remainder, for weights whose share is at least one slot."""
    total = sum(weights)
    exact = [slots * w for w in weights]
    result = [e // total for e in exact]
    by_remainder = sorted(range(len(weights)), key=lambda i: -(exact[i] % total))
    for i in by_remainder[:slots - sum(result)]:
        result[i] += 1
    return result


def maglev(targets, seed, slots):
    """targets: (identity, weight), sorted. Returns the slots, as indices into targets."""
    quota = quotas([weight for _, weight in targets], slots)
    rounds = max(quota)
    turns = sorted((k * rounds // quota[t], t) for t in range(len(targets)) for k in range(quota[t]))
    walks = []
    for who, _ in targets:
        first = mixed(who ^ mixed(seed + GOLDEN & MASK))
        walks.append([first % slots, mixed(first + GOLDEN & MASK) % (slots - 1) + 1])
    table = [None] * slots
    for _, target in turns:
        at, skip = walks[target]
        while table[at] is not None:
            at = (at + skip) % slots
        table[at] = target
        walks[target][0] = (at + skip) % slots
    return table


def chosen_targets(packets, seed, group, targets, slots):
    """targets: (address, port, weight) of `group`, the only one of the listener. Returns (address, port) by packet."""
    keyed = sorted((identity(group, address, port), weight, (address, port)) for address, port, weight in targets)
    table = maglev([(who, weight) for who, weight, _ in keyed], seed, slots)
    slot_hash = SlotHash(seed)
    return [keyed[table[slot_hash.of(packet)[0] * slots >> 64]][2] for packet in packets]
