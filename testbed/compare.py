# SPDX-License-Identifier: Apache-2.0
"""Two cases' candidates against each other, or a case's against its own baseline: a pure function of their evidence.

Only runs that differ in nothing but the candidate are compared: same scenario, workload, clock, machine, image, seed.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Literal

from pydantic import Field

from testbed.case import Case, canonical_json
from testbed.errors import UsageError
from testbed.judge import benefit
from testbed.judge.assess import assess
from testbed.judge.conclude import pairs
from testbed.judge.view import View
from testbed.policy import Policy
from testbed.scenario import Scenario
from testbed.spec import Clock, Model, Role, sha256
from testbed.stats import SIGNIFICANCE, Judgement, holm, pairs_for, rank_test, sign_interval, sign_test
from testbed.status import Status
from testbed.verdict import Figure

SCHEMA = "testbed.compare/1"
MIN_PAIRS = 5
"""So many pairs of runs make an interval."""

Key = tuple[str, Clock]
Basis = Literal["tested", "few pairs", "one sample", "not measured"]


class Side(Model):
    """One of the two cases."""

    case: str = Field(description="directory name of the case")
    candidate: str
    sha256: str = Field(description="of the candidate's manifest")


class Compared(Model):
    """A figure of both candidates over the runs that they share."""

    scenario: str
    name: str
    clock: Clock
    unit: str
    better: Literal["lower", "higher"]
    first: float | None = Field(description="median over the pairs")
    second: float | None
    pairs: int = Field(description="pairs of runs: seeds in `sim`, rounds in `live`")
    resolution: float = Field(description="differences up to this (in `unit`) mean nothing")
    floor: float = Field(description="differences up to this share of the smaller value mean nothing")
    ratio: float | None = Field(default=None, description="median over the pairs of first / second")
    low: float | None = Field(default=None, description="interval of that median; null below 5 seeds and in `live`")
    high: float | None = None
    confidence: float | None = Field(default=None, description="what the interval really has, 0.95 where it can")
    p: float | None = Field(default=None, description="exact test, raised for all figures (Holm); null below 5 pairs")
    judgement: Judgement = Field(description="of the first candidate, the second being the baseline")
    basis: Basis


class NotCompared(Model):
    """A scenario that both cases, or one of them, ran, and that can't be compared, or not with all seeds."""

    scenario: str
    clock: Clock
    reason: str
    hint: str


class Comparison(Model):
    """What `testbed compare` prints."""

    schema_: Literal["testbed.compare/1"] = Field(default="testbed.compare/1", alias="schema")
    first: Side
    second: Side
    figures: tuple[Compared, ...]
    not_compared: tuple[NotCompared, ...]
    tests: int = Field(description="figures that were tested together")
    needed: int = Field(description="seeds with which such a test can tell agreement from chance")


@dataclass(frozen=True)
class _Conditions:
    """What two runs must share beside their seed, each as something that can be compared."""

    scenario: str
    workload: str
    topology: str
    image: str
    clockwork: str
    accelerator: str


_WORDS = {
    "scenario": ("the scenario's text differs", "run both with the same version of the testbed"),
    "workload": ("the workload differs", "give both the same one by --schbench or --workload"),
    "topology": ("the machine differs", "give both the same one by --topology"),
    "image": ("the image differs", "run both with the same image"),
    "clockwork": ("the clock's rate or quantum differs", "run both with the same version of the testbed"),
    "accelerator": ("the accelerator differs", "run both on the same machine"),
}

_Runs = Mapping[_Conditions, Mapping[int, Sequence[View]]]
_ByKey = Mapping[Key, _Runs]


@dataclass(frozen=True)
class _Words:
    """How what is missing is told.

    Attributes:
        both: whatever is compared.
        sides: who lacks a run.
        again: what to do about it, before the command.
    """

    both: str
    sides: tuple[str, str]
    again: tuple[str, str]


TWO_CASES = _Words(
    "the cases have",
    ("the first case", "the second case"),
    ("judge the first candidate again", "judge the second candidate again"),
)
ONE_CASE = _Words(
    "the candidate and its baseline have",
    ("the candidate", "the baseline"),
    ("run both again, with the same `--baseline`",) * 2,
)


def compare_cases(first: Case, second: Case) -> Comparison:
    """The first case's candidate against the second's.

    Raises:
        UsageError: they have no runs in common, or none of them has a figure; says how to get some.
    """
    policy = _stricter(first.policy(), second.policy())
    return _compare((_side(first), _side(second)), _runs(first), _runs(second), policy, TWO_CASES)


