# SPDX-License-Identifier: Apache-2.0
"""The search for a run that is as simple as can be and still fails alike: delta debugging over simplifications.

What is found depends on what the trials say and on nothing else: trials go on side by side, but their answers are
taken in the order of the simplifications, so more CPUs find the same run sooner.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from testbed.minimize.simpler import Pass, Setup, Simpler, passes

_Begun = tuple[Future[tuple[str | None, float]], threading.Event]

Attempt = Callable[[Setup, threading.Event], str | None]
"""Runs a setup; the title under which it failed, empty if it did not, None if the event ended it. Used by threads."""


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        setup: the simplest run that failed alike.
        trials: answers that were asked for.
        complete: no single simplification of it fails alike; else the search was ended by its bound.
        other: titles under which simplifications failed instead, and how many.
    """

    setup: Setup
    trials: int
    complete: bool
    other: dict[str, int]


class Stopped(Exception):
    """The user ended the search."""


class _Spent(Exception):
    """No more trials are allowed.

    Attributes:
        setup: the simplest so far.
    """

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup = setup


@dataclass
class Search:
    """Looks for the simplest run with a title.

    Attributes:
        title: the failure that must stay.
        attempt: runs a setup.
        trials: bound for the answers that are asked for.
        jobs: trials side by side.
        cancelled: set by whoever wants the work to end.
        told: called with the number of a trial, what it was, the title that came of it, and how many seconds it took.
    """

    title: str
    attempt: Attempt
    trials: int
    jobs: int
    cancelled: threading.Event
    told: Callable[[int, Simpler, str, float], None]
    _known: dict[tuple[bytes, int], str] = field(default_factory=dict)
    _flying: dict[threading.Event, None] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)
    _asked: int = 0

    def run(self, setup: Setup) -> Found:
        """Simplify until nothing helps, or the bound is reached; `setup` is known to fail.

        Raises:
            Stopped: the user ended it.
        """
        watcher = threading.Thread(target=self._follow, name="cancel", daemon=True)
        watcher.start()
        try:
            with ThreadPoolExecutor(self.jobs, thread_name_prefix="trial") as threads:
                setup, complete = self._rounds(threads, setup)
        finally:
            self._ended.set()
            watcher.join()
        other = Counter(title for title in self._known.values() if title not in ("", self.title))
        return Found(setup, self._asked, complete, dict(sorted(other.items())))

    def _rounds(self, threads: ThreadPoolExecutor, setup: Setup) -> tuple[Setup, bool]:
        """Round after round until one changes nothing: then every simplification of the result was refused."""
        before = None
        while before != setup:
            before = setup
            for one in list(passes(len(setup.scenario.steps))):
                try:
                    setup = self._pass(threads, one, setup)
                except _Spent as spent:
                    return spent.setup, False
        return setup, True

    def _pass(self, threads: ThreadPoolExecutor, one: Pass, setup: Setup) -> Setup:
        """Take every simplification of a kind that helps, going on behind it: the next round looks at all again."""
        begin = 0
        while True:
            ones = list(one(setup))[begin:]
            index = self._first(threads, ones, setup)
            if index is None:
                return setup
            begin += index
            setup = ones[index].setup

    def _first(self, threads: ThreadPoolExecutor, ones: Sequence[Simpler], setup: Setup) -> int | None:
        """The first of several that fails alike, None if there is none; trials behind it are ended."""
        begun: dict[int, _Begun] = {}
        try:
            for index, one in enumerate(ones):
                for ahead in range(index, min(index + self.jobs, len(ones))):
                    if ahead not in begun and _key(ones[ahead].setup) not in self._known:
                        begun[ahead] = self._begin(threads, ones[ahead].setup)
                if self._answer(one, begun.get(index), setup) == self.title:
                    return index
            return None
        finally:
            for _, stop in begun.values():
                stop.set()
                self._flying.pop(stop, None)

    def _begin(self, threads: ThreadPoolExecutor, setup: Setup) -> _Begun:
        stop = threading.Event()
        self._flying[stop] = None
        return threads.submit(self._timed, setup, stop), stop

    def _timed(self, setup: Setup, stop: threading.Event) -> tuple[str | None, float]:
        started = time.monotonic()
        return self.attempt(setup, stop), time.monotonic() - started

    def _answer(self, one: Simpler, begun: _Begun | None, setup: Setup) -> str:
        """The title of a trial; what is known is not asked again."""
        if (known := self._known.get(_key(one.setup))) is not None or begun is None:
            return known or ""
        if self._asked == self.trials:
            raise _Spent(setup)
        title, seconds = begun[0].result()
        if title is None or self.cancelled.is_set():
            raise Stopped
        self._asked += 1
        self._known[_key(one.setup)] = title
        self.told(self._asked, one, title, seconds)
        return title

    def _follow(self) -> None:
        """Trials stop when the work is cancelled; a signal handler can only set one event."""
        while not self._ended.wait(0.1):
            if self.cancelled.is_set():
                for stop in list(self._flying):
                    stop.set()


def _key(setup: Setup) -> tuple[bytes, int]:
    return setup.text, setup.seed
