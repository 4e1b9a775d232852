# SPDX-License-Identifier: Apache-2.0
"""One gate at work: a candidate after the other, what is known so far always on the disk."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from testbed import __version__, cases, judge, policy, workload
from testbed.case import canonical_json
from testbed.errors import Interrupted, TestbedError, UsageError
from testbed.gate import document as documents
from testbed.gate.compare import compare
from testbed.gate.document import Asked, BaseFacts, Document, Entry, ShardFacts, State, conclude
from testbed.gate.survey import Found, Survey
from testbed.report.events import Listener, StageEnded, StageStarted
from testbed.spec import sha256
from testbed.status import Status
from testbed.topology import wanted
from testbed.trial import Request, Result
from testbed.verdict import ImageFacts, Outcome
from testbed.yamlfile import read

CASES_DIR = "cases"
_STATUS = {Outcome.PASS: Status.PASS, Outcome.REJECT: Status.FAIL, Outcome.INCONCLUSIVE: Status.ERROR}


@dataclass(frozen=True)
class Settings:
    """What is asked of every candidate, and how; names are those of `testbed run`.

    Attributes:
        kernels: on which each is judged, by the word that each was asked for; empty: the image's own.
        fail_on: `regression`: what the base rejected for the same reason does not fail the gate.
        shard: which part of the work, from 1, and of how many.
    """

    policy: str = "default"
    scenarios: str | None = None
    clock: str | None = None
    cpus: int | None = None
    seeds: int | None = None
    regressions: Path | None = None
    workload: Path | None = None
    jobs: int = 1
    cache: bool = True
    run_all: bool = False
    kernels: tuple[str, ...] = ("",)
    fail_on: Literal["any", "regression"] = "any"
    shard: tuple[int, int] | None = None


@dataclass
class Session:
    """A survey, judged.

    Attributes:
        directory: of the gate; a gate that was begun there with the same question goes on.
        trial: judges one candidate, on a kernel by its word.
        base: the base's own gate.
        stop: set by whoever wants it to end.
    """

    survey: Survey
    settings: Settings
    directory: Path
    trial: Callable[[Request, str], Result]
    listener: Listener
    image: ImageFacts | None = None
    kernels: Mapping[str, ImageFacts] = field(default_factory=dict)
    base: Document | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    _asked: Asked = field(init=False)

    def run(self) -> Document:
        """Judge what is to be judged.

        Raises:
            UsageError: the directory holds something else.
            HostError: the document can't be written.
        """
        demanded, data = policy.load(self.settings.policy)
        self._asked = Asked(
            policy=policy.facts(data, demanded),
            policy_word=_word(self.settings.policy, self.survey.root),
            scenarios=self.settings.scenarios,
            clock=self.settings.clock,
            cpus=self.settings.cpus,
            seeds=self.settings.seeds,
            regressions=sha256(read(self.settings.regressions)) if self.settings.regressions is not None else "",
            workload=workload.load(self.settings.workload).sha256 if self.settings.workload is not None else "",
            image=self.image,
            kernels=dict(self.kernels),
            judge=judge.VERSION,
            testbed=__version__,
            fail_on=self.settings.fail_on,
        )
        with cases.exclusive(self.directory, "gate"):
            return self._run()

    @property
    def plan(self) -> str:
        """Hash of the question: equal for all shards, and for a gate that goes on."""
        question = [
            self._asked.model_dump(mode="json"),
            self.survey.base.commit if self.survey.base else "",
            [[one.path, one.sha256, one.changed, one.trouble] for one in self.survey.found],
            self.settings.kernels,
        ]
        return sha256(canonical_json(question))

    def _run(self) -> Document:
        entries = self._entries()
        todo = [index for index, entry in enumerate(entries) if entry.state is State.WAITING]
        self._write(entries, interrupted=bool(todo))  # so that a killed gate leaves the truth
        interrupted = False
        for done, index in enumerate(todo, start=1):
            if self.stop.is_set():
                interrupted = True
                break
            entries[index], interrupted = self._judge(index, entries[index], f"{done} of {len(todo)}")
            self._write(entries, interrupted=interrupted or done < len(todo))
            if interrupted:
                break
        return self._write(entries, interrupted=interrupted)

    def _entries(self) -> list[Entry]:
        """Every candidate as it stands, with what an earlier, interrupted call already found."""
        everything = pairs(self.survey.found, self.settings.kernels)
        own = mine([index for index, (one, _) in enumerate(everything) if one.changed], self.settings.shard)
        entries = [self._entry(one, kernel, mine=index in own) for index, (one, kernel) in enumerate(everything)]
        if not (self.directory / documents.FILE).exists():
            if any(name.name != cases.LOCK_FILE for name in self.directory.iterdir()):
                raise UsageError(f"`--out {self.directory}` exists and holds no gate", hint="name a new directory")
            return entries
        earlier = documents.read(self.directory)
        if earlier.plan != self.plan or earlier.shard != self._shard:
            raise UsageError(
                f"`--out {self.directory}` holds another gate: other candidates, or another question",
                hint="name a new directory",
            )
        known = {(entry.path, entry.kernel): entry for entry in earlier.candidates if entry.state is State.JUDGED}
        return [
            compare(known[entry.path, entry.kernel], self.base)
            if entry.state is State.WAITING and (entry.path, entry.kernel) in known
            else entry
            for entry in entries
        ]

    def _entry(self, one: Found, kernel: str, *, mine: bool) -> Entry:
        state = State.WAITING if mine else State.ELSEWHERE
        if not one.changed:
            state = State.UNCHANGED
        elif mine and one.trouble:
            state = State.FAILED
        return Entry(path=one.path, sha256=one.sha256, kernel=kernel, state=state, was=one.was, trouble=one.trouble)

    def _judge(self, index: int, entry: Entry, progress: str) -> tuple[Entry, bool]:
        """One candidate, and whether the user ended it."""
        stage, title = f"gate/{index}", f"{entry.name} ({progress})"
        started = time.monotonic()
        self.listener(StageStarted(stage=stage, title=title))
        case = self._new_case(index, entry)
        interrupted = False
        try:
            result = self.trial(self._request(entry, case), entry.kernel)
        except Interrupted:
            interrupted = True
        except (TestbedError, OSError) as error:
            trouble = error.message if isinstance(error, TestbedError) else (error.strerror or str(error)).lower()
            entry = entry.model_copy(update={"state": State.FAILED, "trouble": trouble})
        else:
            interrupted = self.stop.is_set() and result.verdict.exit_code not in (0, 1, 3)
            judged = {"elapsed_s": round(result.elapsed_s, 3), "verdict": result.verdict, "state": State.JUDGED}
            entry = entry if interrupted else compare(entry.model_copy(update=judged), self.base)
        entry = entry.model_copy(update={"case": case.relative_to(self.directory).as_posix()})
        if not interrupted:
            self.listener(
                StageEnded(
                    stage=stage,
                    title=title,
                    status=_STATUS[entry.outcome or Outcome.INCONCLUSIVE],
                    elapsed_s=time.monotonic() - started,
                    summary=entry.verdict.title if entry.verdict is not None else entry.trouble,
                )
            )
        return entry, interrupted

    def _request(self, entry: Entry, case: Path) -> Request:
        settings = self.settings
        return Request(
            candidate=str(self.survey.root / entry.path),
            policy=settings.policy,
            clock=settings.clock,
            pattern=settings.scenarios,
            machine=wanted(None, settings.cpus),
            run_all=settings.run_all,
            jobs=settings.jobs,
            out=case,
            cache=settings.cache,
            seeds=settings.seeds,
            regressions=settings.regressions,
            workload=settings.workload,
        )

    def _new_case(self, index: int, entry: Entry) -> Path:
        """A directory that does not exist; what an interrupted call left stays beside it."""
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", PurePosixPath(entry.path).name.split(".")[0])[:40] or "candidate"
        folder = self.directory / CASES_DIR
        folder.mkdir(exist_ok=True)
        names = [f"{index:03d}-{stem}", *(f"{index:03d}-{stem}-{again}" for again in range(2, 10_000))]
        return next(folder / name for name in names if not os.path.lexists(folder / name))

    @property
    def _shard(self) -> ShardFacts | None:
        shard = self.settings.shard
        return ShardFacts(index=shard[0], of=shard[1]) if shard is not None else None

    def _write(self, entries: Sequence[Entry], *, interrupted: bool) -> Document:
        base = self.survey.base
        document = conclude(
            entries,
            self._asked,
            plan=self.plan,
            interrupted=interrupted,
            shard=self._shard,
            head=self.survey.head,
            base=BaseFacts(ref=base.ref, commit=base.commit) if base is not None else None,
            deleted=self.survey.deleted,
            notes=self.survey.notes,
        )
        documents.write(self.directory, document)
        return document


def pairs(found: Sequence[Found], kernels: Sequence[str]) -> list[tuple[Found, str]]:
    """Every candidate on every kernel, in the order of a gate's entries."""
    return [(one, kernel) for kernel in kernels for one in found]


def mine(indices: Sequence[int], shard: tuple[int, int] | None) -> set[int]:
    """Every n-th candidate: neighbours, which are often alike, go to different machines."""
    return set(indices if shard is None else indices[shard[0] - 1 :: shard[1]])


def _word(name: str, root: Path) -> str:
    """The policy as somebody who stands in the repository would name it."""
    path = Path(name)
    return os.path.relpath(path, root) if path.is_absolute() and path.is_relative_to(root) else name
