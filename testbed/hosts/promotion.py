# SPDX-License-Identifier: Apache-2.0
"""A bundle to hosts: sent, checked there, attached as a canary, watched until it is kept or was taken back.

The connection is the scheduler's lifeline: whatever happens to this process, the host takes the scheduler back by
itself. So nothing here has to be trusted with that, and what is told is the host's word, asked for again where the
connection was lost.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from testbed.errors import ExitCode, HostError, TestbedError
from testbed.hosts.reach import Line, Reached
from testbed.hosts.resident import Document, HostSays, Resident, parse, rows, section, settled
from testbed.promote.bundle import Bundle
from testbed.report.events import Listener, StageEnded, StageLine, StageStarted
from testbed.spec import Model
from testbed.status import Status

BEAT_S = 1.0
# The watcher tells something each second; one that can't be heard for so long is lost to us.
SILENCE_S = 30.0
# What is left to a host that lost us: its lifeline's 10 s, the way back, and a slow machine.
AFTERMATH_S = 90.0
RETRY_S = 3.0

Connect = Callable[[str], Reached]


class Outcome(StrEnum):
    """How a promotion ended on one host."""

    KEPT = "kept"
    ROLLED_BACK = "rolled-back"
    REFUSED = "refused"
    STOPPED = "stopped"
    LOST = "lost"
    FAILED = "failed"
    SKIPPED = "skipped"


class Objection(Model):
    """One reason of a host's."""

    code: str
    message: str
    hint: str = ""


class HostResult(Model):
    """What became of one host."""

    host: str
    outcome: Outcome
    message: str = Field(default="", description="why, or what to know")
    hint: str = ""
    code: str = Field(default="", description="of the host's error, or the limit that was crossed")
    refusals: tuple[Objection, ...] = ()
    events: tuple[dict[str, Any], ...] = Field(default=(), description="of the watcher, without the samples")
    worst: dict[str, float] = Field(default_factory=dict, description="largest figures of the samples")
    status: dict[str, Any] | None = Field(default=None, description="asked for after the connection was lost")
    elapsed_s: float = 0.0

    @property
    def exit_code(self) -> ExitCode:
        """Of a promotion to this host alone."""
        match self.outcome:
            case Outcome.KEPT:
                return ExitCode.PASS
            case Outcome.ROLLED_BACK | Outcome.REFUSED:
                return ExitCode.REJECT
            case Outcome.STOPPED:
                return ExitCode.INTERRUPTED
            case _:
                return ExitCode.INCONCLUSIVE


class PromotionResult(Model):
    """What `testbed promote --json` prints."""

    schema_: Literal["testbed.promoted/1"] = Field(default="testbed.promoted/1", alias="schema")
    name: str
    bundle: str = Field(description="sha256 of the attestation")
    subject: str = Field(description="sha256 of the candidate's manifest")
    hosts: tuple[HostResult, ...]

    @property
    def exit_code(self) -> ExitCode:
        """The first host's that did not keep it."""
        bad = (one.exit_code for one in self.hosts if one.outcome not in (Outcome.KEPT, Outcome.SKIPPED))
        return next(bad, ExitCode.PASS)


def promote_all(
    bundle: Bundle,
    hosts: Sequence[str],
    connect: Connect,
    listener: Listener,
    cancelled: threading.Event,
    *,
    share: float = 0.0,
    before: Callable[[HostResult], None] = lambda result: None,
    known: Callable[[str, Resident], bool] = lambda host, resident: False,
) -> PromotionResult:
    """One host after another, or a share of them at a time; the first that does not keep it ends it.

    Args:
        bundle: what is promoted.
        hosts: as the user named them, in this order.
        connect: makes a connection.
        listener: is told what happens.
        cancelled: set by the user: what is in the middle is taken back.
        share: how many at a time, from 0 (one) to 1 (all).
        before: is told each result before the next hosts begin.
        known: whether this host has kept it earlier and still does.
    """
    size = max(1, math.floor(len(hosts) * share))
    results: list[HostResult] = []
    for start in range(0, len(hosts), size):
        wave = hosts[start : start + size]
        if cancelled.is_set() or any(one.outcome is not Outcome.KEPT for one in results):
            results += [HostResult(host=host, outcome=Outcome.SKIPPED, message="not tried") for host in wave]
            continue
        with ThreadPoolExecutor(len(wave), thread_name_prefix="host") as pool:
            work = [pool.submit(promote, bundle, host, connect, listener, cancelled, known) for host in wave]
            for one in work:
                results.append(one.result())
                before(results[-1])
    return PromotionResult(name=bundle.name, bundle=bundle.id, subject=bundle.subject, hosts=tuple(results))


