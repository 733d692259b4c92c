"""Which target group and which target a new flow gets: hash and Maglev table as published (tests/golden/twins.py)."""
from tests.golden import twins


class Choice:
    def __init__(self, seed):
        self.seed, self.hash, self.tables, self.hashes = seed, twins.SlotHash(seed), {}, {}

    def group(self, listener, first, key):
        """Its name, by the weights of the listener; the stickiness of its first group decides by what."""
        point = self._hash(key, first.sticky)[1] * sum(listener.weights.values()) >> 64
        for name, weight in listener.weights.items():
            point -= weight
            if point < 0:
                return name
        raise ValueError("no weight")

    def target(self, group, key):
        """By slot, among the targets that have a share; None: no target has."""
        rotation = tuple(sorted((twins.identity(group.name, *at), target.share, at) for at, target in group.targets.items() if target.share))
        if not rotation:
            return None
        if (group.slots, rotation) not in self.tables:
            self.tables[group.slots, rotation] = twins.maglev([each[:2] for each in rotation], self.seed, group.slots)
        slot = self._hash(key, group.sticky)[0] * group.slots >> 64
        return group.targets[rotation[self.tables[group.slots, rotation][slot]][2]]

    def _hash(self, key, sticky):
        protocol, src, sport, dst, dport = key
        if sticky:
            sport = dport = 0
            protocol = protocol if sticky == "source_ip_dest_ip_proto" else None
            dst = dst if sticky != "source_ip" else "::" if ":" in dst else "0.0.0.0"
        key = protocol, src, sport, dst, dport
        if key not in self.hashes:
            self.hashes[key] = self.hash.of_flow(src, dst, sport, dport, {"TCP": 6, "UDP": 17, None: 0}[protocol])
        return self.hashes[key]
