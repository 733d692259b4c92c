"""The desired state, as the specification wants it: what configurations and drains ask for. The rules are balancer.py's."""
import ipaddress

from tests.spec.slow_start import judge, serves

KEEP, RESET, REHASH = "keep", "reset", "rehash"  # what becomes of a target's tracked flows


class Target:
    def __init__(self, group, late, now):
        self.group, self.healthy, self.judged, self.unhealthy_since = group, False, False, now
        self.late, self.rises_since = late, now if late and not group.probed else None  # late: others of its group serve
        self.weight, self.flows, self.removed, self.drained, self.ends = 0, 0, False, False, 0  # ends: of the deregistration delay
        self.share, self.tracked, self.shut = 0, KEEP, False  # shut: even the SYN of a flow it has goes elsewhere


class Group:
    def __init__(self, name):
        self.name, self.targets, self.fail_open, self.recovered = name, {}, False, 0

    def configure(self, config):
        attribute = config.get("attributes", {}).get
        self.mode, self.protocol, self.slots = config["forwarding_mode"], config["protocol"], config["table_size"]
        self.sticky = attribute("stickiness.type", "source_ip") if attribute("stickiness.enabled") else None
        self.idle = {"TCP": attribute("tcp.idle_timeout.seconds", 350), "UDP": attribute("udp.idle_timeout.seconds", 120)}
        self.delay = attribute("deregistration_delay.timeout_seconds", 300)
        resets = attribute("deregistration_delay.connection_termination.enabled", self.protocol != "TCP")
        self.after_delay = {"leave": KEEP}.get(*2 * [attribute("deregistration_delay.then", RESET if resets else "leave")])
        self.terminates = attribute("target_health_state.unhealthy.connection_termination.enabled", True) and self.protocol != "UDP"
        self.interval = attribute("target_health_state.unhealthy.draining_interval_seconds", 0)
        minimum = "target_group_health.unhealthy_state_routing.minimum_healthy_targets."
        self.least, self.percent = attribute(minimum + "count", 1), int(attribute(minimum + "percentage", "0").replace("off", "0"))
        self.slow_start = attribute("slow_start.duration_seconds", 0)
        self.probed, self.probe_interval = config["health_check"]["protocol"] != "NONE", config["health_check"]["interval"]


class Listener:
    def __init__(self, config):
        self.name, self.vip, self.protocols = config["name"], config["vip"], config["protocol"].split("_")
        self.first, self.last = (int(port) for port in (str(config["port"]).split("-") * 2)[:2])
        self.weights = {share["name"]: share.get("weight", 1) for share in config["target_groups"]}
        self.security_group = config.get("security_group")
        self.former, self.draining, self.ends = {}, False, 0  # former: groups it had, whose flows stay until then

    def identity(self):
        return self.name, self.vip, self.protocols, self.first, self.last

    def is_replaced_by(self, new):
        """Whether `new`, no narrower, takes packets that were this one's."""
        return new.vip == self.vip and set(self.protocols) & set(new.protocols) and self.first <= new.last and new.first <= self.last \
            and self.last - self.first <= new.last - new.first


class Flow:
    target, state, seen = None, "", 0


class Desired:
    def __init__(self, config, unhealthy):
        self.now, self.groups, self.listeners, self.unhealthy = 0, {}, [], set(unhealthy)
        self.vips = {vip["name"]: ipaddress.ip_network(vip["address"]) for vip in config["vips"]}
        self.apply(config)

    def apply(self, config):
        self.security_groups = {group["name"]: group for group in config.get("security_groups", ())}
        wanted = {group["name"]: group for group in config["target_groups"]}
        for name in [*wanted, *(self.groups.keys() - wanted.keys())]:
            group, members = self.groups.setdefault(name, Group(name)), set()
            group.removed = name not in wanted
            if not group.removed:
                group.configure(wanted[name])
            late = not group.removed and group.slow_start and serves(group)
            for config_of_target in () if group.removed else wanted[name]["targets"]:
                key = config_of_target["address"], config_of_target.get("port", wanted[name]["port"])
                target = group.targets.setdefault(key, Target(group, late, self.now))
                target.weight, target.removed = config_of_target.get("weight", 1), False
                members.add(key)
            for key in group.targets.keys() - members:
                target = group.targets[key]
                target.ends = target.ends if target.drained or target.removed else self.now + group.delay
                target.removed = True
        for config_of_group in config["target_groups"]:
            for config_of_target in config_of_group["targets"]:
                key = config_of_target["address"], config_of_target.get("port", config_of_group["port"])
                target = self.groups[config_of_group["name"]].targets[key]
                if not target.judged:
                    judge(target, key not in self.unhealthy, self.now)
        self.apply_listeners([Listener(each) for each in config["listeners"]])

    def apply_listeners(self, wanted):
        def ends(listener):
            return {name: self.now + self.groups[name].delay for name in listener.weights if name in self.groups}

        before, self.listeners = self.listeners, list(wanted)
        for new in wanted:
            for old in [each for each in before if each.identity() == new.identity()][:1]:
                before.remove(old)
                new.former = {name: at for name, at in {**old.former, **ends(old)}.items() if name not in new.weights}
        for old in before:
            if any(old.is_replaced_by(new) for new in wanted):
                continue
            old.ends = old.ends if old.draining else max([self.now, *ends(old).values()])
            old.draining = True
            self.listeners.append(old)

    def drain(self, key, drained):
        for target in self.targets_at(key):
            if not target.removed:
                target.ends = self.now + target.group.delay if drained and not target.drained else target.ends
                target.drained = drained

    def set_health(self, key, healthy):
        (self.unhealthy.discard if healthy else self.unhealthy.add)(key)
        for target in self.targets_at(key):
            judge(target, healthy, self.now)

    def targets_at(self, key):
        return [group.targets[key] for group in self.groups.values() if key in group.targets]

    # ---- where

    def listener_of(self, address, protocol, port):
        """(VIP of the longest prefix, its listener of the narrowest range); None: none."""
        holding = [name for name, network in self.vips.items() if ipaddress.ip_address(address) in network]
        vip = max(holding, key=lambda name: self.vips[name].prefixlen, default=None)
        fitting = [each for each in self.shown() if each.vip == vip and protocol in each.protocols and each.first <= port <= each.last]
        return vip, min(fitting, key=lambda each: (each.last - each.first, each.first, each.draining), default=None)

    def groups_of(self, listener):
        return [self.groups[name] for name in [*listener.weights, *listener.former][:8] if name in self.groups]

    def shown(self):
        return [listener for listener in self.listeners if self.groups_of(listener)]
