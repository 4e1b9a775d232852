# SPDX-License-Identifier: Apache-2.0
"""Engines: a RunSpec in, an evidence directory out, inputs by their hash, and nothing else.

`local` boots the guest here. `cached` asks the cache first, and is an engine around another one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from testbed.spec import RunSpec


@dataclass(frozen=True)
class Executed:
    """How the evidence of a run came about.

    Attributes:
        cached: it was taken from an earlier run of the same inputs.
        confirmed: that run has been repeated, with the same digest.
    """

    cached: bool = False
    confirmed: bool = False


class Engine(Protocol):
    """Turns specs into evidence. Called from several threads at once."""

    def execute(
        self, spec: RunSpec, directory: Path, stop: threading.Event, line: Callable[[str], None]
    ) -> Executed | None:
        """Run one guest; None if `stop` ended it, and then `directory` is not there.

        Args:
            spec: what to run; `spec.files` and `spec.image` name inputs by hash.
            directory: where the evidence goes; made here.
            stop: set by whoever does not want the run any more.
            line: called with each line of the stream as it comes; for people only.

        Raises:
            HostError: this machine can't run it, or can't keep its evidence.
        """
