# SPDX-License-Identifier: Apache-2.0
"""What the programs of the image print, as measurements: schbench (JSON) and hackbench (`Time:`)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from testbed.verdict import Measurement

_HACKBENCH = re.compile(r"^Time: (\d+(?:\.\d+)?)\s*$", re.MULTILINE)
_SCHBENCH_KEY = re.compile(r"(wakeup_latency|request_latency|rps)_(?:pct(\d+(?:\.\d+)?)|(min|max|avg))")


def measurements(program: str, name: str, output: str) -> tuple[Measurement, ...]:
    """What `output` of the program says, named `NAME.…`; empty if it says nothing that we know."""
    match Path(program).name:
        case "schbench":
            return tuple(_schbench(name, output))
        case "hackbench":
            return tuple(_hackbench(name, output))
        case _:
            return ()


def _hackbench(name: str, output: str) -> Iterator[Measurement]:
    times = _HACKBENCH.findall(output)
    if times:
        yield Measurement(name=f"{name}.time", unit="s", value=float(times[-1]), samples=len(times))


def _schbench(name: str, output: str) -> Iterator[Measurement]:
    """schbench's `int` object; its last line on stdout. Sample counts are `wakeup_latency_samples` and so on."""
    for line in reversed(output.splitlines()):
        if not line.lstrip().startswith("{"):
            continue
        try:
            figures = json.loads(line).get("int")
        except (ValueError, RecursionError, AttributeError):
            continue
        if isinstance(figures, dict):
            break
    else:
        return
    for key in sorted(figures):
        value = figures[key]
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if key in ("average_rps", "avg_rps"):
            yield Measurement(name=f"{name}.rps.avg", unit="1/s", value=float(value), samples=1)
            continue
        found = _SCHBENCH_KEY.fullmatch(key)
        if found is None:
            continue
        what, percentile, other = found.groups()
        samples = figures.get(f"{what}_samples", 0)
        stat = f"p{float(percentile):g}" if percentile else other
        yield Measurement(
            name=f"{name}.{what}.{stat}",
            unit="1/s" if what == "rps" else "us",
            value=float(value),
            samples=samples if isinstance(samples, int) and not isinstance(samples, bool) else 0,
        )
