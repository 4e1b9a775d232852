# SPDX-License-Identifier: Apache-2.0
"""What "simpler" means: a total order of runs, and every way to make one a little simpler (docs/guides/minimize.md).

Pure. A run is a scenario, whose topology is the machine, and a seed. Whatever comes out of here is a valid scenario: it
is checked as one that somebody wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from testbed.case import canonical_json
from testbed.scenario import CandidateKind, Scenario, effective_timeout_ms, hold_ms, mistakes
from testbed.scenario import virtual_limit_ms as limit_ms
from testbed.scenario.model import Hold, Needs, Start, Step
from testbed.spec import Topology
from testbed.yamlfile import plain, write

FIRST_SEEDS = 4
"""A seed is no amount: a smaller one is only easier to name. So these are tried, and half of it."""


@dataclass(frozen=True)
class Setup:
    """Everything that a run of a given candidate depends on.

    Attributes:
        scenario: its topology is the machine.
        seed: order of events.
    """

    scenario: Scenario
    seed: int

    @cached_property
    def text(self) -> bytes:
        """The scenario in one form: equal for equal ones."""
        return canonical_json(plain(self.scenario))


@dataclass(frozen=True, order=True)
class Size:
    """How complicated a run is; the earlier figure decides.

    Attributes:
        steps: of the scenario.
        cpus: of the machine.
        domains: threads of a core, last-level caches and nodes, all together.
        tasks: of the built-in loads; a program is one.
        time_ms: guest time that its `hold` and `sleep` steps may take together.
        amounts: repetitions of `cycle` steps and whole numbers in programs' words, added up.
        words: everything that is said about the steps.
        looked_at: checks and figures.
        seed: of the run.
        text: the scenario in one form, so that no two runs are equally simple.
    """

    steps: int
    cpus: int
    domains: int
    tasks: int
    time_ms: int
    amounts: int
    words: int
    looked_at: int
    seed: int
    text: bytes


@dataclass(frozen=True)
class Simpler:
    """One simplification.

    Attributes:
        what: it in a few words.
        setup: what comes of it.
    """

    what: str
    setup: Setup


Pass = Callable[[Setup], Iterator[Simpler]]
"""All simplifications of one kind, the boldest first."""


def written(scenario: Scenario) -> bytes:
    """A scenario as a file."""
    return write(plain(scenario))


def size(setup: Setup) -> Size:
    """How complicated a run is."""
    scenario, machine = setup.scenario, setup.scenario.topology
    starts = [step.start for step in scenario.steps if step.start]
    programs = [step.exec.argv for step in scenario.steps if step.exec]
    amounts = [int(word) for argv in programs for word in argv[1:] if _is_amount(word)]
    return Size(
        steps=len(scenario.steps),
        cpus=machine.cpus,
        domains=machine.threads + machine.llcs + machine.nodes,
        tasks=sum(_tasks(start, machine.cpus) for start in starts) + len(programs),
        time_ms=sum(_time_ms(step) for step in scenario.steps),
        amounts=sum(amounts) + sum(step.cycle.times for step in scenario.steps if step.cycle),
        words=sum(_leaves(plain(step)) for step in scenario.steps),
        looked_at=len(scenario.checks) + len(scenario.figures),
        seed=setup.seed,
        text=setup.text,
    )


def pinned(scenario: Scenario, machine: Topology, seed: int, kind: CandidateKind, timeout_ms: int | None) -> Setup:
    """A run as it was made, in a form that depends on nothing else: the job is the same, letter for letter.

    Args:
        scenario: of the run.
        machine: of the run.
        seed: of the run.
        kind: of the candidate.
        timeout_ms: the candidate's own watchdog timeout, None where it is not known.
    """
    effective = effective_timeout_ms(scenario, kind, timeout_ms)
    steps = tuple(_pinned(step, machine.cpus, effective) for step in scenario.steps)
    limit = limit_ms(scenario, kind, timeout_ms, machine.cpus)
    fixed = scenario.model_copy(update={"topology": _shortly(machine), "steps": steps})
    beyond = limit_ms(fixed, kind, timeout_ms, machine.cpus) - fixed.limits.virtual
    limits = fixed.limits.model_copy(update={"virtual": limit - beyond})
    return Setup(fixed.model_copy(update={"limits": limits}), seed)


def passes(steps: int) -> Iterator[Pass]:
    """The kinds of simplification in the order in which they are tried, for a scenario with so many steps."""
    yield _looked_at
    chunk = 1 << max(0, (steps // 2).bit_length() - 1)
    while chunk:
        yield _without(chunk)
        chunk //= 2
    yield from (_machine, _tasks_fewer, _shorter, _amounts, _words, _seed)


def simplifications(setup: Setup) -> Iterator[Simpler]:
    """Every single simplification of a run; a run is minimal when none of them fails as it does."""
    for one in passes(len(setup.scenario.steps)):
        yield from one(setup)


# --- the passes ----------------------------------------------------------------------------------------------


def _looked_at(setup: Setup) -> Iterator[Simpler]:
    """Checks and figures: they cost no guest, the run is the same."""
    for name in ("checks", "figures"):
        ones = getattr(setup.scenario, name)
        if len(ones) > 1:
            yield from _changed(setup, f"no {name}", **{name: ()})
        for index in reversed(range(len(ones))):
            one = ones[index]
            what = f"{one.check} of {one.load}" if name == "checks" else one.name
            yield from _changed(setup, f"without {name[:-1]} {what}", **{name: ones[:index] + ones[index + 1 :]})


def _without(chunk: int) -> Pass:
    """So many steps fewer; from the end, since what comes after the failure is of no use."""

    def steps(setup: Setup) -> Iterator[Simpler]:
        ones = setup.scenario.steps
        for end in range(len(ones), 0, -chunk):
            begin = max(0, end - chunk)
            gone = ", ".join(step.verb for step in ones[begin:end])
            numbers = f"step {end}" if end - begin == 1 else f"steps {begin + 1} to {end}"
            left = _consistent(ones[:begin] + ones[end:])
            yield from _changed(setup, f"without {numbers} ({gone})", steps=left)

    return steps


def _machine(setup: Setup) -> Iterator[Simpler]:
    """Fewer CPUs in one plain package, then as many with less around them. The memory stays: it is no load."""
    own = setup.scenario.topology
    machines = [
        Topology(cpus=cpus, memory_mb=own.memory_mb)
        for cpus in sorted({1, 2, own.cpus // 2, own.cpus - 1})
        if 0 < cpus < own.cpus
    ]
    for update in ({"threads": 1, "llcs": 1, "nodes": 1}, {"llcs": 1, "nodes": 1}, {"nodes": 1}, {"threads": 1}):
        machines.append(own.model_copy(update=update))
    for machine in dict.fromkeys(_shortly(machine) for machine in machines if machine != own):
        yield from _changed(setup, f"on {machine}", topology=machine)


def _tasks_fewer(setup: Setup) -> Iterator[Simpler]:
    """Fewer tasks of a load."""
    for index, step in enumerate(setup.scenario.steps):
        count = step.start.count if step.start else None
        if step.start is None or count is None:
            continue
        for fewer in sorted({1, count // 2, count - 1}):
            if 0 < fewer < count:
                start = step.start.model_copy(update={"count": fewer if fewer > 1 else None})
                yield from _step(setup, index, f"{fewer} instead of {count} of {start.name}", start=start)


def _shorter(setup: Setup) -> Iterator[Simpler]:
    """Shorter `hold` and `sleep` steps, on the grid 1, 2, 5, 10, 20, 50 … ms."""
    for index, step in enumerate(setup.scenario.steps):
        now = _time_ms(step)
        for less in sorted({_rounded(now // 10), _rounded(now // 2), _rounded(now - 1)}):
            if not 0 < less < now:
                continue
            value: object = step.hold.model_copy(update={"at_least": less}) if step.hold else less
            yield from _step(setup, index, f"{step.verb} {less} ms instead of {now}", **{step.verb: value})


def _amounts(setup: Setup) -> Iterator[Simpler]:
    """Fewer cycles, and smaller numbers in a program's words."""
    for index, step in enumerate(setup.scenario.steps):
        if step.cycle:
            for times in sorted({1, step.cycle.times // 2, step.cycle.times - 1}):
                if 0 < times < step.cycle.times:
                    cycle = step.cycle.model_copy(update={"times": times})
                    yield from _step(setup, index, f"{times} cycles", cycle=cycle)
        argv = step.exec.argv if step.exec else ()
        for place, word in enumerate(argv):
            if step.exec is None or place == 0 or not _is_amount(word):
                continue
            for less in sorted({1, _rounded(int(word) // 2)}):
                if 0 < less < int(word):
                    words = (*argv[:place], str(less), *argv[place + 1 :])
                    program = step.exec.model_copy(update={"argv": words})
                    yield from _step(setup, index, f"`{' '.join(words)}`", exec=program)


def _words(setup: Setup) -> Iterator[Simpler]:
    """Options of loads left out, and names and settings of steps that hold several."""
    for index, step in enumerate(setup.scenario.steps):
        if step.start:
            for key in _options(step.start):
                start = step.start.model_copy(update={key: None})
                yield from _step(setup, index, f"{start.name} without `{key}`", start=start)
        for name in step.stop or () if len(step.stop or ()) > 1 else ():
            left = tuple(one for one in step.stop or () if one != name)
            yield from _step(setup, index, f"stop without {name}", stop=left)
        for name in step.sysctl or () if len(step.sysctl or ()) > 1 else ():
            settings = {key: value for key, value in (step.sysctl or {}).items() if key != name}
            yield from _step(setup, index, f"sysctl without {name}", sysctl=settings)


def _seed(setup: Setup) -> Iterator[Simpler]:
    for seed in sorted({*range(FIRST_SEEDS), setup.seed // 2}):
        if seed < setup.seed:
            yield Simpler(f"seed {seed}", Setup(setup.scenario, seed))


# --- valid scenarios -----------------------------------------------------------------------------------------


def _step(setup: Setup, index: int, what: str, **value: object) -> Iterator[Simpler]:
    """With another value in one step."""
    ones = setup.scenario.steps
    step = ones[index].model_copy(update=value)
    yield from _changed(setup, what, steps=(*ones[:index], step, *ones[index + 1 :]))


def _changed(setup: Setup, what: str, **update: Any) -> Iterator[Simpler]:
    """The simplification, if it is one and gives a valid scenario."""
    changed = setup.scenario.model_copy(update=update)
    names = {*changed.loads(), *changed.programs(), *changed.windows()}
    used = {Path(program.argv[0]).name for program in changed.programs().values()}
    # A figure of what is gone can't be told; whether the failure needed it the trial shows.
    changed = changed.model_copy(
        update={
            "needs": _needs(changed.needs, used),
            "checks": tuple(one for one in changed.checks if one.load in names),
            "figures": tuple(one for one in changed.figures if one.name.partition(".")[0] in names),
        }
    )
    try:
        found = Setup(Scenario.model_validate(plain(changed)), setup.seed)
    except ValidationError:
        return
    if not any(mistakes(found.scenario, changed.name)) and size(found) < size(setup):
        yield Simpler(what, found)


def _needs(now: Needs, used: set[str]) -> Needs:
    """What is still used of what a scenario needs."""
    programs = {"programs": tuple(name for name in now.programs if name in used)}
    return Needs.model_validate({**programs, "workload": now.workload} if now.workload else programs)


def _consistent(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps without those that speak of what is no longer there."""
    begun = {step.begin for step in steps if step.begin}
    ended = {step.end for step in steps if step.end}
    known: set[str] = set()
    attached = False
    left: list[Step] = []
    for step in steps:
        names = tuple(name for name in step.stop or () if name in known)
        lost = (
            (step.stop is not None and not names)
            or (step.wait is not None and step.wait.name not in known)
            or step.begin not in {None, *ended}
            or step.end not in {None, *begun}
            or (step.detach is not None and not attached)
        )
        if lost:
            continue
        if step.start or step.exec:
            known.add(step.value.name)
        if step.attach or step.detach:
            attached = step.attach is not None
        left.append(step.model_copy(update={"stop": names}) if step.stop else step)
    return tuple(left)


def _pinned(step: Step, cpus: int, timeout_ms: int) -> Step:
    if step.hold:
        fixed = Hold.model_construct({"at_least"}, at_least=hold_ms(step.hold, timeout_ms))
        return step.model_copy(update={"hold": fixed})
    if step.start and step.start.per_cpu is not None:
        count = step.start.per_cpu * cpus
        return step.model_copy(update={"start": step.start.model_copy(update={"per_cpu": None, "count": count})})
    return step


def _shortly(machine: Topology) -> Topology:
    """The same machine, so that a file names only what is not usual."""
    return Topology(**machine.model_dump(exclude_defaults=True))


# --- figures -------------------------------------------------------------------------------------------------


def _tasks(start: Start, cpus: int) -> int:
    count = start.per_cpu * cpus if start.per_cpu is not None else start.count or 1
    return count * cpus if start.cpu == "each" else count


def _time_ms(step: Step) -> int:
    return step.hold.at_least if step.hold else step.sleep or 0


def _options(start: Start) -> list[str]:
    """What is said about a load and need not be."""
    fields = type(start).model_fields
    said = [key for key in fields if fields[key].default is None and getattr(start, key) is not None]
    return [key for key in said if key != "count" or start.count == 1]


def _leaves(value: object) -> int:
    if isinstance(value, dict):
        return sum(_leaves(one) for one in value.values())
    if isinstance(value, list):
        return sum(_leaves(one) for one in value)
    return 1


def _is_amount(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) < 10


def _rounded(value: int) -> int:
    """The largest of 1, 2, 5, 10, 20, 50 … that is not above `value`; 0 below 1."""
    grid = [step * 10**power for power in range(10) for step in (1, 2, 5)]
    return max((one for one in grid if one <= value), default=0)