def promote(
    bundle: Bundle,
    host: str,
    connect: Connect,
    listener: Listener,
    cancelled: threading.Event,
    known: Callable[[str, Resident], bool] = lambda host, resident: False,
) -> HostResult:
    """One host; never raises for what a host does."""
    started = time.monotonic()
    title = f"{bundle.name} on {host}"
    listener(StageStarted(stage=host, title=title))
    try:
        with contextlib.closing(connect(host)) as reached:
            resident = Resident(reached)
            if known(host, resident):
                result = HostResult(host=host, outcome=Outcome.KEPT, message="kept earlier, and still runs")
            else:
                result = _on(bundle, host, resident, listener, cancelled)
    except HostSays as error:
        outcome = Outcome.REFUSED if error.exit_code is ExitCode.REJECT else Outcome.FAILED
        result = HostResult(host=host, outcome=outcome, message=error.message, hint=error.hint, code=error.code)
    except TestbedError as error:
        result = HostResult(host=host, outcome=Outcome.FAILED, message=error.message, hint=error.hint)
    if result.outcome is Outcome.LOST:
        result = _aftermath(result, connect, bundle)
    elapsed = time.monotonic() - started
    status = {Outcome.KEPT: Status.PASS, Outcome.ROLLED_BACK: Status.FAIL, Outcome.REFUSED: Status.FAIL}
    summary = f"{result.outcome}{': ' if result.message else ''}{result.message}"
    listener(
        StageEnded(
            stage=host, title=title, status=status.get(result.outcome, Status.ERROR), elapsed_s=elapsed, summary=summary
        )
    )
    return result.model_copy(update={"elapsed_s": round(elapsed, 3)})


def _on(bundle: Bundle, host: str, resident: Resident, listener: Listener, cancelled: threading.Event) -> HostResult:
    parts = bundle.parts()
    place = resident.host.upload(parts)
    try:
        staged = resident.stage(place)
    finally:
        resident.host.discard(place, parts)
    if staged != bundle.id:
        raise HostError(f"`{host}` has staged another bundle than the one that was sent")
    try:
        told = resident.start(bundle.id)
    except HostSays as error:
        # A scheduler may be gone again before anybody has seen that it came; the record knows.
        gone = HostResult(host=host, outcome=Outcome.LOST, message=error.message, hint=error.hint, code=error.code)
        result = _by_record(gone, resident.status(), bundle)
        if result.outcome is Outcome.ROLLED_BACK:
            return result
        raise
    if told.get("started") is not True:
        return _not_started(host, told)
    result = _Watch(host, resident, listener, cancelled).hold()
    if result.outcome is Outcome.LOST:
        with contextlib.suppress(TestbedError):  # only the watcher may have gone, and the connection still be there
            return _by_record(result, settled(resident, AFTERMATH_S), bundle)
    return result


def _not_started(host: str, told: Document) -> HostResult:
    event = told.get("event")
    if isinstance(event, dict):
        message = f"it could not be attached: {event.get('message', '')}"
        return HostResult(host=host, outcome=Outcome.ROLLED_BACK, code="not-attached", message=message, events=(event,))
    refusals = tuple(
        Objection(code=str(one.get("code", "")), message=str(one.get("message", "")), hint=str(one.get("hint", "")))
        for one in rows(told, "refusals")
        if isinstance(one, dict)
    )
    message = refusals[0].message if refusals else "the host does not start it, and gives no reason"
    return HostResult(
        host=host,
        outcome=Outcome.REFUSED,
        message=message,
        hint=refusals[0].hint if refusals else "",
        code=refusals[0].code if refusals else "",
        refusals=refusals,
    )


