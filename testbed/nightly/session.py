# SPDX-License-Identifier: Apache-2.0
"""A night at work: part after part, each a corpus of its own in the night's folder, so that a killed one goes on."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from testbed import __version__, cases, corpus, judge
from testbed.candidate import read_candidate
from testbed.case import VERDICT_FILE, DamagedCaseError, Ended, read_model, write_model
from testbed.corpus import Header, Member, Origin, Result, Task
from testbed.corpus.document import tables
from testbed.corpus.session import PROGRAMS_DIR
from testbed.errors import Interrupted, TestbedError
from testbed.image import Image
from testbed.judge.benefit import is_latency
from testbed.judge.liveness import HOST_SIDE
from testbed.nightly import bisect
from testbed.nightly.compare import Comparison, worse
from testbed.nightly.document import (
    FILE,
    Answer,
    Asked,
    Change,
    Document,
    Kind,
    Latency,
    NightFacts,
    exit_code,
    label,
)
from testbed.nightly.history import History
from testbed.report.events import Listener
from testbed.spec import Clock, sha256
from testbed.trial import Request
from testbed.trial import Result as Held
from testbed.verdict import Outcome, Verdict

NIGHTS_DIR = "nights"
CANDIDATES_DIR = "candidates"
BISECT_DIR = "bisect"
DIVERGED = ("run-diverged", "not-reproduced")
SEEDS_APART = 1000
"""First seeds of two nights; more orders than this are not asked in one."""
TURN = 10
"""Nights in which everybody is once judged without the cache of runs; else nobody would see a run not repeat."""
MAX_BISECTED = 5
"""Changed verdicts of a night that are searched for their cause; each costs a few judgements."""

_PROGRAM = re.compile(r"scx_[a-z0-9_]+")
_QUESTION = re.compile(r"-([0-9a-f]{12})(?:-[0-9]{1,4})?\Z")
"""The corpus names a case by the hash of the question."""
_Trial = Callable[[Request], Held]


@dataclass(frozen=True)
class Settings:
    """What is asked of a night.

    Attributes:
        seeds: orders of events for each scheduler that nobody has seen yet; 0: none.
        machines: each scheduler runs on each of them too, beside the scenarios' own.
        only: words of which a name holds one; none: everybody.
        budget_s: what is not begun by then is not reached, what is not done is ended; None: no limit.
    """

    policy: str = "default"
    seeds: int = 2
    machines: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    jobs: int = 1
    cache: bool = True
    budget_s: float | None = None


@dataclass(frozen=True)
class _Part:
    """Questions of one kind on one image."""

    kind: Kind
    image: Image
    named: bool
    tasks: Sequence[Task]
    kernel: str = ""

    @property
    def folder(self) -> str:
        return f"{self.kind}-{self.image.id[:12]}" if self.named else str(self.kind)


def installed(folders: Sequence[Path], known: Sequence[Member]) -> tuple[Member, ...]:
    """The `scx_*` programs of these folders that the corpus does not know.

    What the right verdict is nobody has said; they are taken for good ones and counted in no catch rate.
    """
    names = {member.words[0] for member in known if member.words}
    found: dict[str, Member] = {}
    for folder in folders:
        for file in sorted(folder.iterdir()) if folder.is_dir() else ():
            if _PROGRAM.fullmatch(file.name) and file.name not in names and file.is_file() and os.access(file, os.X_OK):
                header = Header(file.name, Outcome.PASS)
                found.setdefault(file.name, Member(header, Origin.TUNED, words=(str(file.absolute()),), optional=True))
    return tuple(found[name] for name in sorted(found))


@dataclass
class Session:
    """One night.

    Attributes:
        members: the corpus.
        programs: installed schedulers that are not of it.
        directory: of all nights.
        images: the usual one, and those that were asked for by id.
        kernels: the usual image with other kernels, by the word that each was asked for.
        trial: judges one candidate on the guests of an image.
        now: date and time for people.
        stop: set by whoever wants it to end.
        cached: images that are there beside these, for the bisection.
    """

    members: Sequence[Member]
    programs: Sequence[Member]
    settings: Settings
    directory: Path
    history: History
    images: Sequence[Image]
    trial: Callable[[Image], _Trial]
    listener: Listener
    now: str
    stop: threading.Event = field(default_factory=threading.Event)
    cached: Callable[[], Sequence[Image]] = tuple
    kernels: Mapping[str, Image] = field(default_factory=dict)
    _late: threading.Event = field(default_factory=threading.Event)

    def run(self) -> Document:
        """Ask, compare, write down.

        Raises:
            UsageError: no such policy or machine, nobody to ask, or another night is at work here.
            HostError: what was found can't be written.
        """
        base = self.base(self.members)
        timer = threading.Timer(self.settings.budget_s, self._end) if self.settings.budget_s is not None else None
        with cases.exclusive(self.directory, "nightly"):
            asked = self._asked()
            night = self.history.begin(asked, self.now)
            if timer is not None:
                timer.daemon = True
                timer.start()
            try:
                answers = [one for part in self._parts(base, night) for one in self._answers(part, night)]
                document = self._conclude(asked, night, answers)
            finally:
                if timer is not None:
                    timer.cancel()
            self.folder(night).mkdir(parents=True, exist_ok=True)
            write_model(self.folder(night) / FILE, document)
            if not document.interrupted:
                self._tidy(night, document)
                self.history.close(document.nights[-1])
            return document

    def _end(self) -> None:
        self._late.set()
        self.stop.set()

    def _asked(self) -> Asked:
        settings = self.settings
        return Asked(
            policy=settings.policy,
            seeds=settings.seeds,
            machines=settings.machines,
            only=settings.only,
            images=tuple(image.id for image in (*self.images, *self.kernels.values())),
            kernels=tuple(self.kernels),
            testbed=__version__,
            judge=judge.VERSION,
        )

    def folder(self, night: int) -> Path:
        """Of one night: its document, its page, and evidence of what is worse than it was."""
        return self.directory / NIGHTS_DIR / f"{night:04}"

    # --- what is asked -----------------------------------------------------------------------------------

    def base(self, members: Sequence[Member]) -> list[Task]:
        """Everybody on the scenarios' own machines, and on those that were asked for."""
        settings = corpus.Settings(policy=self.settings.policy, only=self.settings.only)
        found = corpus.tasks(members, settings)
        if self.settings.machines:
            found += corpus.tasks(members, replace(settings, machines=self.settings.machines))
        return list({(task.member.name, task.machine_name): task for task in found}.values())

    def _parts(self, base: Sequence[Task], night: int) -> Iterator[_Part]:
        """In the order of what a short night should not miss."""
        usual, *others = self.images
        words = self.settings.only
        programs = [one for one in self.programs if not words or any(word in one.name for word in words)]
        more = self.base(programs) if programs else []
        yield _Part(Kind.AGAIN, usual, False, list(self._again([*base, *more], night)))
        yield _Part(Kind.CORPUS, usual, False, base)
        yield _Part(Kind.INSTALLED, usual, False, more)
        yield _Part(Kind.FRESH, usual, False, list(self._fresh([*base, *more], night)))
        for image in others:
            yield _Part(Kind.CORPUS, image, True, base)
            yield _Part(Kind.INSTALLED, image, True, more)
        for word, image in self.kernels.items():
            yield _Part(Kind.CORPUS, image, True, base, word)
            yield _Part(Kind.INSTALLED, image, True, more, word)

    def _again(self, base: Sequence[Task], night: int) -> Iterator[Task]:
        known = {(task.member.name, task.machine_name): task for task in base}
        for one in self.history.failed(night):
            task = known.get((one.name, one.machine))
            if task is not None:
                yield replace(task, seeds=one.seeds, first_seed=one.first_seed)

    def _fresh(self, base: Sequence[Task], night: int) -> Iterator[Task]:
        """New orders for all but those of which the header says how many they need; good ones first."""
        if not self.settings.seeds:
            return
        own = [task for task in base if task.machine_name == _own_machine(task.member) and task.seeds is None]
        for task in sorted(own, key=lambda task: not task.member.good):
            yield replace(task, seeds=self.settings.seeds, first_seed=SEEDS_APART * night)

    # --- asking ------------------------------------------------------------------------------------------

    def _answers(self, part: _Part, night: int) -> list[Answer]:
        """A part's answers, from its cases where it was judged before."""
        rows = [task.row for task in part.tasks]
        folder = self.folder(night) / part.folder
        if rows and not self.stop.is_set():
            settings = corpus.Settings(policy=self.settings.policy, jobs=self.settings.jobs, cache=self.settings.cache)
            session = corpus.Session(
                part.tasks, settings, folder, part.image, self._trial(part.image, night), self.listener, self.stop
            )
            rows = list(session.run().rows)
        found = [self._answer(part, task, row, folder) for task, row in zip(part.tasks, rows, strict=True)]
        self.history.record(night, found)
        return found

    def _trial(self, image: Image, night: int) -> _Trial:
        """Judges one candidate; each in its turn from nothing."""
        trial = self.trial(image)

        def hold(request: Request) -> Held:
            program, *options = (request.candidate,) if isinstance(request.candidate, str) else request.candidate
            name = " ".join([Path(program).name, *options])  # where it lies differs from night to night
            turn = int(sha256(name.encode())[:8], 16) % TURN == night % TURN
            return trial(replace(request, cache=request.cache and not turn))

        return hold

    def _answer(self, part: _Part, task: Task, row: corpus.Row, folder: Path) -> Answer:
        place = str((folder / row.case).relative_to(self.directory)) if row.case else ""
        answer = Answer(
            kind=part.kind,
            image=part.image.id,
            named=part.named,
            kernel=part.kernel,
            first_seed=task.first_seed,
            row=row.model_copy(update={"case": place}),
        )
        if not place:
            return answer
        self._keep_candidate(task.member, row.sha256)
        question = _QUESTION.search(row.case)
        try:
            verdict = read_model(folder / row.case / VERDICT_FILE, Verdict)
        except DamagedCaseError:
            return answer
        return answer.model_copy(update={"question": question[1] if question else "", **_facts(verdict)})

    def _keep_candidate(self, member: Member, digest: str) -> None:
        """A copy of a source, so that a later night can ask about it again."""
        place = self.directory / CANDIDATES_DIR / digest
        if member.file is None or member.builds or place.is_dir():
            return
        try:
            candidate = read_candidate(str(member.file))
        except TestbedError:
            return
        files = candidate.sources.files if candidate.sources is not None else {}
        if candidate.sha256 != digest or not _all_below(files):
            return
        half = place.with_name(f".{digest}")
        shutil.rmtree(half, ignore_errors=True)
        for name, data in files.items():
            (half / name).parent.mkdir(parents=True, exist_ok=True)
            (half / name).write_bytes(data)
        half.rename(place)

    # --- what it says ------------------------------------------------------------------------------------

    def _conclude(self, asked: Asked, night: int, answers: Sequence[Answer]) -> Document:
        comparison = Comparison(self.history, night, answers)
        interrupted = self.stop.is_set() and not self._late.is_set()
        changes = comparison.changes()
        if not interrupted:
            changes = list(self._with_causes(changes, comparison, night))
            interrupted = self.stop.is_set() and not self._late.is_set()
        usual = [one.row for one in answers if one.kind is Kind.CORPUS and not one.named]
        counted = tuple(tables(usual))
        facts = self._night_facts(night, usual, answers, changes).model_copy(
            update={"latency_ratio": comparison.latency_ratio(), "time_ratio": comparison.time_ratio()}
        )
        return Document(
            night=night,
            asked=asked,
            interrupted=interrupted,
            exit_code=int(exit_code(answers, changes, interrupted=interrupted)),
            tables=counted,
            changes=tuple(changes),
            nights=(*self.history.facts(night), facts),
            not_reached=tuple(label(one) for one in answers if not one.reached),
            answers=tuple(answers),
        )

    def _night_facts(
        self, night: int, usual: Sequence[corpus.Row], answers: Sequence[Answer], changes: Sequence[Change]
    ) -> NightFacts:
        count = Counter(row.result for row in usual)
        rejected = count[Result.NAMED] + count[Result.OTHERWISE]
        lost: Counter[str] = Counter()
        for one in answers:
            lost.update(one.lost)
        return NightFacts(
            night=night,
            began=self.history.began(night),
            testbed=__version__,
            judge=judge.VERSION,
            image=self.images[0].id,
            recall=round(rejected / (rejected + count[Result.MISSED]), 3) if rejected + count[Result.MISSED] else None,
            named_share=round(count[Result.NAMED] / rejected, 3) if rejected else None,
            missed=count[Result.MISSED],
            false_alarms=count[Result.FALSE_ALARM],
            answers=sum(one.ran for one in answers),
            unclear=sum(one.row.result is Result.UNCLEAR for one in answers),
            not_reached=sum(not one.reached for one in answers),
            flaky=sum(one.what == "flaky" for one in changes),
            lost=dict(sorted(lost.items())),
            elapsed_s=round(sum(one.row.elapsed_s for one in answers), 1),
        )

    # --- who did it --------------------------------------------------------------------------------------

    def _with_causes(self, changes: Sequence[Change], comparison: Comparison, night: int) -> Iterator[Change]:
        """The changes, those for the worse of a known scheduler with what the bisection says."""
        known = {
            (one.kind, one.row.name, one.row.machine, one.image, one.first_seed): one for one in comparison.answers
        }
        left = MAX_BISECTED
        for change in changes:
            answer = known[change.kind, change.name, change.machine, change.image, change.first_seed]
            before = comparison.before(answer)
            if change.what != "verdict" or not change.worse or before is None:
                yield change
                continue
            if change.kind is Kind.FRESH:
                yield change.model_copy(update={"cause": f"the orders of events, from {answer.first_seed} on"})
                continue
            if change.kind is Kind.AGAIN or answer.named or not left or self.stop.is_set():
                why = (
                    "the time was over"
                    if self.stop.is_set()
                    else "only for usual orders of events on the usual image, and not for so many"
                )
                yield change.model_copy(update={"cause": f"not looked for: {why}"})
                continue
            left -= 1
            yield change.model_copy(update={"cause": self._cause(answer, before[1], before[0] or night, night)})

    def _cause(self, answer: Answer, before: Answer, since: int, night: int) -> str:
        versions = [one for one in self.history.between(answer.row.name, since, night) if one.row.sha256]
        candidates = list(dict.fromkeys([before.row.sha256, *(one.row.sha256 for one in versions), answer.row.sha256]))
        images = list(dict.fromkeys([before.image, *(one.image for one in versions), answer.image]))
        # What came and went again is asked once, the ends stay the ends.
        candidates = _ends(candidates, before.row.sha256, answer.row.sha256)
        images = _ends(images, before.image, answer.image)
        then, rules = self.history.asked(since), ""
        if (then.testbed, then.judge) != (__version__, judge.VERSION):
            rules = f"testbed {then.testbed} → {__version__}, rules {then.judge} → {judge.VERSION}"
        jury = _Jury(self, self.folder(night) / BISECT_DIR, answer, before)
        try:
            return bisect.search(bisect.path(candidates, images), jury.there, jury.bad, rules)
        except Interrupted:
            return "not found: the time was over"
        except (TestbedError, OSError) as error:
            return f"not found: {error.message if isinstance(error, TestbedError) else error}"

    # --- afterwards --------------------------------------------------------------------------------------

    def _tidy(self, night: int, document: Document) -> None:
        """Evidence is kept of what is worse than it was; what the rest said is in the history."""
        kept = {change.case for change in document.changes if change.worse}
        for answer in document.answers:
            if answer.row.case and answer.row.case not in kept:
                shutil.rmtree(self.directory / answer.row.case, ignore_errors=True)
        for left in (*self.folder(night).glob(f"*/{PROGRAMS_DIR}"), self.folder(night) / BISECT_DIR):
            shutil.rmtree(left, ignore_errors=True)


