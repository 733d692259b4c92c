"""An executable specification of the balancer: what becomes of each packet, given configuration, health, drains and time.

It knows nothing of how lb does it: no workers, no bursts, no table of bounded size, no snapshots. Hash and Maglev table are published algorithms
(choice.py). Time passes in whole seconds. differ.py holds lb-replay to all this.
"""
import collections

from tests.spec.choice import Choice
from tests.spec.config import KEEP, REHASH, RESET, Desired, Flow
from tests.spec.fragments import Fragments
from tests.spec.security import admits
from tests.spec.slow_start import rise

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
# kind: TCP, UDP, echo (a ping), or error (ICMP about a packet of the flow that the other fields name, its protocol in quoted). part: which fragment
# of a UDP datagram, by ident; None: it is whole.
Packet = collections.namedtuple("Packet", "kind src sport dst dport flags ttl quoted part ident", defaults=(0, 0, 0, 64, None, None, 0))


class Balancer(Fragments, Desired):
    def __init__(self, config, unhealthy=()):
        super().__init__(config, unhealthy)
        self.flows, self.choice, self.due = {}, Choice(config["seed"]), float("inf")  # due: when time alone will change something
        self.settle()

    # ---- time

    def advance(self, to, happenings=()):
        """Time passes; happenings: what is done at that moment, before its packets."""
        while self.due < to:
            self.now = self.due
            self.sweep()
            self.settle()
        if to > self.now:
            self.now = to
            self.sweep()
        for happen in happenings:
            happen()
        if happenings or self.due <= to:
            self.settle()

    def past(self, at):
        if self.now < at:
            self.due = min(self.due, at)
        return self.now >= at

    def settle(self):
        """What follows from configuration, drains and health at this moment."""
        self.due = float("inf")
        self.listeners = [each for each in self.listeners if not each.draining or not self.past(each.ends)]
        used = {name for listener in self.listeners for name in listener.weights if not listener.draining}
        for listener in self.listeners:
            listener.former = {name: at for name, at in listener.former.items() if name in self.groups and not self.past(at)}
        for name, group in list(self.groups.items()):
            for key, target in list(group.targets.items()):
                if target.removed and self.past(target.ends) and (target.flows == 0 or self.past(self.now + 1)):
                    del group.targets[key]
            members = [target for target in group.targets.values() if target.weight and not target.removed and not target.drained]
            healthy, was = sum(target.healthy or not group.probed for target in members), group.fail_open
            too_few = healthy < group.least or healthy * 100 < len(members) * group.percent
            group.fail_open = name in used and healthy < len(members) and too_few
            group.recovered = self.now if was and not group.fail_open else group.recovered
            for target in group.targets.values():
                target.share, target.tracked, target.shut = self.decide(group, target, name in used)
            rise(group, name in used, self.now, self.past)
            if group.removed and not group.targets:
                del self.groups[name]

    def decide(self, group, target, used):
        """(its weight for new flows, what becomes of its tracked flows, whether it is shut)"""
        if target.removed or target.drained:
            over = self.past(target.ends)
            return 0, group.after_delay if over and not (group.fail_open and group.after_delay == RESET) else KEEP, over
        if not used:
            return 0, KEEP, True
        if target.healthy or not group.probed:
            return target.weight, KEEP, False
        if group.fail_open or not group.terminates and not self.past(target.unhealthy_since + group.interval):
            return target.weight if group.fail_open else 0, KEEP, not group.fail_open or target.weight == 0
        if not group.terminates:
            return 0, REHASH, True
        return 0, RESET if self.past(max(target.unhealthy_since, group.recovered) + group.probe_interval) else KEEP, True

    def sweep(self):
        """Entries go when their time is over; what was established stays twice as long, so that a late packet can be told."""
        for key, flow in list(self.flows.items()):
            limit, tracked, udp = self.idle_limit(flow), flow.target.tracked, flow.state.startswith("udp")
            limit = min(limit, 30) if flow.state == "new" else 2 * limit if flow.state in ("assumed", "closing") else limit
            if self.now - flow.seen >= limit or tracked == REHASH or tracked == RESET and udp:
                self.erase(key, flow)

    @staticmethod
    def idle_limit(flow):
        return {"reset": 60, "short": 10}.get(flow.state) or flow.target.group.idle["UDP" if flow.state.startswith("udp") else "TCP"]

    def erase(self, key, flow):
        flow.target.flows -= 1
        del self.flows[key]

    # ---- packets: (verdict, reason, listener, target group, target, flow)

    def whole(self, p):
        vip, listener = self.listener_of(p.dst, p.quoted or p.kind, p.dport)
        if vip is None:
            return self.reply(p)
        if p.kind == "echo":
            return self.dropped("answered_echo")
        if listener is None:
            return self.dropped("icmp_no_flow" if p.kind == "error" else "no_listener")
        if p.ttl <= 1:
            return self.dropped("ttl_expired", listener)
        key = p.quoted or p.kind, p.src, p.sport, p.dst, p.dport
        flow = self.flows.get(key)
        if p.kind == "error":
            known = flow and flow.target.group in self.groups_of(listener)
            return self.sent(listener, flow.target, "hit") if known else self.sent_by_hash(listener, key)
        if p.kind == "TCP" and (p.flags & SYN and p.flags & (FIN | RST) or not p.flags & 63 or p.flags & (FIN | PSH | URG | ACK) == FIN | PSH | URG):
            return self.dropped("bad_tcp_flags", listener)
        if listener.security_group and not admits(self.security_groups[listener.security_group], p):
            if flow:
                self.erase(key, flow)
            return self.dropped("security_group", listener)
        return self.of_flow(p, listener, key, flow)

    def of_flow(self, p, listener, key, flow):
        udp, opening, reset = p.kind == "UDP", p.kind == "TCP" and p.flags & (SYN | ACK | RST | FIN) == SYN, p.flags & RST
        first = "udp-new" if udp else "short" if reset else "new"
        if flow is None:
            return self.sent_by_hash(listener, key, Flow(), first)
        target, later = flow.target, self.state_after(flow.state, p.flags, opening)
        if target.group not in self.groups_of(listener):
            return self.sent_by_hash(listener, key, flow, first if opening or flow.state == "reset" else later)
        if self.now - flow.seen >= self.idle_limit(flow):
            if flow.state not in ("assumed", "closing") or opening or reset:
                return self.sent_by_hash(listener, key, flow, first)
            self.erase(key, flow)
            return self.sent(listener, target, "hit", "answered_rst")
        if opening and (flow.state in ("closing", "reset", "short") or target.shut or target.tracked != KEEP):
            return self.sent_by_hash(listener, key, flow, first)
        dead = not opening and (flow.state == "reset" or target.tracked == RESET and not udp)
        if target.tracked != KEEP and not dead:
            return self.sent_by_hash(listener, key, flow, later)
        flow.seen, flow.state = self.now, "reset" if dead and not reset else later
        return self.sent(listener, target, "hit", "answered_rst" if dead and not reset else None)  # never a reset for a reset

    @staticmethod
    def state_after(state, flags, opening):
        if state.startswith("udp") or flags & RST:
            return "udp" if state.startswith("udp") else "short"
        if opening or state in ("reset", "short"):
            return state
        return "closing" if flags & FIN else "assumed" if state == "new" else state

    def reply(self, p):
        """From the target of a nat flow to its client; everything else is the kernel's."""
        found = []
        for listener in self.shown():
            groups = [group for group in self.groups_of(listener) if group.mode == "nat" and p.kind in listener.protocols]
            flow = self.flows.get((p.kind, p.dst, p.dport, str(self.vips[listener.vip].network_address), listener.first))
            if flow and any((p.src, p.sport) in group.targets for group in groups) and flow.target.group.mode == "nat" and \
                    flow.target is flow.target.group.targets.get((p.src, p.sport)):
                found.append((listener, flow))
        if not found or p.ttl <= 1:
            return self.dropped("ttl_expired") if found else ("punt", None, None, None, None, "none")
        listener, flow = max(found, key=lambda each: each[1].seen)
        flow.seen = self.now
        if p.flags & RST and p.kind == "TCP" and flow.state != "reset":
            flow.state = "short"
        return self.sent(listener, flow.target, "hit")

    def sent_by_hash(self, listener, key, flow=None, state=None):
        if listener.draining or not any(listener.weights.values()):
            return self.dropped("listener_draining" if listener.draining else "no_target", listener)
        group = self.groups[self.choice.group(listener, self.groups_of(listener)[0], key)]
        target = self.choice.target(group, key)
        if target is None:
            return "drop", "no_target", listener.name, group.name, None, "none"
        if flow is not None:
            target.flows += 1
            if flow.target:
                flow.target.flows -= 1
            flow.target, flow.state, flow.seen, self.flows[key] = target, state, self.now, flow
        return self.sent(listener, target, "new" if flow else "none")

    @staticmethod
    def dropped(reason, listener=None):
        return "drop", reason, listener and listener.name, None, None, "none"

    @staticmethod
    def sent(listener, target, flow, reason=None):
        name = Balancer.text(next(key for key, each in target.group.targets.items() if each is target))
        return "drop" if reason else "tx", reason, listener.name, target.group.name, name, flow

    @staticmethod
    def text(key):
        return f"[{key[0]}]:{key[1]}" if ":" in key[0] else f"{key[0]}:{key[1]}"
