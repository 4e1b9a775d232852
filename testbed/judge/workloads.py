# SPDX-License-Identifier: Apache-2.0
"""What the programs print, as measurements: schbench (JSON and tables) and hackbench (`Time:`)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from testbed.verdict import Measurement

_HACKBENCH = re.compile(r"^Time: (\d+(?:\.\d+)?)\s*$", re.MULTILINE)
_SCHBENCH_KEY = re.compile(r"(wakeup_latency|request_latency|rps)_(?:pct(\d+(?:\.\d+)?)|(min|max|avg))")
_LARGEST = 1e15
_SCHBENCH_TITLES = {"Wakeup Latencies": "wakeup_latency", "Request Latencies": "request_latency", "RPS": "rps"}
_SCHBENCH_TABLE = re.compile(
    r"(Wakeup Latencies|Request Latencies|RPS) percentiles \(\w+\) runtime [\d.]+ \(s\) \((\d{1,15}) total samples\)"
)
_SCHBENCH_ROW = re.compile(r"\s+\*?\s*(\d{1,3}\.\d{1,4})th:\s+(\d{1,15})\s+\(\d+ samples\)")
_SCHBENCH_ENDS = re.compile(r"\s+min=(\d{1,15}), max=(\d{1,15})")
_SCHBENCH_AVERAGE = re.compile(r"average rps: (\d{1,15}(?:\.\d+)?)")


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
    """What schbench says of a run, ours or the original one, which puts sample counts into its tables only.

    JSON has the figures where there is any (`-j -`, the last line that holds some); the tables, last block of each,
    have what it lacks.
    """
    found = {one.name: one for one in _schbench_tables(name, output)}
    counts = {_what(one.name): one.samples for one in found.values() if not one.name.endswith(".avg")}
    for one in _schbench_json(name, output):
        known = one.samples or (1 if one.name.endswith(".avg") else counts.get(_what(one.name), 0))
        found[one.name] = one.model_copy(update={"samples": known})
    yield from (found[key] for key in sorted(found))


def _what(name: str) -> str:
    """`schbench.rps` of `schbench.rps.p50` and `schbench.rps.p99.9`."""
    return re.sub(r"\.(p\d+(\.\d+)?|min|max|avg)$", "", name)


def _schbench_tables(name: str, output: str) -> Iterator[Measurement]:
    what, samples = "", 0
    for line in output.splitlines():
        if header := _SCHBENCH_TABLE.match(line):
            what, samples = _SCHBENCH_TITLES[header[1]], int(header[2])
        elif average := _SCHBENCH_AVERAGE.match(line):
            what = ""
            yield Measurement(name=f"{name}.rps.avg", unit="1/s", value=float(average[1]), samples=1)
        elif what and (row := _SCHBENCH_ROW.match(line)):
            yield _figure(name, what, f"p{float(row[1]):g}", float(row[2]), samples)
        elif what and (ends := _SCHBENCH_ENDS.match(line)):
            yield _figure(name, what, "min", float(ends[1]), samples)
            yield _figure(name, what, "max", float(ends[2]), samples)
        else:
            what = ""


def _schbench_json(name: str, output: str) -> Iterator[Measurement]:
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
    for key, value in figures.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
            continue  # also what JSON does not have and Python reads: NaN, Infinity
        if key in ("average_rps", "avg_rps"):
            yield Measurement(name=f"{name}.rps.avg", unit="1/s", value=float(value), samples=1)
        elif found := _SCHBENCH_KEY.fullmatch(key):
            what, percentile, other = found.groups()
            samples = figures.get(f"{what}_samples", 0)
            counted = samples if isinstance(samples, int) and not isinstance(samples, bool) else 0
            yield _figure(name, what, f"p{float(percentile):g}" if percentile else other, float(value), counted)


def _figure(name: str, what: str, stat: str, value: float, samples: int) -> Measurement:
    unit = "1/s" if what == "rps" else "us"
    return Measurement(name=f"{name}.{what}.{stat}", unit=unit, value=value, samples=samples)
