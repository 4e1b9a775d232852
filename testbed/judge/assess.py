# SPDX-License-Identifier: Apache-2.0
"""One run: all checks in order, and the status that they add up to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from testbed.case import RunEvidence
from testbed.judge import (
    attach,
    benefit,
    idle,
    integrity,
    kernel,
    liveness,
    machine,
    own,
    progress,
    share,
    starvation,
)
from testbed.judge.view import MAX_REFS, View
from testbed.policy import Policy
from testbed.scenario import Scenario
from testbed.spec import Role
from testbed.status import Status, worst
from testbed.verdict import Finding, Measurement

_TIME_CODES = frozenset(
    (
        "runnable-task-stall",
        "task-starved",
        "canary-starved",
        "kworker-starved",
        "rcu-starved",
        "crawl",
        "idle-while-runnable",
        "unfair-share",
        "no-progress",
        "slow-detach",
        "soft-lockup",
        "hard-lockup",
        "rcu-stall",
        "hung-task",
        "latency-collapse",
        "throughput-collapse",
    )
)
"""Findings that rest on guest time, so that a clock that jumped makes them worthless."""


@dataclass(frozen=True)
class Assessment:
    """What one run says."""

    view: View
    status: Status
    findings: tuple[Finding, ...]

    @cached_property
    def measurements(self) -> tuple[Measurement, ...]:
        """Every figure of the run."""
        return self.view.measurements()


def assess(
    run: RunEvidence,
    *,
    scenario: Scenario,
    policy: Policy,
    baseline: RunEvidence | None,
    sources: Mapping[str, str] | None = None,
) -> Assessment:
    """Judge one run against its baseline run; a status of FAIL asks for a repetition."""
    view = View(run, scenario, sources)
    beside: View | None = None
    if baseline is not None:
        other = View(baseline, scenario)
        if not _decisive(_unconditional(other, None)):
            beside = other
    found = _unconditional(view, beside)
    # Of what only figures are compared with it matters whether it ran, not whether it is as good as EEVDF.
    thresholds = view.has_candidate and run.spec.role is not Role.REFERENCE
    if thresholds and not _decisive(found):
        found += starvation.gaps(view, beside, policy)
        found += idle.findings(view, beside, policy)
        found += progress.findings(view, beside, policy)
        found += share.findings(view, beside, policy)
        found += benefit.collapse(view, beside, policy)
        found += benefit.missing(view)
    if not view.has_candidate:
        found = [_blame_machine(view, finding) for finding in found]
    ended = view.end
    # Steps that wait for a scheduler end early once it has asked for a restart, and so does the job.
    left = view.restart is not None
    if ended is not None and not ended.flag("ok") and not left and not _decisive(found):
        found.append(view.found("step-failed", "the runner says that the job failed, not why", [view.ref(ended)]))
    merged = _merged(found)
    passed = Status.PASS if view.has_candidate else Status.DONE
    status = worst([passed, *(one.status for one in merged if one.status in (Status.FAIL, Status.ERROR))])
    return Assessment(view, status, merged)


def _unconditional(view: View, baseline: View | None) -> list[Finding]:
    """Checks that count whatever the baseline did; only starvation is excused by it."""
    found: list[Finding] = []
    found += integrity.findings(view)
    found += machine.findings(view)
    found += kernel.findings(view)
    found += liveness.findings(view)
    found += attach.findings(view, baseline)
    if not _decisive(found):
        found += own.findings(view, baseline)
    if view.has_candidate:
        # In a baseline it is a threshold that EEVDF crosses: an excuse for the candidate, no failure of the machine.
        found += starvation.starving(view, baseline)
    codes = {finding.code for finding in found}
    if {"clock-jumped", "guest-paused"} & codes:
        found = [one.model_copy(update={"status": Status.ERROR}) if one.code in _TIME_CODES else one for one in found]
    if baseline is not None and "kernel-warning" in codes and _same_warnings(view, baseline):
        found = [one for one in found if one.code != "kernel-warning"]
    if "runnable-task-stall" in codes and "task-starved" in codes:
        # The same thing twice: the runner saw the task that the kernel's watchdog then found.
        starved = next(one for one in found if one.code == "task-starved")
        found = [
            one.model_copy(
                update={"message": f"{one.message}; {starved.message}", "evidence": one.evidence + starved.evidence[:2]}
            )
            if one.code == "runnable-task-stall"
            else one
            for one in found
            if one.code != "task-starved"
        ]
    if "task-starved" in codes:
        # A job that does not end is what comes of it.
        found.sort(key=lambda one: one.code == "no-progress")
    return found


def _same_warnings(view: View, baseline: View) -> bool:
    """Whether the baseline's kernel prints every warning of this run too, numbers aside."""

    def warnings(one: View) -> set[str]:
        return {
            re.sub(r"0x[0-9a-f]+|\d+", "N", record.text)
            for record in kernel.records(one)
            if record.text.startswith("WARNING: ") and not record.quoted
        }

    return warnings(view) <= warnings(baseline)


def _decisive(found: Iterable[Finding]) -> bool:
    return any(finding.status in (Status.FAIL, Status.ERROR) for finding in found)


def _blame_machine(view: View, finding: Finding) -> Finding:
    """In a run without a candidate nothing can be the candidate's fault."""
    if finding.status is not Status.FAIL:
        return finding
    return view.found("baseline-failed", f"{finding.title}: {finding.message}", finding.evidence)


def _merged(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """One finding per code and message kind: later ones of a code lend their evidence to the first."""
    result: dict[tuple[str, str], Finding] = {}
    for finding in found:
        # Threshold checks of different loads stay apart, they have different messages from their first words on.
        key = (finding.code, finding.message.partition("`")[2].partition("`")[0] if finding.code in _PER_LOAD else "")
        if key in result:
            first = result[key]
            evidence = first.evidence + tuple(ref for ref in finding.evidence if ref not in first.evidence)
            result[key] = first.model_copy(update={"evidence": evidence[:MAX_REFS]})
        else:
            result[key] = finding
    return tuple(result.values())


_PER_LOAD = frozenset(
    (
        "canary-starved",
        "kworker-starved",
        "rcu-starved",
        "crawl",
        "idle-while-runnable",
        "unfair-share",
        "latency-collapse",
        "throughput-collapse",
        "not-measured",
        "no-baseline",
        "baseline-crosses-too",
        "workload-broken",
        "workload-failed",
    )
)
