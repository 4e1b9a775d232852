# SPDX-License-Identifier: Apache-2.0
"""Better or worse than the baseline, with figures; and figures so much worse that they count as a collapse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from statistics import median
from typing import Literal

from testbed.judge import noise
from testbed.judge.view import Metric, View
from testbed.judge.workloads import SHARE
from testbed.policy import Policy
from testbed.scenario.model import FigureSpec
from testbed.spec import Clock, RunSpec
from testbed.stats import compare, needed_samples, share
from testbed.verdict import Benefit, Figure, Finding

NS_PER_UNIT = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}

Pair = tuple[View, View | None]


def resolution(spec: RunSpec, unit: str) -> float:
    """What `sim` can't tell apart: CPUs' clocks may differ by the quantum. 0 for what is no time."""
    if spec.clock is not Clock.SIM or unit not in NS_PER_UNIT:
        return 0.0
    return (spec.parallel_quantum << spec.icount_shift) / NS_PER_UNIT[unit]


def is_latency(unit: str) -> bool:
    """Whether a figure of this unit is a waiting time; seconds are the duration of a job."""
    return unit in ("ns", "us", "ms")


def collapse(view: View, baseline: View | None, policy: Policy) -> Iterator[Finding]:
    """Figures of one simulated run that are many times worse than its baseline's. Live ones need all pairs."""
    if policy.benefit.required != "not-collapsed" or view.run.clock is not Clock.SIM or baseline is None:
        return
    for spec in view.scenario.figures:
        metric, other = view.metrics.get(spec.name), baseline.metrics.get(spec.name)
        if metric is None or other is None or not _enough(metric, spec) or not _enough(other, spec):
            continue
        if collapsed(metric.value, other.value, metric.unit, spec.better, policy):
            yield _collapse_finding(view, spec, metric, other)


def collapsed(value: float, other: float, unit: str, better: Literal["lower", "higher"], policy: Policy) -> bool:
    """Whether a figure is so much worse than the baseline's that nobody would call it a matter of taste.

    A share never is: one deadline missed of a thousand is infinitely many times none. How late it was, a latency, is.
    """
    if unit == SHARE:
        return False
    limit = policy.benefit.collapse
    if better == "higher":
        return value * limit <= other and other > 0
    if is_latency(unit):
        floor = policy.benefit.latency_floor * 1e6 / NS_PER_UNIT[unit]
        if value <= floor or other > floor:
            return False
    return value >= limit * other and value > 0


def missing(view: View) -> Iterator[Finding]:
    """Figures that a run must have and has not: without a sample there is nothing to be told."""
    for spec in view.scenario.figures:
        metric = view.metrics.get(spec.name)
        if spec.required and (metric is None or metric.samples < 1):
            yield view.found("not-measured", f"figure `{spec.name}`: the run has no sample of it", [view.outcome_ref()])


def _collapse_finding(view: View, spec: FigureSpec, metric: Metric, other: Metric) -> Finding:
    code = "latency-collapse" if is_latency(metric.unit) else "throughput-collapse"
    return view.found(
        code,
        f"`{spec.name}` is {metric.value:.6g} {metric.unit}, the baseline's {other.value:.6g} {other.unit}",
        [metric.ref, other.ref],
    )


def _enough(metric: Metric, spec: FigureSpec) -> bool:
    """Whether it has the samples that a figure of its name needs; a user's program has counted its own."""
    return metric.samples >= (needed_samples(metric.name) if spec.read is None else 1)


MIN_OWN_PAIRS = 3
"""So many pairs of runs tell of a user's figure how far chance alone puts it apart."""
WILD = 1e6
POLL_S = 0.005
"""The guest's runner looks so often whether a program has ended."""


def _floor(run: RunSpec, spec: FigureSpec, unit: str, ones: Sequence[float], twos: Sequence[float]) -> float:
    """The share up to which a difference is noise.

    Of a figure that a scenario reads itself no table can know it: there it is as far as two runs of the same scheduler
    are apart, EEVDF's or the candidate's.
    """
    if spec.read is None or run.clock is not Clock.SIM or len(ones) < MIN_OWN_PAIRS:
        return noise.load().floor(run, spec.name, unit, len(ones))
    apart = max(share(max(values), min(values)) for values in (ones, twos))
    return apart if isfinite(apart) else WILD


