# SPDX-License-Identifier: Apache-2.0
"""The corpus at work: a scheduler after the other, what is known so far always on the disk."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from testbed import __version__, cases, judge, policy
from testbed.candidate import Candidate, read_candidate
from testbed.case import VERDICT_FILE, DamagedCaseError, canonical_json, read_model, write_model
from testbed.corpus import document as documents
from testbed.corpus.document import Asked, Document, Result, Row, conclude, judged
from testbed.corpus.header import POLICIES, Header
from testbed.corpus.members import Member, build_program
from testbed.data import data_directory
from testbed.errors import Interrupted, TestbedError, UsageError
from testbed.image import Image, schedulers
from testbed.plan import FIRST_SEED
from testbed.report.events import Listener, StageEnded, StageStarted
from testbed.spec import Clock, Model, Topology, sha256
from testbed.status import Status
from testbed.topology import preset
from testbed.trial import Request, image_facts
from testbed.trial import Result as Held
from testbed.verdict import Outcome, Verdict

PROGRAMS_DIR = "programs"
TIMES_FILE = "times.json"
_STATUS = {
    Result.NAMED: Status.PASS,
    Result.PASSED: Status.PASS,
    Result.OTHERWISE: Status.FAIL,
    Result.MISSED: Status.FAIL,
    Result.FALSE_ALARM: Status.FAIL,
    Result.UNCLEAR: Status.ERROR,
    Result.NOT_RUN: Status.MISS,
}


@dataclass(frozen=True)
class Settings:
    """What is asked; names are those of `testbed run`.

    Attributes:
        machines: each scheduler runs on each of them; one whose header names its machine, on that one only.
        only: words of which a name holds one; none: everybody.
        judge: False: nothing is run, what was judged before is told.
    """

    policy: str = "default"
    seeds: int | None = None
    machines: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    jobs: int = 1
    cache: bool = True
    judge: bool = True


@dataclass(frozen=True)
class Task:
    """One scheduler on one machine, as a question; `first_seed` is that of its first order of events."""

    member: Member
    policy: str
    machine_name: str
    machine: Topology | None
    seeds: int | None
    first_seed: int = FIRST_SEED

    @property
    def row(self) -> Row:
        """The row before anything ran."""
        header = self.member.header
        return Row(
            name=self.member.name,
            origin=self.member.origin,
            good=self.member.good,
            failure_class=header.failure_class,
            machine=self.machine_name,
            policy=self.policy,
            scenario=header.scenario,
            seeds=self.seeds,
            needs=header.needs,
            expected=header.codes,
            reason=beyond(self.policy, header),
        )


def tasks(members: Sequence[Member], settings: Settings) -> list[Task]:
    """Everything that is to be asked.

    Raises:
        UsageError: no such policy or machine, or nobody whose name holds one of the words.
    """
    policy.load(settings.policy)
    given = [(name, preset(name)) for name in settings.machines]
    found = []
    for member in members:
        if settings.only and not any(word in member.name for word in settings.only):
            continue
        own = member.header.machine
        machines: Sequence[tuple[str, Topology | None]] = [own] if own is not None else given or [("", None)]
        word = policy_for(settings.policy, member.header)
        seeds = settings.seeds if settings.seeds is not None else member.header.seeds
        found += [Task(member, word, name, machine, seeds) for name, machine in machines]
    if not found:
        raise UsageError(f"no scheduler of the corpus has {' or '.join(f'`{word}`' for word in settings.only)} in it")
    return found


def policy_for(asked: str, header: Header) -> str:
    """The asked policy, or, for a fault that one scenario shows, the least above it that has the scenario, if one does.

    One scenario costs little. A whole policy that was not asked for is not run: see `beyond`.
    """
    if asked not in POLICIES or not header.scenario:
        return asked
    for word in POLICIES[POLICIES.index(asked) :]:
        if any(demand.name == header.scenario for demand in policy.load(word)[0].scenarios):
            return word
    return asked


def beyond(asked: str, header: Header) -> str:
    """Why a policy can't be expected to see the fault of a scheduler; empty: it can."""
    if asked in POLICIES and header.policy and POLICIES.index(header.policy) > POLICIES.index(asked):
        return f"beyond policy `{asked}`: its header asks for `{header.policy}`"
    return ""


