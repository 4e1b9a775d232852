# SPDX-License-Identifier: Apache-2.0
"""The Guest protocol: a machine is booted, runs its job, is asked what went wrong, and is closed.

The job, the files and the key go in through `fw_cfg`, the stream comes out through `isa-debugcon`
(docs/reference/guest-protocol.md), so a back end only has to start a machine and say how it ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from testbed.case import GuestOutcome
from testbed.image import Image
from testbed.spec import RunSpec

# What a guest may write into one file before it is cut; a runaway console must not fill the host.
STREAM_LIMIT = 32 << 20


@dataclass(frozen=True)
class Boot:
    """One guest to be booted.

    Attributes:
        spec: what is to be done.
        image: kernel, root and QEMU.
        directory: the run's directory; gets stream, console.log, qemu.log and command.txt.
        files: the cpio archive that the runner unpacks.
        key: 32 bytes, the key of the stream.
        cancelled: set by anybody to end the guest.
        line: called with each line of the stream as it comes, unverified; for progress only.
    """

    spec: RunSpec
    image: Image
    directory: Path
    files: Path
    key: bytes
    cancelled: threading.Event
    line: Callable[[str], None]


class Guest(Protocol):
    """A machine. `close` may be called at any time, more than once, and leaves nothing behind."""

    def boot(self) -> None:
        """Start the machine.

        Raises:
            HostError: the host can't run it.
        """

    def run(self) -> GuestOutcome:
        """Wait until the machine ended, by itself or by a limit; late messages have arrived."""

    def diagnose(self) -> str:
        """A few words of QEMU itself about what went wrong; empty if it said nothing."""

    def close(self) -> None:
        """End the machine and everything that was started for it."""
