# SPDX-License-Identifier: Apache-2.0
"""Policy × scenarios × clocks → the list of guest boots. Pure: reads nothing, starts nothing."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from testbed import topology
from testbed.case import NotRun, PlannedRun
from testbed.errors import ScenarioError, UsageError
from testbed.policy import Demand, Policy
from testbed.scenario import CandidateKind, Scenario, job_text, wall_limit_s
from testbed.spec import Clock, Role, RunSpec, Topology

# The seed of the first run, in which no vCPU is disturbed; each later seed is another legal order of events.
FIRST_SEED = 0


@dataclass(frozen=True)
class Plan:
    """What is to be run, and what the policy names and is left out."""

    specs: tuple[RunSpec, ...]
    not_run: tuple[NotRun, ...]

    @property
    def planned(self) -> tuple[PlannedRun, ...]:
        """The plan as the case records it."""
        return tuple(
            PlannedRun(scenario=spec.scenario, clock=spec.clock, role=spec.role, seed=spec.seed) for spec in self.specs
        )


@dataclass(frozen=True)
class Attached:
    """Another scheduler than the candidate, for a reference or a control; see the same fields of `Question`."""

    candidate: str
    words: tuple[str, ...]
    timeout_ms: int | None
    files: str


@dataclass(frozen=True)
class Question:
    """How the candidate is to be judged.

    Attributes:
        candidate: sha256 of the candidate's manifest.
        words: what the job's `candidate` line says for the candidate's own runs; its first word is the kind.
        timeout_ms: the scheduler's own watchdog timeout, None where nobody can know it beforehand.
        clocks: clocks that were asked for.
        pattern: only scenarios whose name matches (`-k`): a glob, or a part of the name.
        machine: overrides the scenarios' own topologies.
        files: sha256 of the archive that travels with the candidate's jobs.
        baseline_files: the same of the baseline's jobs.
        image: id of the image.
        seeds: orders of events in `sim`.
        first_seed: of them; the others are those that follow it.
        programs: words that stand for a program of the image, where another one takes its place.
        reference: what figures are compared with, None for EEVDF.
        controls: schedulers whose answer is known.
        control_scenario: what they run.
    """

    policy: Policy
    scenarios: Mapping[str, Scenario]
    candidate: str
    words: tuple[str, ...]
    timeout_ms: int | None
    clocks: frozenset[Clock]
    pattern: str | None
    machine: Topology | None
    files: str
    baseline_files: str
    image: str
    seeds: int
    first_seed: int = FIRST_SEED
    programs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reference: Attached | None = None
    controls: tuple[Attached, ...] = ()
    control_scenario: str = ""


def plan(question: Question) -> Plan:
    """List the runs in the order in which they should start: the policy's, candidate before baseline and reference.

    Raises:
        UsageError: the pattern matches no scenario of the policy.
        ScenarioError: the policy names a scenario that does not exist.
    """
    names = [demand.name for demand in question.policy.scenarios]
    selected = select(names, question.pattern)
    specs: list[RunSpec] = []
    not_run: list[NotRun] = []
    for demand in question.policy.scenarios:
        scenario = question.scenarios.get(demand.name)
        if scenario is None:
            raise ScenarioError(
                f"policy `{question.policy.name}` demands scenario `{demand.name}`, which does not exist",
                hint=f"there are {', '.join(sorted(question.scenarios))}",
            )
        reason = ""
        if demand.name not in selected:
            reason = "deselected by -k"
        elif demand.clock not in question.clocks:
            reason = f"clock `{demand.clock}` was not asked for"
        elif scenario.needs.candidate not in (None, question.words[0]):
            reason = f"is for candidates of the kind `{scenario.needs.candidate}`"
        if reason:
            not_run.append(NotRun(scenario=demand.name, clock=demand.clock, reason=reason))
            continue
        asked = question if demand.seed is None else replace(question, machine=None)
        for role, seed in _rounds(question, scenario, demand):
            specs.append(run_spec(asked, scenario, demand.clock, role, seed, len(specs)))
        if not any(spec.role is Role.CONTROL for spec in specs):
            specs += _controls(question, len(specs))  # early, but behind what may already end it
    return Plan(tuple(specs), tuple(not_run))


def select(names: Iterable[str], pattern: str | None) -> frozenset[str]:
    """The names that `-k` means."""
    known = frozenset(names)
    if pattern is None:
        return known
    found = frozenset(name for name in known if fnmatch.fnmatchcase(name, pattern) or pattern in name)
    if not found:
        raise UsageError(
            f"`-k {pattern}` matches no scenario of the policy",
            hint=f"it has {', '.join(sorted(known))}",
        )
    return found


def _rounds(question: Question, scenario: Scenario, demand: Demand) -> Sequence[tuple[Role, int]]:
    """Candidate and baseline in turn: by seed in `sim`, A-B-A-B in `live`. A reference runs where there are figures."""
    sim = demand.clock is Clock.SIM
    rounds = max(question.seeds, demand.seeds) if sim else question.policy.live_pairs
    seeds = [question.first_seed + number if sim else FIRST_SEED for number in range(rounds)]
    if sim and demand.seed is not None:
        seeds = [demand.seed]
    roles = [Role.CANDIDATE, Role.BASELINE]
    if question.reference is not None and scenario.figures:
        roles.append(Role.REFERENCE)
    return [(role, seed) for seed in seeds for role in roles]


def _controls(question: Question, number: int) -> list[RunSpec]:
    """One run of each control, on the candidate's machine."""
    clock = Clock.SIM if Clock.SIM in question.clocks else Clock.LIVE
    scenario = question.scenarios[question.control_scenario] if question.controls else None
    return [
        run_spec(
            replace(question, candidate=one.candidate, words=one.words, timeout_ms=one.timeout_ms, files=one.files),
            scenario,
            clock,
            Role.CONTROL,
            FIRST_SEED,
            number + place,
        )
        for place, one in enumerate(question.controls)
        if scenario is not None
    ]


def run_spec(question: Question, scenario: Scenario, clock: Clock, role: Role, seed: int, number: int) -> RunSpec:
    """One run of a scenario, as the plan would have it."""
    # A reference gets the job that it would have as the candidate, so that the cache knows it.
    own = Attached(question.candidate, question.words, question.timeout_ms, question.files)
    other = question.reference if role is Role.REFERENCE else None
    attached = other or own
    nothing = role is Role.BASELINE
    kind: CandidateKind = "program" if attached.words[0] == "program" else "object"
    machine = topology.instead(scenario.topology, question.machine)
    return RunSpec(
        schema="testbed.run/1",
        number=number,
        role=role,
        scenario=scenario.name,
        clock=clock,
        topology=machine,
        seed=seed,
        candidate="" if nothing else attached.candidate,
        job=job_text(
            scenario,
            seed=seed,
            candidate=("none",) if nothing else attached.words,
            kind=kind,
            cpus=machine.cpus,
            candidate_timeout_ms=attached.timeout_ms,
            programs=question.programs,
        ),
        files=question.baseline_files if nothing else attached.files,
        image=question.image,
        wall_limit_s=wall_limit_s(scenario),
    )