class _Times(Model):
    """`times.json`: a case that is read later took as long as it did when it was made."""

    seconds: dict[str, float]


@dataclass(frozen=True)
class _Asked:
    """A task with its row so far; what is to be judged has a name for its case, `stem`."""

    task: Task
    row: Row
    words: str | tuple[str, ...] = ()
    stem: str = ""


@dataclass
class Session:
    """The corpus, judged.

    Attributes:
        directory: of the cases; what was judged there before is read.
        trial: judges one candidate.
        stop: set by whoever wants it to end.
    """

    tasks: Sequence[Task]
    settings: Settings
    directory: Path
    image: Image
    trial: Callable[[Request], Held]
    listener: Listener
    stop: threading.Event = field(default_factory=threading.Event)
    _times: dict[str, float] = field(default_factory=dict)

    def run(self) -> Document:
        """Judge what is not judged yet.

        Raises:
            UsageError: the directory is another's.
            HostError: the document can't be written.
        """
        with cases.exclusive(self.directory, "corpus"):
            self._read_times()
            asked = [self._ask(task) for task in self.tasks]
            rows = [one.row for one in asked]
            todo = [index for index, one in enumerate(asked) if one.stem and self.settings.judge]
            self._write(rows, interrupted=bool(todo))  # so that a killed tool leaves the truth
            for done, index in enumerate(todo, start=1):
                if self.stop.is_set():
                    break
                rows[index] = self._judge(asked[index], f"{done} of {len(todo)}")
                self._write(rows, interrupted=done < len(todo))
            return self._write(rows, interrupted=self.stop.is_set())

    def _read_times(self) -> None:
        """How long each case took when it was made, by name."""
        if (self.directory / TIMES_FILE).is_file():
            self._times = read_model(self.directory / TIMES_FILE, _Times).seconds
        elif any(path.name != cases.LOCK_FILE for path in self.directory.iterdir()):
            raise UsageError(f"`--out {self.directory}` exists and holds no corpus", hint="name a new directory")
        else:
            self._write_times()

    def _write_times(self) -> None:
        write_model(self.directory / TIMES_FILE, _Times(seconds=self._times))

    def _ask(self, task: Task) -> _Asked:
        """A task with its candidate: answered by a case that is there, or to be judged."""
        row = task.row
        if row.reason:
            return _Asked(task, row)
        try:
            words, candidate = self._candidate(task.member)
        except (TestbedError, OSError) as error:
            missing = task.member.optional and isinstance(error, UsageError)
            return _Asked(task, _failed(row, error, Result.NOT_RUN if missing else Result.UNCLEAR))
        row = row.model_copy(update={"sha256": candidate.sha256})
        stem = f"{re.sub(r'[^A-Za-z0-9_-]+', '-', task.member.name)}-{self._key(task, candidate)}"
        for case in sorted(self.directory.glob(f"{stem}*")):
            if (verdict := _verdict_of(case, task)) is not None:
                return _Asked(task, _filled(task, row, case, verdict, self._times.get(case.name, 0.0)))
        return _Asked(task, row, words, stem)

    def _judge(self, asked: _Asked, progress: str) -> Row:
        """One row, as it was if the user ended it."""
        started = time.monotonic()
        row = asked.row
        place = f" on {row.machine}" if row.machine else ""
        stage, title = f"corpus/{progress}", f"{row.name}{place} ({progress})"
        self.listener(StageStarted(stage=stage, title=title))
        try:
            row = self._held(asked)
        except Interrupted:
            return row
        except (TestbedError, OSError) as error:
            row = _failed(row, error, Result.UNCLEAR)
        self.listener(
            StageEnded(
                stage=stage,
                title=title,
                status=_STATUS[row.result],
                elapsed_s=time.monotonic() - started,
                summary=": ".join(filter(None, [str(row.result), row.reason or ", ".join(row.codes)])),
            )
        )
        return row

    def _held(self, asked: _Asked) -> Row:
        names = [asked.stem, *(f"{asked.stem}-{again}" for again in range(2, 10_000))]
        # What an interrupted call left stays beside it.
        case = next(self.directory / name for name in names if not os.path.lexists(self.directory / name))
        held = self.trial(
            Request(
                candidate=asked.words,
                policy=asked.task.policy,
                clock="sim",
                pattern=asked.task.member.header.scenario or None,
                machine=asked.task.machine,
                jobs=self.settings.jobs,
                out=case,
                cache=self.settings.cache,
                seeds=asked.task.seeds,
                first_seed=asked.task.first_seed,
            )
        )
        if self.stop.is_set() and _outcome(asked.task, held.verdict) is Outcome.INCONCLUSIVE:
            raise Interrupted("interrupted")
        self._times[case.name] = round(held.elapsed_s, 1)
        self._write_times()
        return _filled(asked.task, asked.row, case, held.verdict, self._times[case.name])

    def _candidate(self, member: Member) -> tuple[str | tuple[str, ...], Candidate]:
        words: str | tuple[str, ...] = member.words if member.file is None else str(member.file)
        if member.builds and member.file is not None:
            out = self.directory / PROGRAMS_DIR / member.name
            out.mkdir(parents=True, exist_ok=True)
            words = (str(build_program(member.file, self.image, out)),)
        if member.selftest:
            words = str(self.image.examples / "selftests" / member.selftest)
        examples = self.image.examples / "bin"
        return words, read_candidate(
            words, examples=examples, examples_root=self.image.builder, schedulers=schedulers.directory()
        )

    def _key(self, task: Task, candidate: Candidate) -> str:
        """Hash of everything that a verdict depends on: a case that answers another question is not read."""
        demanded, data = policy.load(task.policy)
        folder = data_directory("scenarios")
        files = [folder / f"{name}.yaml" for name in sorted({demand.name for demand in demanded.scenarios})]
        question = [
            candidate.sha256,
            sha256(data),
            [sha256(file.read_bytes()) for file in files],
            task.member.header.scenario,
            task.machine.model_dump(mode="json") if task.machine is not None else None,
            task.seeds,
            *([task.first_seed] if task.first_seed != FIRST_SEED else []),  # known cases keep their names
            self.image.id,
            judge.VERSION,
            __version__,
        ]
        return sha256(canonical_json(question))[:12]

    def _write(self, rows: Sequence[Row], *, interrupted: bool) -> Document:
        settings = self.settings
        asked = Asked(policy=settings.policy, seeds=settings.seeds, machines=settings.machines, only=settings.only)
        image = image_facts(self.image)
        document = conclude(rows, asked, image, judge.VERSION, __version__, interrupted=interrupted)
        write_model(self.directory / documents.FILE, document)
        return document


