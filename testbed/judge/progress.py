# SPDX-License-Identifier: Apache-2.0
"""Useful work against the baseline's in the same guest time, and forks and cgroup calls that were refused."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.judge.threshold import missing, no_baseline
from testbed.judge.view import View
from testbed.policy import Policy
from testbed.verdict import Finding


def findings(view: View, baseline: View | None, policy: Policy) -> Iterator[Finding]:
    """Work that was not done."""
    yield from _refused(view, baseline)
    threshold = policy.work(view.scenario.name)
    for check in view.scenario.checks:
        if check.check != "work":
            continue
        metric = view.throughput(check.load)
        if metric is None:
            yield missing(view, check, "work done")
            continue
        other = baseline.throughput(check.load) if baseline is not None else None
        if other is None or other.value <= 0:
            yield no_baseline(view, check, metric)
            continue
        share = metric.value / other.value
        if share < threshold.floor:
            yield view.found(
                check.code,
                f"`{check.load}` did {share:.1%} of the baseline's work in the same guest time, "
                f"expected at least {threshold.floor:.0%}",
                [metric.ref, other.ref],
            )


_REFUSED = {
    "fork": ("fork-vetoed", "forks"),
    "cgroup": ("cgroup-vetoed", "calls for making, entering or removing a cgroup"),
}
"""What a load's errors mean: the code, and what failed."""


def _refused(view: View, baseline: View | None) -> Iterator[Finding]:
    for name, start in view.scenario.loads().items():
        metric = view.metrics.get(f"{name}.errors")
        if start.kind not in _REFUSED or metric is None or metric.value <= 0:
            continue
        if start.cgroup is not None and view.scenario.is_bounded(start.cgroup):
            continue  # the kernel refuses them, as it was told to
        other = baseline.metrics.get(f"{name}.errors") if baseline is not None else None
        if other is None or other.value <= 0:
            code, what = _REFUSED[start.kind]
            yield view.found(code, f"{metric.value:.0f} {what} of `{name}` failed", [metric.ref])