class _Watch:
    """The canary's life as the promoter sees it."""

    def __init__(self, host: str, resident: Resident, listener: Listener, cancelled: threading.Event) -> None:
        self._host = host
        self._resident = resident
        self._listener = listener
        self._cancelled = cancelled
        self._events: list[Document] = []
        self._worst: dict[str, float] = {}
        self._stage: tuple[str, str, float] | None = None

    def hold(self) -> HostResult:
        """Beat and listen until the watcher has nothing more to say."""
        with contextlib.closing(self._resident.follow()) as line:
            for event in self._heard(line):
                self._take(event)
        ended = {str(one.get("event")): one for one in self._events}
        done, rollback = str(ended.get("done", {}).get("outcome", "")), ended.get("rollback")
        if rollback is not None:
            self._end_stage(Status.FAIL)
            message = f"{rollback.get('message') or rollback.get('limit', '')}"
            if not rollback.get("back"):
                message += "; and the host could not confirm that EEVDF is back"
            return self._result(Outcome.ROLLED_BACK, message, code=str(rollback.get("limit", "")))
        if "kept" in ended:
            self._end_stage(Status.PASS)
            return self._result(Outcome.KEPT, "")
        self._end_stage(Status.ERROR)
        if done == "stopped":
            return self._result(Outcome.STOPPED, "it was taken back by hand")
        return self._result(Outcome.LOST, "the connection was lost, and with it the scheduler's lifeline")

    def _heard(self, line: Line) -> Iterator[Document]:
        beaten = heard = time.monotonic()
        asked = False
        while line.open:
            for text in line.poll(BEAT_S / 2):
                heard = time.monotonic()
                with contextlib.suppress(ValueError):
                    yield parse(text)
            now = time.monotonic()
            if now - heard > SILENCE_S:
                return
            if self._cancelled.is_set() and not asked:
                asked = True
                self._take_back(line)
            if now - beaten >= BEAT_S:
                beaten = now
                try:
                    line.send(b"\n")
                except (OSError, EOFError):
                    return

    def _take_back(self, line: Line) -> None:
        """The user wants no more: asked for by name it counts as no failure; else the lifeline does it."""
        try:
            self._resident.stop()
        except TestbedError:
            line.end_input()

    def _take(self, event: Document) -> None:
        kind = event.get("event")
        if kind == "sample":
            for name, value in event.items():
                if isinstance(value, int | float) and name.endswith(("_us", "pressure", "_lines")):
                    self._worst[name] = max(self._worst.get(name, 0.0), float(value))
        elif kind is not None:
            self._events.append(event)
        if kind == "stage":
            self._end_stage(Status.PASS)
            name = f"{self._host} {event.get('stage')}"
            title = (
                f"{self._host}: canary {event.get('number')} of {event.get('of')}, {event.get('stage')} "
                f"({event.get('scope')})"
            )
            self._stage = (name, title, time.monotonic())
            self._listener(StageStarted(stage=name, title=title))
        told = ", ".join(f"{name} {value}" for name, value in event.items() if isinstance(value, str | int | float))
        self._listener(StageLine(stage=self._stage[0] if self._stage else self._host, text=told))

    def _end_stage(self, status: Status) -> None:
        if self._stage is not None:
            name, title, began = self._stage
            self._listener(StageEnded(stage=name, title=title, status=status, elapsed_s=time.monotonic() - began))
            self._stage = None

    def _result(self, outcome: Outcome, message: str, code: str = "") -> HostResult:
        return HostResult(
            host=self._host,
            outcome=outcome,
            message=message,
            code=code,
            events=tuple(self._events),
            worst=self._worst,
        )


def _aftermath(result: HostResult, connect: Connect, bundle: Bundle) -> HostResult:
    """What the host itself says of it, if it can be asked again."""
    deadline = time.monotonic() + AFTERMATH_S
    while result.status is None:
        left = deadline - time.monotonic()
        try:
            with contextlib.closing(connect(result.host)) as reached:
                return _by_record(result, settled(Resident(reached), max(0.0, left)), bundle)
        except TestbedError:
            if left < RETRY_S:
                hint = f"it takes it back by itself: testbed status --host {result.host}"
                return result.model_copy(update={"hint": hint})
            time.sleep(RETRY_S)
    return result


def _by_record(result: HostResult, told: Document, bundle: Bundle) -> HostResult:
    """What became of a bundle that was lost sight of, by the host's word."""
    record, kernel = section(told, "record"), section(told, "kernel")
    limit, message = str(record.get("limit") or ""), str(record.get("message") or "")
    changes: dict[str, Any] = {"status": told}
    phase = record.get("phase") if record.get("id") == bundle.id else ""
    if phase == "kept" and told.get("healthy"):
        changes |= {"outcome": Outcome.KEPT, "message": "kept, after the connection was lost"}
    elif phase == "rolled-back" and limit != "lifeline":
        changes |= {"outcome": Outcome.ROLLED_BACK, "code": limit, "message": message}
    else:
        known = f"now it says: {record.get('phase') or 'nothing was promoted'}, sched_ext {kernel.get('state')}"
        changes |= {"code": limit, "message": f"{result.message}; {known}"}
    return result.model_copy(update=changes)