@dataclass
class _Jury:
    """Asks about earlier versions of one scheduler, by the rules of tonight."""

    session: Session
    folder: Path
    answer: Answer
    before: Answer

    def there(self, point: bisect.Point) -> bool:
        """Whether image and candidate can still be had."""
        return self._image(point.image) is not None and self._task(point.candidate) is not None

    def bad(self, point: bisect.Point) -> bool:
        """Judge it.

        Raises:
            Interrupted: there was no answer before the end.
        """
        image, task = self._image(point.image), self._task(point.candidate)
        assert image is not None and task is not None  # `there` was asked before
        settings = self.session.settings
        found = corpus.Session(
            [task],
            corpus.Settings(policy=settings.policy, jobs=settings.jobs, cache=settings.cache),
            self.folder / image.id[:12],
            image,
            self.session.trial(image),
            self.session.listener,
            self.session.stop,
        ).run()
        result = found.rows[0].result
        if result is Result.NOT_RUN:
            raise Interrupted("interrupted")
        return worse(result, self.before.row.result)

    def _image(self, image_id: str) -> Image | None:
        return next((one for one in (*self.session.images, *self.session.cached()) if one.id == image_id), None)

    def _task(self, digest: str) -> Task | None:
        row = self.answer.row
        everybody = [*self.session.members, *self.session.programs]
        member = next((one for one in everybody if one.name == row.name), None)
        if member is None:
            return None
        task = next(
            (one for one in self.session.base([member]) if one.machine_name == row.machine),
            None,
        )
        if task is None or digest == row.sha256:
            return task
        if member.file is None:
            return None
        file = self.session.directory / CANDIDATES_DIR / digest / member.file.name
        return replace(task, member=replace(member, file=file)) if file.is_file() else None


