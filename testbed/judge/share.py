# SPDX-License-Identifier: Apache-2.0
"""Equal tasks that get unequal shares of the CPUs."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.judge.threshold import excused, missing, no_baseline
from testbed.judge.view import CPUTIME, SPREAD, WORK, View
from testbed.policy import Policy
from testbed.verdict import Finding


def findings(view: View, baseline: View | None, policy: Policy) -> Iterator[Finding]:
    """How far apart the CPU time of a load's tasks is (or, unseen, their work), where all of them want the same."""
    threshold = policy.share(view.scenario.name)
    for check in view.scenario.checks:
        if check.check != "share":
            continue
        of = CPUTIME if f"{check.load}.{CPUTIME}.{SPREAD}" in view.metrics else WORK
        metric = view.spread(check.load, threshold.window, of)
        if metric is None:
            yield missing(view, check, f"the work of each task over {threshold.window} ms of guest time")
            continue
        if metric.value <= threshold.floor:
            continue
        other = baseline.spread(check.load, threshold.window, of) if baseline is not None else None
        had = "did {} times another one's work" if of == WORK else "had {} times another one's CPU time"
        words = f"one of {metric.samples} equal tasks of `{check.load}` {had.format(f'{metric.value:.3g}')}"
        if other is None:
            yield no_baseline(view, check, metric)
        elif other.value > threshold.floor:
            yield excused(view, check, f"{words}, {other.value:.3g} times under the baseline", metric, other)
        elif metric.value > threshold.factor * other.value:
            yield view.found(
                check.code,
                f"{words}; {other.value:.3g} times under the baseline, allowed are {threshold.floor:g} times or "
                f"{threshold.factor:g} times the baseline's",
                [metric.ref, other.ref],
            )