def _filled(task: Task, row: Row, case: Path, verdict: Verdict, elapsed_s: float) -> Row:
    """The row with what a verdict says."""
    codes = tuple(sorted({one.code for one in verdict.findings if one.status is Status.FAIL}))
    named = not task.member.good and task.member.header.named_rightly(codes)
    outcome = _outcome(task, verdict)
    return row.model_copy(
        update={
            "verdict": outcome,
            "codes": codes,
            "result": judged(task.member.good, outcome, named=named),
            "reason": verdict.title if outcome is Outcome.INCONCLUSIVE else "",
            "case": case.name,
            "elapsed_s": elapsed_s,
        }
    )


def _failed(row: Row, error: Exception, result: Result) -> Row:
    """The row with why there is no verdict."""
    told = error.message if isinstance(error, TestbedError) else str(error)
    return row.model_copy(update={"reason": told, "result": result})


def _outcome(task: Task, verdict: Verdict) -> Outcome:
    """The verdict's; where one scenario was to run, that the others did not is no reason for doubt."""
    own = [one for one in verdict.scenarios if one.name == task.member.header.scenario and one.clock is Clock.SIM]
    if verdict.verdict is Outcome.INCONCLUSIVE and own and all(one.status is Status.PASS for one in own):
        return Outcome.PASS
    return verdict.verdict


def _verdict_of(case: Path, task: Task) -> Verdict | None:
    """The verdict of a case that was judged to its end; who is inconclusive is asked again."""
    try:
        verdict = read_model(case / VERDICT_FILE, Verdict)
    except DamagedCaseError:
        return None
    return None if _outcome(task, verdict) is Outcome.INCONCLUSIVE else verdict