def _own_machine(member: Member) -> str:
    return member.header.machine[0] if member.header.machine is not None else ""


def _ends(values: Sequence[str], first: str, last: str) -> list[str]:
    inner = [one for one in values if one not in (first, last)]
    return [first, *inner, *([last] if last != first else [])]


def _all_below(files: Mapping[str, bytes]) -> bool:
    paths = [PurePosixPath(name) for name in files]
    return bool(paths) and not any(path.is_absolute() or ".." in path.parts for path in paths)


def _facts(verdict: Verdict) -> dict[str, object]:
    """What of a verdict the history keeps."""
    ends = [run.ended for scenario in verdict.scenarios for run in scenario.runs]
    # Who was interrupted was not lost: somebody ended it.
    lost = Counter(HOST_SIDE[Ended(one)] for one in ends if one in HOST_SIDE and one != Ended.INTERRUPTED)
    return {
        "latencies": tuple(
            Latency(
                name=f"{one.scenario}: {one.name}",
                unit=one.unit,
                value=one.candidate,
                resolution=one.resolution,
                floor=one.floor,
            )
            for one in verdict.benefit.figures
            if verdict.verdict is Outcome.PASS
            and one.clock is Clock.SIM
            and one.candidate is not None
            and is_latency(one.unit)
        ),
        "lost": dict(sorted(lost.items())),
        "diverged": any(one.code in DIVERGED and one.clock is not Clock.LIVE for one in verdict.findings),
    }
