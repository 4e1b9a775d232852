# SPDX-License-Identifier: Apache-2.0
"""Tasks that wait: those that the runner saw starving, and worst waits against the baseline's, told or seen."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.case import Event, printable
from testbed.judge.threshold import excused, missing, no_baseline
from testbed.judge.view import View
from testbed.policy import Policy
from testbed.verdict import Finding


def starving(view: View, baseline: View | None) -> Iterator[Finding]:
    """Tasks that were runnable and did not run for longer than the scenario's limit."""
    events = _events(view)
    if not events:
        return
    worst = max(events, key=lambda event: event.integer("waited_ms"))
    number = worst.integer("tid") or worst.integer("pid")
    who = f"`{printable(worst.text('comm'), 30)}[{number}]`{view.owner(number)}"
    kind = "kernel thread " if worst.flag("kthread") else "task "
    allowed = printable(worst.text("allowed"), 60)
    words = (
        f"{kind}{who} was runnable on CPU {worst.integer('cpu', -1)} (allowed: {allowed or 'unknown'}) "
        f"and did not run for {worst.integer('waited_ms')} ms"
    )
    tasks = {event.integer("tid") or event.integer("pid") for event in events}
    if len(tasks) > 1:
        words += f"; {len(tasks)} tasks starved"
    refs = [view.ref(event) for event in ([worst] + [event for event in events if event is not worst])[:4]]
    others = _events(baseline) if baseline is not None else []
    if others:
        assert baseline is not None
        yield view.found(
            "baseline-crosses-too",
            f"{words}; tasks starve under the baseline too",
            [*refs[:3], baseline.ref(others[0])],
        )
        return
    if worst.flag("kthread"):
        hint = "insert kernel threads with one allowed CPU into SCX_DSQ_LOCAL from ops.enqueue()"
        yield view.found("task-starved", words, refs, hint=hint)
    else:
        yield view.found("task-starved", words, refs)


def _events(view: View | None) -> list[Event]:
    if view is None:
        return []
    begun = view.attach_begun
    return [
        event
        for event in view.run.stream.of("starving")
        if not view.has_candidate or (begun is not None and event.t >= begun.t)
    ]


def gaps(view: View, baseline: View | None, policy: Policy) -> Iterator[Finding]:
    """The canaries' worst wake-to-run gaps, and the worst waits for a CPU that the oracle saw."""
    for check in view.scenario.checks:
        if check.check not in ("gap", "wait"):
            continue
        seen = check.check == "wait"
        threshold = policy.wait(view.scenario.name) if seen else policy.gap(view.scenario.name)
        floor_us = threshold.floor * 1000.0
        metric = view.worst_wait(check.load) if seen else view.worst_gap(check.load)
        if metric is None:
            yield missing(view, check, "waits for a CPU" if seen else "waiting times")
            continue
        if metric.value <= floor_us:
            continue
        other = (baseline.worst_wait(check.load) if seen else baseline.worst_gap(check.load)) if baseline else None
        words = f"the worst wait of `{check.load}` was {_ms(metric.value)}"
        if other is None:
            yield no_baseline(view, check, metric)
        elif other.value > floor_us:
            yield excused(view, check, f"{words}, the baseline's {_ms(other.value)}", metric, other)
        elif metric.value > threshold.factor * other.value:
            yield view.found(
                check.code,
                f"{words}; the baseline's was {_ms(other.value)}, allowed are {_ms(floor_us)} or "
                f"{threshold.factor:g} times the baseline",
                [metric.ref, other.ref],
            )


def _ms(microseconds: float) -> str:
    return f"{microseconds / 1000:.1f} ms"
