# SPDX-License-Identifier: Apache-2.0
"""What the tool says while it works: one typed stream that feeds the screen, `--format jsonl`, a log, an agent.

Event times are seconds since the command began, so that a stream holds no clock of the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from testbed.report.document import PrintedVerdict
from testbed.spec import Model
from testbed.status import Status


class StageStarted(Model):
    """A stage begins: `build`, `image`, or a run such as `stall sim`."""

    event: Literal["stage_started"] = "stage_started"
    stage: str = Field(description="unique among the stages that are going on")
    title: str
    at_s: float = 0.0


class StageLine(Model):
    """A line of output of a stage; untrusted where it comes from a guest or a compiler."""

    event: Literal["stage_line"] = "stage_line"
    stage: str
    text: str


class StageEnded(Model):
    """A stage is over."""

    event: Literal["stage_ended"] = "stage_ended"
    stage: str
    title: str
    status: Status
    elapsed_s: float
    summary: str = Field(default="", description="why, if it is not PASS")


class Heartbeat(Model):
    """A stage is still going on."""

    event: Literal["heartbeat"] = "heartbeat"
    stage: str
    elapsed_s: float
    text: str = Field(default="", description="e.g. guest time so far")


class VerdictReached(Model):
    """The last event: the whole answer."""

    event: Literal["verdict"] = "verdict"
    verdict: PrintedVerdict


Event = Annotated[StageStarted | StageLine | StageEnded | Heartbeat | VerdictReached, Field(discriminator="event")]
ADAPTER: TypeAdapter[Event] = TypeAdapter(Event)
"""Reads an event back."""

Listener = Callable[[StageStarted | StageLine | StageEnded | Heartbeat | VerdictReached], None]