def figures(pairs: Sequence[Pair], policy: Policy) -> Iterator[Figure]:
    """The figures of one scenario under one clock, over all its pairs of runs."""
    if not pairs:
        return
    first = pairs[0][0]
    clock = first.run.clock
    for spec in first.scenario.figures:
        both = [
            (one, two)
            for view, baseline in pairs
            if baseline is not None
            and (one := view.metrics.get(spec.name)) is not None
            and (two := baseline.metrics.get(spec.name)) is not None
        ]
        ones = [one for one, _ in both]
        twos = [two for _, two in both]
        unit = ones[0].unit if ones else ""
        finest = POLL_S if spec.read is not None and spec.read.duration else resolution(first.run.spec, unit)
        values = [one.value for one in ones], [two.value for two in twos]
        floor = max(policy.benefit.indistinct, _floor(first.run.spec, spec, unit, *values))
        enough = len(both) >= (policy.live_pairs if clock is Clock.LIVE else 1)
        enough = enough and all(_enough(metric, spec) for metric in (*ones, *twos))
        value = median(one.value for one in ones) if ones else None
        other = median(two.value for two in twos) if twos else None
        yield Figure(
            name=spec.name,
            scenario=first.scenario.name,
            clock=clock,
            unit=unit,
            better=spec.better,
            candidate=value,
            baseline=other,
            samples=sum(one.samples for one in ones),
            baseline_samples=sum(two.samples for two in twos),
            ratio=round(value / other, 6) if value is not None and other else None,
            resolution=finest,
            floor=floor,
            judgement=compare(
                *values,
                better=spec.better,
                resolution=finest,
                floor=floor,
                noise=clock is Clock.LIVE,
            )
            if enough
            else "not measured",
        )


def conclude(all_figures: Sequence[Figure], against: str = "EEVDF", failed: Mapping[str, str] | None = None) -> Benefit:
    """All figures in a word and a sentence that names where the candidate is slower.

    Args:
        all_figures: of all scenarios.
        against: name of the baseline.
        failed: scenarios in which the baseline failed by itself, and how.
    """
    judged = [figure for figure in all_figures if figure.judgement != "not measured"]
    better = [figure for figure in judged if figure.judgement == "better"]
    worse = [figure for figure in judged if figure.judgement == "worse"]
    outcome: Literal["better", "worse", "mixed", "not distinguishable", "not measured"]
    if not judged:
        outcome, summary = "not measured", "" if failed else "no figure was measured on both sides"
    elif better and worse:
        outcome = "mixed"
        summary = f"worse than {against} in {_names(worse)}; better in {_names(better)}"
    elif worse:
        outcome, summary = "worse", f"worse than {against} in {_names(worse)}"
    elif better:
        outcome, summary = "better", f"better than {against} in {_names(better)}"
    else:
        outcome, summary = "not distinguishable", f"not distinguishable from {against} in {_names(judged)}"
    if any(figure.clock is Clock.SIM for figure in judged):
        summary += " (simulated time)"
    if failed:
        places = ", ".join(f"{name} ({how})" for name, how in failed.items())
        told = f"not measured: the baseline {against} failed in {places}"
        summary = f"{summary}; {told}" if summary else told
    return Benefit(outcome=outcome, summary=summary, figures=tuple(all_figures))


def _names(some: Sequence[Figure]) -> str:
    """The figures that stand out most, each with how many times."""

    def factor(figure: Figure) -> float:
        ratio = figure.ratio or 1.0
        return max(ratio, 1 / ratio) if ratio > 0 else 1.0

    ordered = sorted(some, key=lambda figure: (-factor(figure), figure.scenario, figure.name))
    words = [
        f"{figure.name}" + (f" ({figure.ratio:.2g} times)" if figure.ratio is not None else "")
        for figure in ordered[:4]
    ]
    if len(ordered) > 4:
        words.append(f"{len(ordered) - 4} more")
    return ", ".join(words)
