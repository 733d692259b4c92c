"""lb-replay against the executable specification: random packets, configurations, health, drains and time, and no mismatch."""
import os

import pytest

from tests.spec import balancer, differ

EVENTS = int(os.environ.get("LB_SPEC_EVENTS", "60000"))  # ./run spec takes more


@pytest.mark.parametrize("part", range(4))
def test_lb_replay_does_what_the_specification_says(part):
    share, seen = EVENTS // 4, 0
    for run in range(part, max(4, EVENTS // differ.RUN_EVENTS), 4):
        events, mismatches = differ.compare(1, run)
        assert not mismatches, mismatches[0]
        seen += events
    assert seen >= share // 2


def first_mismatch(most_runs=25):
    return next((found for run in range(most_runs) for found in differ.compare(2, run)[1]), None)


@pytest.mark.parametrize("rule", ["a drained target loses its flows at once", "a reset entry stays a second longer", "a FIN says nothing",
                                  "health is forgotten", "security groups admit everybody", "fragments have a time of their own",
                                  "a late target has its whole share at once"])
def test_a_wrong_rule_is_found_out(rule, monkeypatch):
    right = balancer.Balancer
    if rule == "a drained target loses its flows at once":
        monkeypatch.setattr(right, "drain", lambda self, key, drained, was=right.drain: (was(self, key, drained), [
            self.erase(at, flow) for at, flow in list(self.flows.items()) if drained and flow.target in self.targets_at(key)]))
    elif rule == "a reset entry stays a second longer":
        monkeypatch.setattr(right, "idle_limit", staticmethod(lambda flow, was=right.idle_limit: was(flow) + (flow.state in ("reset", "short"))))
    elif rule == "a FIN says nothing":
        monkeypatch.setattr(right, "state_after", staticmethod(lambda state, flags, opening, was=right.state_after: was(state, flags & ~balancer.FIN, opening)))
    elif rule == "security groups admit everybody":
        monkeypatch.setattr(balancer, "admits", lambda group, packet: True)
    elif rule == "fragments have a time of their own":
        monkeypatch.setattr(right, "packet", lambda self, p, was=right.packet: (self.notes.clear() if p.part == 2 else None, was(self, p))[1])
    elif rule == "a late target has its whole share at once":
        monkeypatch.setattr(balancer, "rise", lambda *_: None)
    else:
        monkeypatch.setattr(right, "set_health", lambda self, key, healthy: None)
    assert first_mismatch() is not None
