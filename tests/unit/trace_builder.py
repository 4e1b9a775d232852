# SPDX-License-Identifier: Apache-2.0
"""Traces as the guest's recorder tells them, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BASE = 5_000_000_000
Record = Sequence[int]


def trace_events(
    records: Sequence[Record], names: Sequence[tuple[int, str, int]], *, cpus: int = 2, base: int = BASE, lost: int = 0
) -> list[dict[str, Any]]:
    """Extra events of a script: `trace` lines of 100 records each, then `names`."""
    lines = [
        {
            "e": "trace",
            "base": base,
            "cpus": cpus,
            "lost": 0 if begin else lost,
            "r": [list(one) for one in records[begin : begin + 100]],
        }
        for begin in range(0, len(records), 100)
    ]
    return [*lines, {"e": "names", "tasks": [list(one) for one in names]}]


STARVED = 311
NAMES = ((301, "worker", 0), (302, "build", 0), (STARVED, "backup", 0), (12, "kworker/0:1", 1))


def starvation(wait_us: int = 700_000) -> list[list[int]]:
    """Two CPUs: two spinning tasks share the first one, the other one is mostly idle; a third task wakes up and waits.

    Times are µs after `BASE`; it becomes runnable at 40 ms, and something happens at the end.
    """
    woken = 40_000
    records: list[list[int]] = [[0, 0, 0, 0, 301], [10, 1, 302, 0, 0]]
    turn = [301, 302]
    for t in range(4_000, woken + wait_us, 4_000):
        left, came = turn
        records.append([t, 0, left, 1, came])
        turn.reverse()
        if t % 20_000 == 0:
            records += [[t + 100, 1, 12], [t + 110, 1, 0, 0, 12], [t + 400, 1, 12, 0, 0]]
    records += [[woken + 50, 1, STARVED], [woken + wait_us, 1, 12]]
    return sorted(records)
