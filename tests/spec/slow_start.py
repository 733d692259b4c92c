"""A target that comes late, or back, beside others that serve: its share of the table grows in 64 equal steps."""
STEPS = 64


def serves(group, but=None):
    return any(each.weight and not each.removed and not each.drained and (each.healthy or not group.probed)
               for each in group.targets.values() if each is not but)


def judge(target, healthy, now):
    """What its health checks say; a target that nobody has judged yet may be one that joined others."""
    if target.judged and target.healthy == healthy:
        return
    if healthy:
        target.rises_since = now if (target.late or target.judged) and target.group.slow_start and serves(target.group, target) else None
        target.late = False
    else:
        target.unhealthy_since = now
    target.healthy, target.judged = healthy, True


def rise(group, used, now, past):
    """After the shares are decided."""
    for target in group.targets.values():
        target.step, rotates = STEPS, used and not target.removed and not target.drained and (target.healthy or not group.probed) and not group.fail_open
        if rotates and group.slow_start and target.rises_since is not None:
            target.step = min((now - target.rises_since) * STEPS // group.slow_start, STEPS - 1) + 1
            if target.step < STEPS:
                past(target.rises_since - -target.step * group.slow_start // STEPS)
    if any(target.step < STEPS for target in group.targets.values()):
        for target in group.targets.values():
            target.share *= target.step
