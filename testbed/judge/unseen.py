# SPDX-License-Identifier: Apache-2.0
"""What a verdict says nothing about: true of what ran, each with a way to check it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from testbed.case import Case, RunEvidence
from testbed.judge import modes
from testbed.judge.assess import Assessment
from testbed.scenario import Scenario
from testbed.spec import Clock, Role
from testbed.status import Status
from testbed.verdict import Figure, NotChecked, ScenarioResult

CODES = (
    "knows-the-guest",
    "host-kernel",
    "longer-runs",
    "noisy-guardrail",
    "nothing-ran",
    "optional-scenario",
    "other-interleavings",
    "other-topologies",
    "own-timeout",
    "real-concurrency",
    "real-speed",
)
"""All that is no failure mode (`modes.CODES`)."""

_LOOKED = (Status.PASS, Status.FAIL, Status.DONE)
"""A scenario of such a status has been looked at to its end, or to the candidate's."""


def not_checked(
    case: Case,
    results: Sequence[ScenarioResult],
    looked_at: Sequence[Assessment],
    figures: Sequence[Figure],
    *,
    built: bool,
) -> tuple[NotChecked, ...]:
    """Everything that the case leaves open."""
    if not built:
        return (
            NotChecked(
                code="nothing-ran",
                reason="the candidate was not built, so no guest was started",
                how="repair what the findings name and run it again",
            ),
        )
    return tuple(_entries(case, results, looked_at, figures))


def _entries(
    case: Case, results: Sequence[ScenarioResult], looked_at: Sequence[Assessment], figures: Sequence[Figure]
) -> Iterator[NotChecked]:
    for result in results:
        if not result.required and result.status in (Status.MISS, Status.ERROR):
            yield NotChecked(
                code="optional-scenario",
                reason=f"`{result.name}` under `{result.clock}` is optional and "
                + ("was not run" if result.status is Status.MISS else "gave no answer")
                + (f": {result.reason}" if result.reason else ""),
                how=f"testbed run … -k {result.name} --clock {result.clock}",
            )
    runs = [one.view.run for one in looked_at if one.view.run.spec.role is Role.CANDIDATE]
    scenarios = {one.view.scenario.name: one.view.scenario for one in looked_at}
    if not runs:
        yield NotChecked(code="nothing-ran", reason="no guest ran the candidate", how="run it again, without -k")
        return
    yield from _concurrency(case, runs)
    yield from _machine(runs)
    yield from _own_timeout(list(scenarios.values()), runs)
    yield from _guardrails(scenarios, figures)
    kernel = f" {case.facts.kernel.release}" if case.facts.kernel else ""
    yield NotChecked(
        code="host-kernel",
        reason=f"only the guest's kernel{kernel} was asked; another kernel may refuse the programs or act otherwise",
        how="compare `uname -r` of the host with `kernel.release` of this verdict",
    )
    yield from _modes(results, _longest_s(runs))


def _guardrails(scenarios: Mapping[str, Scenario], figures: Iterable[Figure]) -> Iterator[NotChecked]:
    """Figures that may be worse by less than noise explains, so that a loss between the two is not seen."""
    for figure in figures:
        specs = scenarios[figure.scenario].figures
        limit = next((spec.allow_worse for spec in specs if spec.name == figure.name), None)
        if limit is None or (figure.judgement != "not measured" and figure.floor <= limit):
            continue
        noise = "was not measured" if figure.judgement == "not measured" else f"noise explains {figure.floor:.1%} of it"
        yield NotChecked(
            code="noisy-guardrail",
            reason=f"`{figure.name}` may be worse by {limit:.1%}, and {noise}",
            how="testbed run … --seeds 10, and a workload that repeats itself better",
        )


def _longest_s(runs: Sequence[RunEvidence]) -> float:
    """Guest time of the longest run; its clock began at boot, long before the job."""
    spans = (run.stream.events[-1].t - run.stream.events[0].t for run in runs if run.stream.events)
    return max(spans, default=0) / 1e9


