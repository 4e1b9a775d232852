# SPDX-License-Identifier: Apache-2.0
"""CPUs that stay idle beside queued work: as the oracle saw it, or where it did not watch, all idle time."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.judge.threshold import excused, missing, no_baseline
from testbed.judge.view import View
from testbed.policy import Policy
from testbed.verdict import Finding


def findings(view: View, baseline: View | None, policy: Policy) -> Iterator[Finding]:
    """Idle shares of the windows in which more tasks want to run than there are CPUs."""
    for check in view.scenario.checks:
        if check.check != "idle":
            continue
        seen = f"{check.load}.wasted" in view.metrics
        name = f"{check.load}.wasted" if seen else f"{check.load}.idle"
        threshold = policy.wasted(view.scenario.name) if seen else policy.idle(view.scenario.name)
        metric = view.metrics.get(name)
        if metric is None:
            yield missing(view, check, "idle CPU time")
            continue
        if metric.value <= threshold.floor:
            continue
        other = baseline.metrics.get(name) if baseline is not None else None
        words = f"{metric.value:.0%} of all CPU time was idle in window `{check.load}`"
        if seen:
            words += " in CPUs for which a task waited"
        if other is None:
            yield no_baseline(view, check, metric)
        elif other.value > threshold.floor:
            yield excused(view, check, f"{words}, {other.value:.0%} under the baseline", metric, other)
        elif metric.value > threshold.factor * other.value:
            yield view.found(
                check.code,
                f"{words}{'' if seen else ' while tasks waited'}; {other.value:.0%} under the baseline, "
                f"allowed are {threshold.floor:.0%} or {threshold.factor:g} times the baseline",
                [metric.ref, other.ref],
            )
