"""What becomes of a datagram's fragments, which the rules for whole packets do not say."""


class Fragments:
    def __init__(self, *args):
        super().__init__(*args)
        self.notes = {}  # by addresses and ident: when the first one went, its verdict, its target

    def packet(self, p):
        """The first goes like a whole packet, those that follow where it went: for 30 s, and while its target is there."""
        if not p.part or self.listener_of(p.dst, p.kind, p.dport)[0] is None:
            came = self.whole(p)
            if p.part == 0 and came[0] == "tx":
                target = next(each for key, each in self.groups[came[3]].targets.items() if self.text(key) == came[4])
                self.notes[p.src, p.dst, p.ident] = self.now, came, target
            return came
        at, came, target = self.notes.get((p.src, p.dst, p.ident), (-30, None, None))
        if self.now - at >= 30 or not any(each is target for each in target.group.targets.values()):
            return self.dropped("fragment_timeout")
        listener = self.listener_of(p.dst, p.kind, p.dport)[1]
        return "tx", None, listener and listener.name, *came[3:5], "hit"