def _concurrency(case: Case, runs: Sequence[RunEvidence]) -> Iterator[NotChecked]:
    live = [run for run in runs if run.clock is Clock.LIVE]
    if any(run.outcome.accelerator == "kvm" for run in live):
        return
    why = "" if live else f" ({case.facts.live.reason})" if case.facts.live.reason else ""
    yield NotChecked(
        code="real-concurrency",
        reason=f"CPUs ran in turns, so races finer than the simulation's quantum were not seen{why}",
        how="testbed run … --clock live on a machine with KVM",
    )
    if not live:
        yield NotChecked(
            code="real-speed",
            reason="figures are in simulated time, without caches, SMT or memory bandwidth",
            how="testbed run … --clock live on a machine with KVM",
        )


def _machine(runs: Sequence[RunEvidence]) -> Iterator[NotChecked]:
    machines = {run.spec.topology for run in runs}
    lacking = [
        words
        for words, there in (
            ("SMT", any(one.threads > 1 for one in machines)),
            ("two last-level caches", any(one.llcs > 1 for one in machines)),
            ("two NUMA nodes", any(one.nodes > 1 for one in machines)),
            ("more than four CPUs", any(one.cpus > 4 for one in machines)),
            ("one CPU", any(one.cpus == 1 for one in machines)),
        )
        if not there
    ]
    if lacking:
        shown = "; ".join(str(one) for one in sorted(machines, key=lambda one: (one.cpus, str(one))))
        yield NotChecked(
            code="other-topologies",
            reason=f"guests had {shown}; not tried: {', '.join(lacking)}",
            how="testbed run … --topology NAME (`testbed scenarios --topologies` lists them)",
        )
    yield NotChecked(
        code="longer-runs",
        reason=f"no run lasted longer than {_longest_s(runs):.0f} s of guest time; what misbehaves later than that, "
        "as slow leaks and rare stalls do, was not seen",
        how="testbed run … --policy full, and a canary on the host",
    )
    seeds = {(run.spec.scenario, run.spec.seed) for run in runs if run.clock is Clock.SIM}
    if seeds and len({seed for _, seed in seeds}) == 1:
        yield NotChecked(
            code="other-interleavings",
            reason="each scenario ran under one seed, which is one order of events of many",
            how="testbed run … --seeds 20",
        )
    yield NotChecked(
        code="knows-the-guest",
        reason="names, dates and process numbers are a host's, but a scheduler can find out that it runs in a guest "
        "that has just booted (its CPU model, its clock), and behave only there",
        how="read it for what it asks of time, names and CPUs (`testbed lint` names some), and a canary on the host",
    )


def _modes(results: Sequence[ScenarioResult], longest_s: float) -> Iterator[NotChecked]:
    """The ways to fail that nothing of what ran could have shown."""
    ran = frozenset(one.name for one in results if one.status in _LOOKED)
    for mode in modes.unseen(ran):
        if not mode.scenarios:
            yield NotChecked(code=mode.code, mode=mode.number, reason=f"{mode.what}: {mode.open}", how=mode.how)
            continue
        names = " or ".join(f"`{name}`" for name in mode.scenarios)
        yield NotChecked(
            code=mode.code,
            mode=mode.number,
            reason=f"{mode.what}: {names} would show it and did not run; the longest run was {longest_s:.0f} s",
            how=f"testbed run … --policy full -k {mode.scenarios[0]}",
        )


def _own_timeout(scenarios: Sequence[Scenario], runs: Sequence[RunEvidence]) -> Iterator[NotChecked]:
    if any(run.spec.candidate and "\ncandidate object " in run.spec.job for run in runs):
        limits = sorted({scenario.limits.timeout_ms for scenario in scenarios})
        yield NotChecked(
            code="own-timeout",
            reason=f"the scheduler's `timeout_ms` was capped to {limits[-1]} ms, so that a stall shows soon",
            how="the scheduler's own value only makes the kernel's watchdog later",
        )
