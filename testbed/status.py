# SPDX-License-Identifier: Apache-2.0
"""How a run, a check or a scenario ended, and how several endings roll up into one."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Status(StrEnum):
    """Worst first, in the order of kcidb.

    FAIL: the candidate is at fault. ERROR: the test broke. MISS: it could not run. PASS: it ran and
    nothing was found. DONE: it only measured. SKIP: it does not apply.
    """

    FAIL = "FAIL"
    ERROR = "ERROR"
    MISS = "MISS"
    PASS = "PASS"
    DONE = "DONE"
    SKIP = "SKIP"

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return list(Status).index(self)


def worst(statuses: Iterable[Status]) -> Status:
    """The status that decides among `statuses`; MISS if there are none, since nothing ran."""
    return min(statuses, key=lambda status: status.rank, default=Status.MISS)