def compare_baseline(case: Case) -> Comparison:
    """A case's candidate against what the case has beside it: EEVDF, or what `--baseline` named.

    Raises:
        UsageError: none of its runs has both a figure and something beside it; says how to get some.
    """
    facts = case.facts.baseline
    beside = Side(case=case.path.resolve().name, candidate=facts.name, sha256=facts.sha256)
    others = _runs(case, Role.BASELINE if facts.kind == "eevdf" else Role.REFERENCE)
    return _compare((_side(case), beside), _runs(case), others, case.policy(), ONE_CASE)


def _compare(sides: tuple[Side, Side], ones: _ByKey, twos: _ByKey, policy: Policy, words: _Words) -> Comparison:
    samples: list[Compared] = []
    left: list[NotCompared] = []
    for key in dict.fromkeys((*ones, *twos)):
        mine, others = ones.get(key, {}), twos.get(key, {})
        left += _missing(key, mine, others, words)
        for conditions in mine:
            views = _pairs(mine[conditions], others.get(conditions, {}))
            for figure in benefit.figures(views, policy):
                samples.append(_compared(figure, *_values(figure, views)))
    tested = [place for place, one in enumerate(samples) if one.p is not None]
    adjusted = dict(zip(tested, holm([samples[place].p or 0.0 for place in tested]), strict=True))
    found = [_judged(one, adjusted.get(place), len(tested)) for place, one in enumerate(samples)]
    if not found:
        raise _nothing(left, words)
    return Comparison(
        first=sides[0],
        second=sides[1],
        figures=tuple(found),
        not_compared=tuple(left),
        tests=len(tested),
        needed=max(MIN_PAIRS, pairs_for(len(tested) or len(found))),
    )


def _side(case: Case) -> Side:
    facts = case.artifact.candidate if case.artifact is not None else None
    return Side(
        case=case.path.resolve().name,
        candidate=facts.name if facts else "unknown",
        sha256=facts.sha256 if facts else "",
    )


def _stricter(first: Policy, second: Policy) -> Policy:
    """Of two policies the one that calls less a difference."""
    return max((first, second), key=lambda policy: policy.benefit.indistinct)


def _runs(case: Case, role: Role = Role.CANDIDATE) -> _ByKey:
    """First runs of a role that did their job, by what they ran under and seed."""
    scenarios, policy, baselines = case.scenarios(), case.policy(), pairs(case.runs)
    found: dict[Key, dict[_Conditions, dict[int, list[View]]]] = defaultdict(dict)
    for run in case.runs:
        spec = run.spec
        scenario = scenarios.get(spec.scenario)
        if scenario is None or not scenario.figures or spec.role is not role or spec.repeats is not None:
            continue
        one = assess(run, scenario=scenario, policy=policy, baseline=baselines.get(spec.number))
        if one.status not in (Status.PASS, Status.DONE):
            continue
        seeds = found[spec.scenario, spec.clock].setdefault(_conditions(case, one.view, scenario), {})
        seeds.setdefault(spec.seed, []).append(one.view)
    return {key: runs for key, runs in found.items() if runs}


def _conditions(case: Case, view: View, scenario: Scenario) -> _Conditions:
    spec, schbench = view.run.spec, case.facts.tool.schbench
    own = scenario.needs.workload or ""
    scenario = scenario.model_copy(update={"needs": scenario.needs.model_copy(update={"workload": None})})
    uses = any(Path(program.argv[0]).name == "schbench" for program in scenario.programs().values())
    return _Conditions(
        scenario=sha256(canonical_json(scenario.model_dump(mode="json", by_alias=True))),
        workload=schbench.model_dump_json() if uses and schbench is not None else own,
        topology=spec.topology.model_dump_json(),
        image=spec.image,
        clockwork=f"{spec.parallel_quantum} {spec.icount_shift}" if spec.clock is Clock.SIM else "",
        accelerator=view.run.outcome.accelerator,
    )


def _pairs(first: Mapping[int, Sequence[View]], second: Mapping[int, Sequence[View]]) -> list[benefit.Pair]:
    """Runs of equal seed; where several have it (live), the first goes with the first."""
    return [
        (one, two)
        for seed in sorted(first)
        if seed in second
        for one, two in zip(first[seed], second[seed], strict=False)
    ]


