# SPDX-License-Identifier: Apache-2.0
"""A guest made of a script: says what it is told to, and gets lost in every way a real one can.

All verdict logic, the pool and the case's files are tested with it, without QEMU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from testbed.case import CONSOLE_FILE, QEMU_LOG_FILE, STREAM_FILE, Ended, GuestOutcome, stream_line
from testbed.vm.guest import Boot

Event = Mapping[str, object]


@dataclass(frozen=True)
class Script:
    """What a fake guest says and how it ends.

    Attributes:
        events: sent in order, signed with the run's key.
        raw: bytes put after them as they are: half a line, garbage, a forged line.
        console: what the kernel says.
        hang: never ends by itself.
    """

    events: tuple[Event, ...] = ()
    raw: bytes = b""
    console: bytes = b""
    ended: Ended = Ended.FINISHED
    reason: str = ""
    hang: bool = False


@dataclass
class FakeGuest:
    """Plays a script."""

    boot_: Boot
    script: Script
    closed: int = field(default=0)

    def boot(self) -> None:
        """Write what the guest says."""
        directory = self.boot_.directory
        lines = (stream_line(n, self.boot_.key, event) for n, event in enumerate(self.script.events))
        (directory / STREAM_FILE).write_bytes(b"".join(lines) + self.script.raw)
        (directory / CONSOLE_FILE).write_bytes(self.script.console)
        (directory / QEMU_LOG_FILE).write_bytes(b"")

    def run(self) -> GuestOutcome:
        """End as the script says; a guest that hangs ends when it is cancelled or at its wall limit."""
        ended = self.script.ended
        if self.script.hang:
            cancelled = self.boot_.cancelled.wait(self.boot_.spec.wall_limit_s)
            ended = Ended.INTERRUPTED if cancelled else Ended.WALL_LIMIT
        return GuestOutcome(accelerator="fake", qemu="fake", ended=ended, reason=self.script.reason)

    def diagnose(self) -> str:
        """Nothing to say."""
        return ""

    def close(self) -> None:
        """Count, so that a test can see it."""
        self.closed += 1
