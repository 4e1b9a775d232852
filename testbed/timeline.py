# SPDX-License-Identifier: Apache-2.0
"""Who ran where and who waited: a run's switches and wake-ups (`trace` events) as pieces of time.

The runner's lines carry a MAC, but a case may be anybody's: what does not look like a record is counted and dropped.
All times are ns of the guest's CLOCK_MONOTONIC.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from testbed.case import Event, RunEvidence, Stream, printable

IDLE = 0
UNKNOWN = -1
"""Stands for the task of a CPU of which no switch was seen."""

MAX_CPUS = 1024
MAX_RECORDS = 200_000
NS_PER_US = 1_000
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
LATE = 100 * NS_PER_MS
"""From the last record to the moment when a wait was told: what is later is no part of the recording."""

_STALLED = re.compile(r"\[(\d{1,9})\] failed to run for (\d{1,6}\.\d+)s")


@dataclass(frozen=True)
class Task:
    """A task as the guest named it; the name is the guest's, so a stranger's."""

    pid: int
    comm: str = ""
    kthread: bool = False

    @property
    def name(self) -> str:
        """How people call it."""
        return f"{self.comm or 'task'}[{self.pid}]"


@dataclass(frozen=True)
class Piece:
    """A task had a CPU; `pid` is `IDLE` where nobody had it, `UNKNOWN` where nothing is known."""

    cpu: int
    pid: int
    start: int
    end: int


@dataclass(frozen=True)
class Wait:
    """A task was runnable and did not run.

    Attributes:
        cpu: where it was put or had run, -1 if that was not seen.
        seen: whether its beginning was seen, or it waited already when the trace began.
        over: whether it ran in the end.
    """

    pid: int
    cpu: int
    start: int
    end: int
    seen: bool = True
    over: bool = True

    @property
    def length(self) -> int:
        """How long."""
        return self.end - self.start


@dataclass(frozen=True)
class Timeline:
    """What the recorder kept: the last part of a run.

    Attributes:
        cpus: how many CPUs the guest had.
        pieces: by CPU, in order, without gaps from `start` to `end`.
        waits: in order of their beginnings.
        lost: records that the recorder had no room for.
    """

    cpus: int
    start: int
    end: int
    pieces: tuple[tuple[Piece, ...], ...]
    waits: tuple[Wait, ...]
    tasks: Mapping[int, Task]
    lost: int = 0
    malformed: int = 0

    def task(self, pid: int) -> Task:
        """A task, also one that the guest did not name."""
        return self.tasks.get(pid, Task(pid))

    def longest(self) -> Wait | None:
        """The longest wait of all, None if nobody waited."""
        return max(self.waits, key=lambda wait: (wait.length, -wait.start), default=None)


@dataclass(frozen=True)
class Focus:
    """The task that somebody looks for, and its wait.

    Attributes:
        since: when it began to wait.
        until: when it ran, or when somebody noticed that it did not.
        seen: whether the trace shows how its wait began.
        noticed: what happened at `until`, in a few words.
        allowed: CPUs that it may use, None if that is not known.
    """

    pid: int
    since: int
    until: int
    seen: bool
    noticed: str
    allowed: frozenset[int] | None = None


@dataclass
class _Reader:
    """Records in, pieces and waits out."""

    cpus: int
    start: int
    running: dict[int, tuple[int, int]] = field(default_factory=dict)
    waiting: dict[int, tuple[int, int]] = field(default_factory=dict)
    known: set[int] = field(default_factory=set)
    pieces: list[list[Piece]] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)

    def switch(self, t: int, cpu: int, left: int, state: int, came: int) -> None:
        """One task leaves a CPU, another one comes."""
        pid, since = self.running.get(cpu, (left, self.start))
        if pid != left:
            # Records between them were lost, or the recorder stood still: who waited meanwhile is not known either.
            pid = UNKNOWN
            self.waiting.clear()
        self.pieces[cpu].append(Piece(cpu, pid, since, t))
        self.running[cpu] = (came, t)
        if left != IDLE:
            self.known.add(left)
            self.waiting.pop(left, None)
            if state == 1:
                self.waiting[left] = (t, cpu)
        if came != IDLE:
            if came in self.waiting:
                began, place = self.waiting.pop(came)
                self.waits.append(Wait(came, place, began, t))
            elif came not in self.known:
                self.waits.append(Wait(came, -1, self.start, t, seen=False))
            self.known.add(came)

    def wake(self, t: int, cpu: int, pid: int) -> None:
        """A task becomes runnable."""
        self.known.add(pid)
        if pid not in self.waiting and all(who != pid for who, _ in self.running.values()):
            self.waiting[pid] = (t, cpu)

    def finish(self, end: int) -> None:
        """Nothing more is known."""
        for cpu in range(self.cpus):
            pid, since = self.running.get(cpu, (UNKNOWN, self.start))
            self.pieces[cpu].append(Piece(cpu, pid, since, end))
        self.waits += [Wait(pid, cpu, began, end, over=False) for pid, (began, cpu) in self.waiting.items()]


def read(stream: Stream) -> Timeline | None:
    """The timeline of a run, None if nothing was recorded."""
    lines = stream.of("trace")
    found: list[tuple[int, list[int]]] = []
    malformed = 0
    for line in lines:
        records = line.fields.get("r")
        for record in records if isinstance(records, list) else ():
            if not _is_record(record):
                malformed += 1
                continue
            t = line.integer("base") + record[0] * NS_PER_US
            if (found and t < found[-1][0]) or len(found) == MAX_RECORDS:
                malformed += 1
                continue
            found.append((t, record))
    if not found:
        return None
    # CPUs that are there but did nothing have a lane too, and one that has gone meanwhile keeps its own.
    cpus = max(
        *(min(MAX_CPUS, line.integer("cpus")) for line in lines),
        *(record[1] + 1 for _, record in found),
    )
    reader = _Reader(cpus, start=found[0][0], pieces=[[] for _ in range(cpus)])
    for t, (_, cpu, *rest) in found:
        if len(rest) == 1:
            reader.wake(t, cpu, *rest)
        else:
            reader.switch(t, cpu, *rest)
    # It is told when the recorder has just stopped. What comes later than that, nobody watched.
    last, told = found[-1][0], lines[0].t
    end = told if last < told <= last + LATE else last
    reader.finish(end)
    return Timeline(
        cpus=cpus,
        start=found[0][0],
        end=end,
        pieces=tuple(tuple(piece for piece in lane if piece.end > piece.start) for lane in reader.pieces),
        waits=tuple(sorted((wait for wait in reader.waits if wait.end > wait.start), key=lambda one: one.start)),
        tasks=_names(stream),
        lost=sum(max(0, line.integer("lost")) for line in lines),
        malformed=malformed,
    )


def _is_record(record: object) -> bool:
    return (
        isinstance(record, list)
        and len(record) in (3, 5)
        and all(isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 for value in record)
        and record[1] < MAX_CPUS
        and (len(record) == 3 or record[3] in (0, 1, 2))
    )


def _names(stream: Stream) -> dict[int, Task]:
    found: dict[int, Task] = {}
    for event in stream.of("names"):
        tasks = event.fields.get("tasks")
        for entry in tasks if isinstance(tasks, list) else ():
            match entry:
                case [int(pid), str(comm), kthread]:
                    found[pid] = Task(pid, printable(comm, 20), bool(kthread))
    return found


def focus(timeline: Timeline, run: RunEvidence, event: Event | None = None) -> Focus | None:
    """The wait that a picture is about: that of the task which an event names, else the longest that was seen.

    Args:
        event: what a finding points to; without one, the first event of the run that names a waiting task.
    """
    named = [event] if event is not None else []
    named += run.stream.of("starving", "exit")
    for one in named:
        found = _named(timeline, run, one)
        if found is not None:
            return found
    wait = timeline.longest()
    if wait is None:
        return None
    return Focus(wait.pid, wait.start, wait.end, wait.seen, "it runs" if wait.over else "the trace ends")


def _named(timeline: Timeline, run: RunEvidence, event: Event) -> Focus | None:
    match event.name:
        case "starving":
            pid = _starving(event)
            # It is told of again and again; the recorder stops at the first time.
            event = next(one for one in run.stream.of("starving") if _starving(one) == pid)
            waited, noticed = event.integer("waited_ms") * NS_PER_MS, "the testbed notices"
            since = event.t - waited
        case "exit":
            stalled = _STALLED.search(event.text("message") or event.text("reason"))
            if stalled is None:
                return None
            pid, waited, noticed = (
                int(stalled[1]),
                round(float(stalled[2]) * NS_PER_S),
                "the watchdog ejects the scheduler",
            )
            since = min(event.t, timeline.end) - waited
        case _:
            return None
    until = max(timeline.start, min(event.t, timeline.end))
    if event.t - timeline.end > LATE and event.name == "starving":
        noticed = "the recording ends"
    # After the kernel has ejected the scheduler the task runs at once, a moment before the recorder stops.
    waits = [wait for wait in timeline.waits if wait.pid == pid and wait.start < until <= wait.end + LATE]
    longest = max(waits, key=lambda wait: wait.length, default=None)
    seen = longest is not None and longest.seen
    if longest is not None and seen:
        since = longest.start
        if event.name == "exit":
            # The kernel looked so long after it; to say so on a slow console took its time.
            until = min(until, since + waited)
    return Focus(
        pid,
        since=min(since, until),
        until=until,
        seen=seen,
        noticed=noticed,
        allowed=_cpu_list(event.text("allowed")),
    )


def _starving(event: Event) -> int:
    return event.integer("tid") or event.integer("pid")


def _cpu_list(text: str) -> frozenset[int] | None:
    """CPUs in the kernel's notation, `0-2,5`; None if it is none."""
    if not re.fullmatch(r"\d{1,4}(?:-\d{1,4})?(?:,\d{1,4}(?:-\d{1,4})?)*", text):
        return None
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), min(MAX_CPUS, int(last or first) + 1)))
    return frozenset(found)


def within(pieces: Sequence[Piece], start: int, end: int) -> Iterator[Piece]:
    """What lies between two moments, cut at them."""
    for piece in pieces:
        if piece.end > start and piece.start < end:
            yield Piece(piece.cpu, piece.pid, max(start, piece.start), min(end, piece.end))


def shares(timeline: Timeline, cpu: int, start: int, end: int) -> dict[int, float]:
    """Who had a CPU between two moments, as parts of that time; most first."""
    found: dict[int, float] = {}
    for piece in within(timeline.pieces[cpu], start, end):
        found[piece.pid] = found.get(piece.pid, 0.0) + (piece.end - piece.start) / max(1, end - start)
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