def _missing(key: Key, first: _Runs, second: _Runs, words: _Words) -> Iterator[NotCompared]:
    """What keeps a scenario, or some of its seeds, from being compared, and what to do about it."""
    name, clock = key
    if not first or not second:
        lacking = 0 if not first else 1
        reason = f"{words.sides[lacking]} has no run of it that passed"
        hint = f"{words.again[lacking]}: {_command(key, second or first)}"
        yield NotCompared(scenario=name, clock=clock, reason=reason, hint=hint)
        return
    if not any(conditions in second for conditions in first):
        names = [
            field.name
            for field in fields(_Conditions)
            if not {getattr(one, field.name) for one in first} & {getattr(two, field.name) for two in second}
        ]
        reason = "; ".join(_WORDS[name][0] for name in names) or "no run shares everything with one of the other case"
        advice = "; ".join(dict.fromkeys(_WORDS[name][1] for name in names))
        hint = f"{advice}: {_command(key, first)}" if advice else _command(key, first)
        yield NotCompared(scenario=name, clock=clock, reason=reason, hint=hint)
        return
    one, two = _seeds(first), _seeds(second)
    for side, other, has, lacks in ((0, second, one, two - one), (1, first, two, one - two)):
        if lacks:
            reason = f"{words.sides[side]} has {len(has)} of {len(one | two)} seeds that passed"
            hint = f"{words.again[side]}: {_command(key, other)}"
            yield NotCompared(scenario=name, clock=clock, reason=reason, hint=hint)


def _seeds(runs: _Runs) -> set[int]:
    return {seed for seeds in runs.values() for seed in seeds}


def _command(key: Key, runs: _Runs) -> str:
    name, clock = key
    seeds = f" --seeds {max(_seeds(runs), default=0) + 1}" if clock is Clock.SIM else ""
    return f"`testbed run CANDIDATE --clock {clock} -k {shlex.quote(name)}{seeds}`"


def _nothing(left: Sequence[NotCompared], words: _Words) -> UsageError:
    if not left:
        return UsageError(
            f"{words.both} no figure to compare",
            hint="judge them by scenarios that have figures, e.g. `testbed run CANDIDATE -k crawl`",
        )
    one = left[0]
    return UsageError(
        f"{words.both} no runs in common: {one.scenario} [{one.clock}]: {one.reason}"
        + (f" (and {len(left) - 1} more)" if len(left) > 1 else ""),
        hint=one.hint,
    )


def _values(figure: Figure, views: Sequence[benefit.Pair]) -> tuple[list[float], list[float]]:
    """The figure in each pair that has it on both sides."""
    first: list[float] = []
    second: list[float] = []
    for view, other in views:
        one = view.metrics.get(figure.name)
        two = other.metrics.get(figure.name) if other is not None else None
        if one is not None and two is not None:
            first.append(one.value)
            second.append(two.value)
    return first, second


def _compared(figure: Figure, first: Sequence[float], second: Sequence[float]) -> Compared:
    """The figure with its interval and its raw p value; judged later, when all p values are known."""
    ratios = [one / two for one, two in zip(first, second, strict=True) if two > 0]
    whole = bool(ratios) and len(ratios) == len(first)
    enough = len(first) >= MIN_PAIRS and figure.judgement != "not measured"
    low = high = confidence = p = None
    if enough and figure.clock is Clock.SIM:
        p = sign_test(first, second, figure.resolution)
        if whole:
            low, high, confidence = sign_interval(ratios)
    elif enough:
        p = rank_test(first, second)  # live runs of two cases are no pairs: they were measured at different times
    return Compared(
        scenario=figure.scenario,
        name=figure.name,
        clock=figure.clock,
        unit=figure.unit,
        better=figure.better,
        first=figure.candidate,
        second=figure.baseline,
        pairs=len(first),
        resolution=figure.resolution,
        floor=figure.floor,
        ratio=round(median(ratios), 6) if whole else None,
        low=round(low, 6) if low is not None else None,
        high=round(high, 6) if high is not None else None,
        confidence=confidence,
        p=p,
        judgement=figure.judgement,
        basis="not measured",
    )


def _judged(one: Compared, p: float | None, tests: int) -> Compared:
    """What the figure says.

    A test of all figures decides where it can; over a few seeds the pairs of each figure must agree, and that is said.
    """
    if one.judgement == "not measured":
        return one
    if p is None or (one.clock is Clock.SIM and one.pairs < pairs_for(tests)):
        basis: Basis = "one sample" if one.pairs == 1 else "few pairs"
        return one.model_copy(update={"p": p, "basis": basis})
    judgement = one.judgement if p <= SIGNIFICANCE else "not distinguishable"
    return one.model_copy(update={"p": p, "judgement": judgement, "basis": "tested"})
