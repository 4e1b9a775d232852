# SPDX-License-Identifier: Apache-2.0
"""Shrink a failing sim run to the simplest that still fails with the same title (docs/guides/minimize.md).

`simpler` says what is simpler, `search` looks for it, and here guests answer and the result becomes a case of its own
inside the case.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from testbed import judge, replay
from testbed.build import load as load_artifact
from testbed.case import (
    CASE_FILE,
    POLICY_FILE,
    RUNS_DIR,
    SCENARIOS_DIR,
    Case,
    DamagedCaseError,
    NotRun,
    PlannedRun,
    RunEvidence,
    read_model,
    read_run,
    write_atomic,
    write_model,
)
from testbed.engine.cached import CachedEngine
from testbed.engine.local import LocalEngine
from testbed.errors import HostError, Interrupted, UsageError
from testbed.image import Image
from testbed.image.cache import Cache
from testbed.minimize.search import Search, Stopped
from testbed.minimize.simpler import Setup, Simpler, pinned, size, written
from testbed.plan import Question, run_spec
from testbed.policy import Policy
from testbed.report.events import Listener, StageEnded, StageLine
from testbed.scenario import CandidateKind, Job, Scenario, parse_job
from testbed.spec import Clock, Model, Role, RunSpec
from testbed.status import Status
from testbed.verdict import Finding, Outcome
from testbed.vm import snapshot
from testbed.vm.guest import Boot, Guest
from testbed.workload import OWN, WORKLOADS

DIRECTORY = "minimized"
RESULT_FILE = "minimized.json"
_ASKS_BASELINE = frozenset(("task-starved", "kernel-warning"))
"""Findings that a run without its baseline has too, and that the baseline may excuse."""


class Extent(Model):
    """How complicated a run is, in the figures that people look at."""

    steps: int
    cpus: int
    tasks: int
    time_ms: int
    seed: int

    def __str__(self) -> str:
        """The same in words."""
        counted = ((self.steps, "step"), (self.cpus, "CPU"), (self.tasks, "task"))
        words = [f"{number} {what}{'s' if number != 1 else ''}" for number, what in counted]
        return ", ".join([*words, f"{self.time_ms / 1000:g} s", f"seed {self.seed}"])


class Minimized(Model):
    """`minimized.json`: what was shrunk, and how far.

    Attributes:
        run: of the case around it.
        title: under which both runs fail.
        scenario: name of the scenario; its file lies in `scenarios/`.
        trials: simplifications that were tried.
        complete: none of the simplifications of the result fails with this title; else the bound ended the search.
        other: titles under which simplifications failed instead, and how many.
    """

    schema_: Literal["testbed.minimized/1"] = Field(default="testbed.minimized/1", alias="schema")
    run: str
    title: str
    scenario: str
    before: Extent
    after: Extent
    trials: int
    complete: bool
    other: dict[str, int]


@dataclass(frozen=True)
class Target:
    """A failing run, and all that its simplifications share with it.

    Attributes:
        case: in which it lies.
        run: the run.
        title: of its first failure, as a verdict takes it.
        code: of the same.
        alone: the failure is one that no baseline could excuse, so that none is run.
    """

    case: Case
    run: RunEvidence
    scenario: Scenario
    policy: Policy
    title: str
    code: str
    alone: bool

    @property
    def place(self) -> Path:
        """Where its minimal run goes."""
        return self.case.path / DIRECTORY / self.run.spec.name


def find(place: Path) -> Target:
    """The failing run that a path means: that run, or the one that decided a case's verdict.

    Raises:
        UsageError: it is no run of a candidate under virtual time, or it did not fail.
        DamagedCaseError: it can't be read.
    """
    case, runs = replay.find(place)
    own = [run for run in runs if run.spec.role is Role.CANDIDATE]
    if not own:
        raise UsageError(f"`{place}` is a run without a candidate", hint="name a run in which the candidate failed")
    failing = [target for run in own if (target := _target(case, run)) is not None]
    if not failing:
        raise UsageError(
            f"`{place}` did not fail under virtual time: there is nothing to shrink",
            hint="name a run that failed, or a case that was rejected for one",
        )
    wanted = case.verdict.title if case.verdict is not None else ""
    return next((target for target in failing if target.title == wanted), failing[0])


def _target(case: Case, run: RunEvidence) -> Target | None:
    """What is wrong with a run, None if nothing is."""
    scenario = case.scenarios().get(run.spec.scenario)
    if scenario is None:
        raise UsageError(f"`{case.path}` has no scenario `{run.spec.scenario}`", hint="a case is never edited")
    policy = case.policy()
    baseline = judge.pairs(case.runs).get(run.spec.number)
    failure = _failure(run, scenario, policy, baseline)
    if failure is None:
        return None
    by_itself = _failure(run, scenario, policy, None)
    alone = by_itself is not None and by_itself.title == failure.title and failure.code not in _ASKS_BASELINE
    return Target(case, run, scenario, policy, failure.title, failure.code, alone)


def _failure(run: RunEvidence, scenario: Scenario, policy: Policy, baseline: RunEvidence | None) -> Finding | None:
    """The failure that a verdict over this run alone would be titled by."""
    found = judge.assess(run, scenario=scenario, policy=policy, baseline=baseline).findings
    return next((one for one in found if one.status is Status.FAIL), None)


def known(target: Target) -> Minimized | None:
    """What an earlier search found out about it for good."""
    try:
        found = read_model(target.place / RESULT_FILE, Minimized)
    except DamagedCaseError:
        return None  # also where there is none: then it is made, in its place
    return found if found.complete and found.title == target.title else None


def minimize(
    target: Target,
    *,
    guest: Callable[[Boot], Guest],
    listener: Listener,
    cancelled: threading.Event,
    trials: int,
    jobs: int,
) -> Minimized:
    """Shrink a failing run; what comes of it is a case in `Target.place`.

    Raises:
        HostError: the image is not here, or the fault did not come back.
        UsageError: the run was made by a version that gives guests other jobs.
        Interrupted: the user ended it; what was tried is in the run cache.
    """
    image = _image_of(target)
    with tempfile.TemporaryDirectory(prefix="testbed-minimize-") as work:
        bench = _Bench(target, image, Path(work), guest, listener)
        begin = bench.begin()
        if bench.run_of(begin).job != target.run.spec.job:
            raise UsageError(
                f"`{target.run.name}` was made by another version of the testbed, which gives guests another job",
                hint="run the candidate again and shrink that run",
            )
        if (title := bench.attempt(begin, cancelled)) != target.title:
            _still_wanted(cancelled)
            raise HostError(
                f"`{target.run.name}` was run again and did not fail as it did: {title or 'nothing was found'}",
                hint="`testbed replay` shows where the two part; please report this",
            )
        search = Search(target.title, bench.attempt, trials, jobs, cancelled, bench.tell)
        try:
            found = search.run(begin)
        except Stopped:
            raise Interrupted("interrupted; the same command goes on from the run cache") from None
        result = Minimized(
            run=target.run.name,
            title=target.title,
            scenario=target.scenario.name,
            before=_extent(begin),
            after=_extent(found.setup),
            trials=found.trials,
            complete=found.complete,
            other=found.other,
        )
        bench.store(found.setup, result, cancelled)
    return result


def _image_of(target: Target) -> Image:
    """The run's image; that it is not here is this machine's lack."""
    try:
        return replay.image_of(target.case, (target.run,))
    except UsageError as error:
        raise HostError(error.message, hint=error.hint) from error


def _still_wanted(cancelled: threading.Event) -> None:
    if cancelled.is_set():
        raise Interrupted("interrupted; the same command goes on from the run cache")


def _extent(setup: Setup) -> Extent:
    own = size(setup)
    return Extent(steps=own.steps, cpus=own.cpus, tasks=own.tasks, time_ms=own.time_ms, seed=own.seed)


class _Bench:
    """Runs simplifications of a target, and keeps the last one."""

    def __init__(
        self, target: Target, image: Image, work: Path, guest: Callable[[Boot], Guest], listener: Listener
    ) -> None:
        self._target = target
        self._work = work
        self._listener = listener
        self._numbers = itertools.count()
        self._artifact = load_artifact(target.case.path / "candidate")
        inputs = replay.inputs_of(target.case, (target.run,), work, image)
        self._engine = CachedEngine(LocalEngine(image, inputs.by_hash, guest), Cache.open(), self._warn)
        spec = target.run.spec
        job = parse_job(spec.job)
        words = job.setting("candidate")
        self._kind: CandidateKind = "program" if words[:1] == ("program",) else "object"
        self._question = Question(
            policy=target.policy,
            scenarios={},
            candidate=spec.candidate,
            words=words,
            timeout_ms=self._artifact.facts.timeout_ms,
            clocks=frozenset({Clock.SIM}),
            pattern=None,
            machine=None,
            files=spec.files,
            baseline_files=inputs.baseline,
            image=spec.image,
            seeds=1,
            programs=programs_of(target.scenario, job),
        )

    def _warn(self, text: str) -> None:
        self._listener(StageLine(stage="cache", text=text))

    def begin(self) -> Setup:
        """The target itself."""
        spec = self._target.run.spec
        kept = self._target.scenario.model_copy(
            update={
                "title": f"what is left of {self._target.scenario.name}",
                "description": f"The simplest run that was found to fail with: {self._target.title}.",
                "catches": (self._target.code,),
            }
        )
        return pinned(kept, spec.topology, spec.seed, self._kind, self._artifact.facts.timeout_ms)

    def run_of(self, setup: Setup, role: Role = Role.CANDIDATE, number: int = 0) -> RunSpec:
        """What a guest is to do."""
        own = self._target.run.spec
        spec = run_spec(self._question, setup.scenario, Clock.SIM, role, setup.seed, number)
        rate = {"parallel_quantum": own.parallel_quantum, "icount_shift": own.icount_shift}
        return spec.model_copy(update={**rate, "attached": own.attached and snapshot.may_begin_attached(spec)})

    def attempt(self, setup: Setup, stop: threading.Event) -> str | None:
        """The title under which a run fails, empty if it does not, None if it was ended."""
        folder = self._work / f"trial-{next(self._numbers)}"
        try:
            run = self._run(self.run_of(setup), folder, stop)
            if run is None:
                return None
            failure = _failure(run, setup.scenario, self._target.policy, None)
            if self._target.alone or (failure is not None and failure.code not in _ASKS_BASELINE):
                return failure.title if failure is not None else ""
            baseline = self._run(self.run_of(setup, Role.BASELINE, 1), folder, stop)
            if baseline is None:
                return None
            failure = _failure(run, setup.scenario, self._target.policy, baseline)
            return failure.title if failure is not None else ""
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _run(self, spec: RunSpec, folder: Path, stop: threading.Event) -> RunEvidence | None:
        directory = folder / spec.name
        if self._engine.execute(spec, directory, stop, lambda line: None) is None:
            return None
        return read_run(directory)

    def tell(self, number: int, one: Simpler, title: str, seconds: float) -> None:
        """Tell of a trial; one that fails alike is what the next ones begin with."""
        kept = title == self._target.title
        self._listener(
            StageEnded(
                stage=f"trial/{number}",
                title=f"trial {number}: {one.what}",
                status=Status.DONE if kept else Status.SKIP,
                elapsed_s=seconds,
                summary=f"fails alike, {_extent(one.setup)}" if kept else title,
            )
        )

    def store(self, setup: Setup, result: Minimized, cancelled: threading.Event) -> None:
        """Run the smallest once more, twice to be sure, and make a case of it.

        Raises:
            HostError: it did not do the same.
        """
        place, spec = self._target.place, self.run_of(setup)
        place.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as name:
            fresh = Path(name) / "case"
            self._files(fresh, setup)
            runs = [spec, spec.model_copy(update={"number": 1, "repeats": 0})]
            if not self._target.alone:
                runs.append(self.run_of(setup, Role.BASELINE, 2))
            for one in runs:
                if self._run(one, fresh / RUNS_DIR, cancelled) is None:
                    raise Interrupted("interrupted; the same command goes on from the run cache")
            verdict = judge.judge(Case.open(fresh))
            if verdict.verdict is not Outcome.REJECT or verdict.title != self._target.title:
                raise HostError(
                    f"the smallest run did not repeat: {verdict.title}", hint="please report this with the case"
                )
            judge.write_verdict(fresh, verdict)
            write_model(fresh / RESULT_FILE, result)
            fresh.chmod(0o755)
            if place.exists():
                place.rename(Path(name) / "old")
            fresh.rename(place)

    def _files(self, fresh: Path, setup: Setup) -> None:
        """Everything of the case but its runs."""
        case, scenario = self._target.case, setup.scenario
        for folder in ("candidate", WORKLOADS, OWN):
            if (case.path / folder).is_dir():
                shutil.copytree(case.path / folder, fresh / folder, symlinks=True)
        (fresh / SCENARIOS_DIR).mkdir()
        write_atomic(fresh / SCENARIOS_DIR / f"{scenario.name}.yaml", written(scenario))
        write_atomic(fresh / POLICY_FILE, case.policy_bytes)
        demands = self._target.policy.scenarios
        facts = case.facts.model_copy(
            update={
                "clock": "sim",
                "selected": (scenario.name,),
                "cpus": None,
                "topology": None,
                "planned": (PlannedRun(scenario=scenario.name, clock=Clock.SIM, role=Role.CANDIDATE, seed=setup.seed),),
                "not_run": tuple(
                    NotRun(scenario=one.name, clock=one.clock, reason=f"this is what is left of {scenario.name}")
                    for one in demands
                    if (one.name, one.clock) != (scenario.name, Clock.SIM)
                ),
                "stopped_early": True,
                "interrupted": False,
                "controls": (),
            }
        )
        write_model(fresh / CASE_FILE, facts)


def programs_of(scenario: Scenario, job: Job) -> dict[str, tuple[str, ...]]:
    """What stood for programs of the image in a job, by their names."""
    argv = {name: program.argv for name, program in scenario.programs().items()}
    return {
        Path(argv[words[1]][0]).name: words[2 : len(words) - len(argv[words[1]]) + 1]
        for words in job.steps
        if words[0] == "exec" and words[1] in argv
    }
