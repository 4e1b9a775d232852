# SPDX-License-Identifier: Apache-2.0
"""`testbed.corpus/1`: expected against got for every scheduler of the corpus, and what that adds up to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from testbed.case import MAX_JSON
from testbed.corpus.classes import CLASSES
from testbed.corpus.members import Origin
from testbed.errors import ExitCode, UsageError
from testbed.sources import read_bounded
from testbed.spec import Model, first_mistake
from testbed.verdict import ImageFacts, Outcome

FILE = "corpus.json"


class Result(StrEnum):
    """What became of one scheduler on one machine.

    named: bad, rejected, and for what it is. otherwise: bad, rejected, for something else. missed: bad, and it passed.
    passed: good, and it did. false alarm: good, and it was rejected. unclear: there is no verdict, or an inconclusive
    one. not run: not yet, or it is not installed.
    """

    NAMED = "named"
    OTHERWISE = "otherwise"
    MISSED = "missed"
    PASSED = "passed"
    FALSE_ALARM = "false alarm"
    UNCLEAR = "unclear"
    NOT_RUN = "not run"


class Row(Model):
    """One scheduler on one machine."""

    name: str
    origin: Origin
    good: bool
    failure_class: str = ""
    machine: str = Field(default="", description="name of the topology; empty: the scenarios' own")
    policy: str = Field(description="by which it was judged: the asked one, or the least that has its scenario")
    scenario: str = Field(default="", description="the one that was run; empty: all of the policy")
    seeds: int | None = Field(default=None, description="orders of events; null: the policy's own")
    needs: str = Field(default="", description="what its fault needs to show, as its header says")
    expected: tuple[str, ...] = Field(default=(), description="codes of its header; empty: those of its class")
    sha256: str = Field(default="", description="of the candidate's manifest")
    verdict: Outcome | None = None
    codes: tuple[str, ...] = Field(default=(), description="of the findings that reject it")
    result: Result = Result.NOT_RUN
    reason: str = Field(default="", description="why there is no verdict")
    case: str = Field(default="", description="directory below the corpus's")
    elapsed_s: float = 0.0


class ClassCounts(Model):
    """The bad ones of one class."""

    failure_class: str
    bad: int
    named: int
    otherwise: int
    missed: int
    unclear: int
    not_run: int


class Table(Model):
    """What one part of the corpus adds up to."""

    origin: Origin
    classes: tuple[ClassCounts, ...]
    bad: int
    named: int
    otherwise: int
    missed: int
    good: int
    passed: int
    false_alarms: int
    unclear: int = Field(description="good and bad ones")
    not_run: int = Field(description="good and bad ones")
    recall: float | None = Field(description="bad ones that were rejected, of those that were judged")
    named_share: float | None = Field(description="bad ones that were named rightly, of those that were rejected")
    precision: float | None = Field(description="bad ones among all that were rejected; null: none was asked about")


class Asked(Model):
    """What was asked of every scheduler."""

    policy: str
    seeds: int | None = None
    machines: tuple[str, ...] = ()
    only: tuple[str, ...] = ()


class Document(Model):
    """The whole answer of `testbed corpus`."""

    schema_: Literal["testbed.corpus/1"] = Field(default="testbed.corpus/1", alias="schema")
    asked: Asked
    image: ImageFacts
    judge: int = Field(description="version of the judging rules")
    testbed: str
    interrupted: bool
    exit_code: int
    tables: tuple[Table, ...]
    rows: tuple[Row, ...]
    elapsed_s: float = Field(description="of all judgements together, those that were read from earlier cases included")


def judged(good: bool, verdict: Outcome, *, named: bool) -> Result:
    """What a verdict means for a scheduler of which the right one is known."""
    if verdict is Outcome.INCONCLUSIVE:
        return Result.UNCLEAR
    if good:
        return Result.PASSED if verdict is Outcome.PASS else Result.FALSE_ALARM
    if verdict is Outcome.PASS:
        return Result.MISSED
    return Result.NAMED if named else Result.OTHERWISE


def conclude(
    rows: Sequence[Row], asked: Asked, image: ImageFacts, judge: int, testbed: str, *, interrupted: bool
) -> Document:
    """Count."""
    return Document(
        asked=asked,
        image=image,
        judge=judge,
        testbed=testbed,
        interrupted=interrupted,
        exit_code=int(_exit_code(rows, interrupted=interrupted)),
        tables=tuple(tables(rows)),
        rows=tuple(rows),
        elapsed_s=round(sum(row.elapsed_s for row in rows), 1),
    )


def _exit_code(rows: Sequence[Row], *, interrupted: bool) -> ExitCode:
    """A row that is not as its header says beats one that says nothing."""
    results = {row.result for row in rows}
    if interrupted:
        return ExitCode.INTERRUPTED
    if results & {Result.OTHERWISE, Result.MISSED, Result.FALSE_ALARM}:
        return ExitCode.REJECT
    return ExitCode.INCONCLUSIVE if Result.UNCLEAR in results else ExitCode.PASS


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """What each part of the corpus that is among the rows adds up to."""
    for origin in Origin:
        own = [row for row in rows if row.origin is origin]
        bad = [row for row in own if not row.good]
        good = [row for row in own if row.good]
        if not own:
            continue
        named, otherwise, missed = (_count(bad, result) for result in (Result.NAMED, Result.OTHERWISE, Result.MISSED))
        false_alarms = _count(good, Result.FALSE_ALARM)
        rejected = named + otherwise
        yield Table(
            origin=origin,
            classes=tuple(_class(name, bad) for name in CLASSES if any(row.failure_class == name for row in bad)),
            bad=len(bad),
            named=named,
            otherwise=otherwise,
            missed=missed,
            good=len(good),
            passed=_count(good, Result.PASSED),
            false_alarms=false_alarms,
            unclear=_count(own, Result.UNCLEAR),
            not_run=_count(own, Result.NOT_RUN),
            recall=_share(rejected, rejected + missed),
            named_share=_share(named, rejected),
            precision=_share(rejected, rejected + false_alarms) if bad else None,
        )


def _class(name: str, bad: Sequence[Row]) -> ClassCounts:
    own = [row for row in bad if row.failure_class == name]
    return ClassCounts(
        failure_class=name,
        bad=len(own),
        named=_count(own, Result.NAMED),
        otherwise=_count(own, Result.OTHERWISE),
        missed=_count(own, Result.MISSED),
        unclear=_count(own, Result.UNCLEAR),
        not_run=_count(own, Result.NOT_RUN),
    )


def _count(rows: Sequence[Row], result: Result) -> int:
    return sum(row.result is result for row in rows)


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 3) if whole else None


def read(path: Path) -> Document:
    """A document by its file or by the corpus's directory.

    Raises:
        UsageError: there is none, it can't be read, or its counts are not those of its rows.
    """
    file = path / FILE if path.is_dir() else path
    try:
        found = Document.model_validate_json(read_bounded(file, MAX_JSON, "a document of the corpus"))
    except ValidationError as error:
        where, wrong = first_mistake(error, "the document")
        raise UsageError(f"`{file}` is no document of the corpus: {where}: {wrong.lower()}") from None
    if found.tables != tuple(tables(found.rows)):
        raise UsageError(f"`{file}` is damaged: its tables are not what its rows add up to")
    return found
