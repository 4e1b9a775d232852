# SPDX-License-Identifier: Apache-2.0
"""What programs print, as measurements: schbench, hackbench, cyclictest, rt-app, and what the user says is read."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from testbed.scenario.model import Reading
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
_PERCENTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))
_DIGITS = re.compile(r"\d{1,15}", re.ASCII)
_RT_APP_ROW = re.compile(r"\s*\d{1,4}" + r"\s+(\d{1,15})" * 6 + r"\s+(-?\d{1,15})" + r"\s+(\d{1,15})" * 3, re.ASCII)
SHARE = "share"
"""Unit of a part of a whole, from 0 to 1."""


_NUMBER = re.compile(r"[+]?(\d{1,20}(\.\d{0,20})?|\.\d{1,20})([eE][-+]?\d{1,3})?")
MAX_READ = 64 << 10
"""Of an output whose meaning the user tells, only the last of it is looked at."""
MAX_LINE = 1000


def read_figure(name: str, reading: Reading, output: str) -> Measurement | None:
    """The number that `output` holds where `reading` says; None if there is none.

    Whatever the output is, this ends and raises nothing; a line's first 1000 characters are matched.
    """
    tail = output[-MAX_READ:]
    values: list[float] = []
    if reading.regex is not None:
        pattern = re.compile(reading.regex, re.ASCII)
        matches = (pattern.search(line[:MAX_LINE]) for line in tail.splitlines())
        values = [value for found in matches if found is not None and (value := _value(found[1])) is not None]
    elif reading.json_path is not None:
        for texts in (tail.splitlines(), [tail[max(0, tail.find("{")) :]]):
            found = (_at(_parsed(text), reading.json_path) for text in texts)
            values = values or [value for value in found if value is not None]
    if not values:
        return None
    return Measurement(name=name, unit=reading.unit, value=values[-1], samples=len(values))


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _at(value: object, path: str) -> float | None:
    """The number at a place such as `latency.p99`, or `runs.0.time`."""
    for key in path.split("."):
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and key.isascii() and key.isdigit() and len(key) < 6 and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    return _value(value) if isinstance(value, str) else _bounded(value)


def _value(text: str | None) -> float | None:
    return _bounded(float(text)) if text is not None and _NUMBER.fullmatch(text) else None


def _bounded(number: float) -> float | None:
    """The number, if it is one that can be compared: neither negative nor beyond all bounds."""
    return float(number) if 0 <= number < _LARGEST else None


def measurements(program: str, name: str, output: str) -> tuple[Measurement, ...]:
    """What `output` of the program says, named `NAME.…`; empty if it says nothing that we know."""
    match Path(program).name:
        case "schbench":
            return tuple(_schbench(name, output))
        case "hackbench":
            return tuple(_hackbench(name, output))
        case "cyclictest":
            return tuple(_cyclictest(name, output))
        case "rt-app":
            return tuple(_rt_app(name, output))
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


def _cyclictest(name: str, output: str) -> Iterator[Measurement]:
    """How late cyclictest's threads woke up, all together: `NAME.latency.STAT`, from the histograms of its `--json`.

    What is beyond the histogram was counted, but not how late it was: it is taken to be as late as the worst.
    """
    counts: Counter[int] = Counter()
    for thread in _cyclictest_threads(output):
        cycles, worst, histogram = _count(thread.get("cycles")), _count(thread.get("max")), thread.get("histogram")
        if not cycles or worst is None or not isinstance(histogram, dict):
            continue
        seen = {int(key): found for key, one in histogram.items() if _DIGITS.fullmatch(key) and (found := _count(one))}
        if sum(seen.values()) > cycles or any(late > worst for late in seen):
            continue  # it contradicts itself
        counts.update(seen)
        counts[worst] += cycles - sum(seen.values())
    yield from _distribution(f"{name}.latency", counts)


def _cyclictest_threads(output: str) -> Iterator[dict[str, Any]]:
    """The threads of the first JSON document. What other programs of the same log say stands before or behind it."""
    start = output.find("{\n")
    if start < 0:
        return
    try:
        document, _ = json.JSONDecoder().raw_decode(output, start)
    except (ValueError, RecursionError):
        return
    threads = document.get("thread")
    if isinstance(threads, dict):
        yield from (thread for thread in threads.values() if isinstance(thread, dict))


def _count(value: object) -> int | None:
    """A number of things or of µs; None for what can't be one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST else None


def _rt_app(name: str, output: str) -> Iterator[Measurement]:
    """Periods of rt-app's tasks, all together, from the rows of its logs.

    A row has the period that was asked for and the slack: what was left of it when the work was done, below zero if
    nothing was. `NAME.response.STAT` is the time from a period's begin to the end of its work, `NAME.missed` the share
    of periods whose work was not done within.
    """
    responses: Counter[int] = Counter()
    missed = 0
    for line in output.splitlines():
        row = _RT_APP_ROW.fullmatch(line)
        if row is None:
            continue
        slack, period = int(row[7]), int(row[9])
        if slack > period or not period:
            continue  # done before it began
        responses[period - slack] += 1
        missed += slack < 0
    if responses:
        total = responses.total()
        yield Measurement(name=f"{name}.missed", unit=SHARE, value=missed / total, samples=total)
    yield from _distribution(f"{name}.response", responses)


def _distribution(name: str, counts: Counter[int]) -> Iterator[Measurement]:
    """Percentiles of µs that were counted: the smallest value that so large a part does not exceed."""
    total = counts.total()
    if not total:
        return
    values, reached, left = sorted(value for value in counts if counts[value]), 0, list(_PERCENTILES)
    for value in values:
        reached += counts[value]
        while left and reached >= left[0][1] * total:
            yield Measurement(name=f"{name}.{left.pop(0)[0]}", unit="us", value=float(value), samples=total)
