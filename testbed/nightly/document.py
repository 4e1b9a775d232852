# SPDX-License-Identifier: Apache-2.0
"""`testbed.nightly/1`: what a night answered, what of it is not as it was, and the nights before it as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from testbed.corpus import Result, Row, Table
from testbed.errors import ExitCode
from testbed.spec import Model, published_schema, schema_text_of

SCHEMA = "testbed.nightly/1"
FILE = "nightly.json"
PAGE = "nightly.html"


class Kind(StrEnum):
    """Why something was asked, in the order in which it is.

    again: orders of events in which a scheduler once did not get its verdict. corpus: everybody, as every night.
    installed: an `scx_*` of this machine that the corpus does not know. fresh: orders of events that are new tonight.
    """

    AGAIN = "again"
    CORPUS = "corpus"
    INSTALLED = "installed"
    FRESH = "fresh"


class Latency(Model):
    """A waiting time of a candidate, with what says whether another one differs from it."""

    name: str = Field(description="scenario and figure")
    unit: str
    value: float
    resolution: float = 0.0
    floor: float = 0.0


class Answer(Model):
    """One question of a night, and what became of it."""

    kind: Kind
    image: str = Field(description="id of the image")
    named: bool = Field(default=False, description="image or kernel were asked for; else it is the usual image")
    kernel: str = Field(default="", description="as it was asked for, e.g. `debian:7.2`; empty: the image's own")
    first_seed: int = 0
    row: Row
    question: str = Field(default="", description="hash of all that the verdict depends on; empty: never judged")
    latencies: tuple[Latency, ...] = ()
    lost: dict[str, int] = Field(default_factory=dict, description="guests that said nothing, by the reason's code")
    diverged: bool = Field(default=False, description="a run was repeated under `sim` and did something else")

    @property
    def subject(self) -> str:
        """What is compared from night to night; orders of events that are new each night are one subject."""
        row = self.row
        # An image with another kernel has another id with each testbed; the kernel is what is compared.
        where = self.kernel or (self.image if self.named else "")
        parts = [self.kind, row.name, row.machine, row.policy, row.scenario, where]
        parts += [f"{self.first_seed}+{row.seeds}"] if self.kind is Kind.AGAIN else []
        return "|".join(parts)

    @property
    def reached(self) -> bool:
        """Whether its turn came. What can't run here, or is beyond the policy, says why, and has had its turn."""
        return self.row.result is not Result.NOT_RUN or bool(self.row.reason)

    @property
    def ran(self) -> bool:
        """Whether there is something to compare."""
        return self.row.result is not Result.NOT_RUN


class Change(Model):
    """Something that is not as it was."""

    key: str = Field(description="the same for the same change of the same subject, whatever night it is")
    what: Literal["verdict", "latency", "flaky"]
    worse: bool
    kind: Kind
    name: str
    machine: str = ""
    policy: str
    image: str
    kernel: str = Field(default="", description="as it was asked for; empty: the image's own")
    first_seed: int = Field(default=0, description="of the orders of events; 0: the usual ones")
    before: str
    now: str
    since: int | None = Field(default=None, description="the night of `before`; null: it is of this night")
    cause: str = Field(default="", description="what the bisection says")
    case: str = Field(default="", description="directory below the nightly's")


class NightFacts(Model):
    """A night as numbers, for the trends. Ratios are geometric means over what both nights have, earlier = 1."""

    night: int
    began: str = Field(description="date and time in UTC as the host had it; nothing is ordered by it")
    testbed: str
    judge: int = Field(description="version of the judging rules")
    image: str
    recall: float | None = Field(default=None, description="bad ones that were rejected, of those that were judged")
    named_share: float | None = None
    missed: int = 0
    false_alarms: int = 0
    answers: int = 0
    unclear: int = 0
    not_reached: int = 0
    flaky: int = 0
    lost: dict[str, int] = Field(default_factory=dict)
    latency_ratio: float | None = None
    time_ratio: float | None = None
    elapsed_s: float = 0.0


class Asked(Model):
    """What a night is asked; a killed one goes on only where it is the same."""

    policy: str
    seeds: int = Field(description="new orders of events for each scheduler")
    machines: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    images: tuple[str, ...] = Field(description="ids, the usual one first, those with another kernel last")
    kernels: tuple[str, ...] = Field(default=(), description="as they were asked for, beside the image's own")
    testbed: str
    judge: int


class Document(Model):
    """The whole answer of `testbed nightly`."""

    schema_: Literal["testbed.nightly/1"] = Field(default="testbed.nightly/1", alias="schema")
    night: int
    asked: Asked
    interrupted: bool
    exit_code: int
    tables: tuple[Table, ...] = Field(description="of the corpus on the usual image")
    changes: tuple[Change, ...]
    nights: tuple[NightFacts, ...] = Field(description="oldest first, this one last")
    not_reached: tuple[str, ...] = Field(description="what the time did not suffice for")
    answers: tuple[Answer, ...]


def schema() -> dict[str, Any]:
    """JSON Schema of the document."""
    return published_schema(Document, SCHEMA, "The whole answer of `testbed nightly`.")


def schema_text() -> str:
    """The published schema, byte for byte."""
    return schema_text_of(schema())


def label(answer: Answer) -> str:
    """A question in words of ours and a scheduler's name."""
    row = answer.row
    parts = [row.name, *([f"on {row.machine}"] if row.machine else []), f"by {row.policy}"]
    if answer.kind in (Kind.AGAIN, Kind.FRESH):
        last = answer.first_seed + (row.seeds or 1) - 1
        parts.append(f"orders {answer.first_seed} to {last}")
    parts += [f"kernel {answer.kernel}"] if answer.kernel else [f"image {answer.image[:12]}"] if answer.named else []
    return f"{answer.kind}: {', '.join(parts)}"


def exit_code(answers: Sequence[Answer], changes: Sequence[Change], *, interrupted: bool) -> ExitCode:
    """A change for the worse beats what did not run."""
    if interrupted:
        return ExitCode.INTERRUPTED
    if any(change.worse for change in changes):
        return ExitCode.REJECT
    if any(not answer.reached or answer.row.result is Result.UNCLEAR for answer in answers):
        return ExitCode.INCONCLUSIVE
    return ExitCode.PASS
