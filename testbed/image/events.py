# SPDX-License-Identifier: Apache-2.0
"""What a build tells while it works: the testbed's event stream (`testbed.report.events`), with the log beside it."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

from testbed.errors import HostError, TestbedError
from testbed.report.events import Listener, StageEnded, StageLine, StageStarted
from testbed.status import Status

_TAIL_LINES = 20


class Reporter:
    """Tells the listener about stages, and keeps everything that was said in a file.

    Args:
        listener: called from one thread at a time.
        log: file that gets it all, with the commands.
    """

    def __init__(self, listener: Listener, log: Path) -> None:
        self._listener = listener
        self._lock = Lock()
        self.path = log
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")

    @contextlib.contextmanager
    def stage(self, name: str, title: str) -> Iterator[Stage]:
        """A stage: started now, ended with the block, its tail in the error if it fails."""
        stage = Stage(self, name)
        started = time.monotonic()
        with self._lock:
            self._listener(StageStarted(stage=name, title=title))
        self.write(f"== {name}: {title}\n")
        try:
            yield stage
        except BaseException as error:
            elapsed = time.monotonic() - started
            self.write(f"== {name}: failed after {elapsed:.1f} s: {error}\n")
            self._ended(name, title, Status.ERROR, elapsed, str(error).partition("\n")[0])
            raise
        elapsed = time.monotonic() - started
        self.write(f"== {name}: done in {elapsed:.1f} s {stage.summary}\n")
        self._ended(name, title, Status.DONE, elapsed, stage.summary)

    def _ended(self, name: str, title: str, status: Status, elapsed: float, summary: str) -> None:
        with self._lock:
            self._listener(StageEnded(stage=name, title=title, status=status, elapsed_s=elapsed, summary=summary))

    def line(self, name: str, text: str) -> None:
        """A line of a stage."""
        self.write(f"{name}: {text}\n")
        with self._lock:
            self._listener(StageLine(stage=name, text=text))

    def write(self, text: str) -> None:
        """Add to the log; a full disk is noticed elsewhere."""
        with contextlib.suppress(OSError), self._lock, self.path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(text)


class Stage:
    """What the work of one stage says.

    Attributes:
        summary: a few words for the end of the stage.
    """

    def __init__(self, reporter: Reporter, name: str) -> None:
        self._reporter = reporter
        self._name = name
        self._partial = b""
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self.summary = ""

    def line(self, text: str) -> None:
        """Say a line."""
        self._tail.append(text)
        self._reporter.line(self._name, text)

    def command(self, text: str) -> None:
        """Note a command for the log, as a shell would take it."""
        self._reporter.write(f"{self._name}$ {text}\n")

    def output(self, data: bytes) -> None:
        """Take output of a command, in pieces that need not end with a line."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self.line(line.decode("utf-8", "replace").rstrip("\r"))

    @property
    def tail(self) -> str:
        """The last lines."""
        return "\n".join(self._tail)

    def failed(self, what: str, hint: str = "") -> TestbedError:
        """The error for a command that failed: what, the tail of what it said, where the rest is."""
        if self._partial:
            self.output(b"\n")
        tail = "".join(f"\n    {line}" for line in self._tail)
        return HostError(f"{what}{tail}\n    the whole log: {self._reporter.path}", hint=hint)
