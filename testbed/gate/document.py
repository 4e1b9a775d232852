# SPDX-License-Identifier: Apache-2.0
"""`testbed.gate/1`: the one document that a gate leaves, with every verdict in it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from testbed.case import MAX_JSON, write_model
from testbed.errors import ExitCode, UsageError
from testbed.report.document import printed
from testbed.report.subject import Subject, roll_up
from testbed.sources import read_bounded
from testbed.spec import Model, first_mistake, published_schema, schema_text_of
from testbed.verdict import ImageFacts, Outcome, PolicyFacts, Verdict

SCHEMA = "testbed.gate/1"
FILE = "gate.json"
MAX_BYTES = 32 * MAX_JSON


class State(StrEnum):
    """What became of a candidate.

    judged: there is a verdict. failed: it could not be judged, `trouble` says why. waiting: not yet, or the gate was
    interrupted before. unchanged: the same as at the base, includes and all, so it was not judged. elsewhere: another
    shard's. missing: that shard did not come.
    """

    JUDGED = "judged"
    FAILED = "failed"
    WAITING = "waiting"
    UNCHANGED = "unchanged"
    ELSEWHERE = "elsewhere"
    MISSING = "missing"


class Change(StrEnum):
    """A verdict beside that of the base.

    new: the base has no such candidate. regression: worse than it was, or rejected for another reason. bad before:
    rejected, or inconclusive, as it was. fixed: better than it was. same: as good as it was. not comparable: the base
    was judged by another policy, image or set of rules.
    """

    NEW = "new"
    REGRESSION = "regression"
    BAD_BEFORE = "bad before"
    FIXED = "fixed"
    SAME = "same"
    NOT_COMPARABLE = "not comparable"


class Entry(Model):
    """One candidate of the repository."""

    path: str = Field(description="below the repository's root")
    sha256: str = Field(description="of the candidate's manifest; empty if it can't be read")
    kernel: str = Field(default="", description="on which it is judged, as it was asked for; empty: the image's own")
    state: State
    was: str = Field(default="", description="its path at the base, if it only moved")
    trouble: str = Field(default="", description="why there is no verdict")
    case: str = Field(default="", description="directory of the case, below the gate's")
    elapsed_s: float = 0.0
    change: Change | None = Field(default=None, description="null: nothing was compared")
    before: str = Field(default="", description="title of the base's verdict")
    verdict: Verdict | None = None

    @property
    def name(self) -> str:
        """How people call it."""
        return f"{self.path} on {self.kernel}" if self.kernel else self.path

    @property
    def outcome(self) -> Outcome | None:
        """What it adds to the whole; None if it adds nothing."""
        if self.state in (State.UNCHANGED, State.ELSEWHERE):
            return None
        return self.verdict.verdict if self.verdict is not None else Outcome.INCONCLUSIVE


class BaseFacts(Model):
    """What was compared with."""

    ref: str
    commit: str


class ShardFacts(Model):
    """Which part of the work this was."""

    index: int = Field(ge=1, description="from 1")
    of: int = Field(ge=1)


class Asked(Model):
    """What was asked of every candidate."""

    policy: PolicyFacts
    policy_word: str = Field(description="name or file, as it was given")
    scenarios: str | None
    clock: str | None
    cpus: int | None
    seeds: int | None
    regressions: str = Field(default="", description="sha256 of the file of runs that come first; empty: there is none")
    workload: str = Field(default="", description="sha256 over the workload that was given; empty: there is none")
    image: ImageFacts | None = None
    kernels: dict[str, ImageFacts] = Field(default_factory=dict, description="images with the other kernels, by word")
    judge: int = Field(description="version of the judging rules")
    testbed: str
    fail_on: Literal["any", "regression"] = "any"


class Counts(Model):
    """How many candidates; on several kernels each counts once for each."""

    found: int
    judged: int
    passed: int
    rejected: int
    inconclusive: int
    unchanged: int
    regressions: int
    bad_before: int


class Document(Model):
    """The whole answer of `testbed gate` and `testbed merge`."""

    schema_: Literal["testbed.gate/1"] = Field(default="testbed.gate/1", alias="schema")
    verdict: Outcome
    exit_code: int
    complete: bool = Field(description="everything that was to be judged was")
    interrupted: bool
    title: str
    plan: str = Field(description="hash of what was to be judged and how; equal in all shards of one gate")
    shard: ShardFacts | None = None
    head: str = ""
    base: BaseFacts | None = None
    asked: Asked
    counts: Counts
    candidates: tuple[Entry, ...]
    deleted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def subjects(self) -> list[Subject]:
        """What the writers of `report/` tell about: everything that adds to the whole."""
        return [
            Subject(
                path=entry.path,
                verdict=printed(entry.verdict, case_dir=None, elapsed_s=entry.elapsed_s) if entry.verdict else None,
                trouble=entry.trouble or ("not judged" if entry.verdict is None else ""),
                change=str(entry.change) if entry.change is not None else "",
                policy=self.asked.policy_word,
                kernel=entry.kernel,
            )
            for entry in self.candidates
            if entry.outcome is not None
        ]


def conclude(
    entries: Sequence[Entry],
    asked: Asked,
    *,
    plan: str,
    interrupted: bool = False,
    shard: ShardFacts | None = None,
    head: str = "",
    base: BaseFacts | None = None,
    deleted: Sequence[str] = (),
    notes: Sequence[str] = (),
    lacking: Sequence[str] = (),
) -> Document:
    """Roll up: any reject rejects, else any inconclusive is inconclusive; what did not run is never a pass.

    Args:
        lacking: what did not come at all, in words; with it nothing passes, though no candidate may be touched by it.
    """
    told = [entry for entry in entries if entry.outcome is not None]
    outcomes = [entry.outcome for entry in told if entry.outcome is not None]
    # Nothing to judge (all unchanged, or nothing in this shard, or none allowed) is no failure: nothing was demanded.
    counted = [
        entry.outcome
        for entry in told
        if entry.outcome is not None and not (asked.fail_on == "regression" and _excused(entry))
    ]
    counted += [Outcome.INCONCLUSIVE] * len(lacking)
    verdict = roll_up(counted) if counted else Outcome.PASS
    counts = Counts(
        found=len(entries),
        judged=sum(entry.state is State.JUDGED for entry in entries),
        passed=outcomes.count(Outcome.PASS),
        rejected=outcomes.count(Outcome.REJECT),
        inconclusive=outcomes.count(Outcome.INCONCLUSIVE),
        unchanged=sum(entry.state is State.UNCHANGED for entry in entries),
        regressions=sum(entry.change is Change.REGRESSION for entry in entries),
        bad_before=sum(entry.change is Change.BAD_BEFORE for entry in entries),
    )
    return Document(
        verdict=verdict,
        exit_code=int(ExitCode.INTERRUPTED if interrupted else verdict.exit_code),
        complete=not interrupted and not lacking and all(entry.state is State.JUDGED for entry in told),
        interrupted=interrupted,
        title="; ".join([_title(counts, interrupted=interrupted), *lacking]),
        plan=plan,
        shard=shard,
        head=head,
        base=base,
        asked=asked,
        counts=counts,
        candidates=tuple(sorted(entries, key=lambda entry: entry.path)),
        deleted=tuple(deleted),
        notes=(*notes, *lacking),
    )


def _excused(entry: Entry) -> bool:
    """With `--fail-on regression`: rejected for the reason for which the base was. Never what did not run."""
    return entry.change is Change.BAD_BEFORE and entry.outcome is Outcome.REJECT


def _title(counts: Counts, *, interrupted: bool) -> str:
    parts = [
        f"{number} {word}"
        for number, word in (
            (counts.rejected, "rejected"),
            (counts.inconclusive, "inconclusive"),
            (counts.passed, "passed"),
            (counts.unchanged, "unchanged and not judged"),
        )
        if number
    ]
    said = ", ".join(parts) if parts else "nothing to judge" if counts.found else "no candidates"
    more = [
        f"{number} {word}"
        for number, word in ((counts.regressions, "worse than the base"), (counts.bad_before, "as bad as the base"))
        if number
    ]
    return ("interrupted: " if interrupted else "") + said + (f" ({', '.join(more)})" if more else "")


def read(path: Path) -> Document:
    """A document by its file or by the gate's directory.

    Raises:
        UsageError: there is none, or it can't be read.
    """
    file = path / FILE if path.is_dir() else path
    try:
        return Document.model_validate_json(read_bounded(file, MAX_BYTES, "a document of a gate"))
    except ValidationError as error:
        where, wrong = first_mistake(error, "the document")
        raise UsageError(f"`{file}` is no document of a gate: {where}: {wrong.lower()}") from None


def write(directory: Path, document: Document) -> None:
    """Write the document into the gate's directory, whole or not at all."""
    write_model(directory / FILE, document)


def schema() -> dict[str, Any]:
    """JSON Schema of the document."""
    return published_schema(Document, SCHEMA, "The whole answer of `testbed gate` and `testbed merge`.")


def schema_text() -> str:
    """The published schema, byte for byte."""
    return schema_text_of(schema())
