# SPDX-License-Identifier: Apache-2.0
"""What a guest did and said, as one hash, and where two runs of the same inputs part.

The digest covers the stream without its MACs (their key is random), the console, and QEMU's own record of which vCPU
ran when. Two sim runs of one spec have the same digest on any machine (docs/parallel_time.md argues why).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from testbed.case import CONSOLE_FILE, STREAM_FILE, TRACE_FILE

_SEALED = re.compile(rb"(\d{1,18}) [0-9a-f]{32} (\{[\x20-\x7e]*\})")
_STREAM_TIME = re.compile(rb'\d+ \{"t":(\d{1,18}),')
_CONSOLE_TIME = re.compile(rb"(?:<\d+>)?\[ *(\d{1,9})\.(\d{6})\]")
_TRACE_TIME = re.compile(rb"(\d{1,19}) ")
MAX_SHOWN = 200


def unsealed(line: bytes) -> bytes:
    """A line of the stream without its MAC; any other line as it is."""
    found = _SEALED.fullmatch(line)
    return found[1] + b" " + found[2] if found else line


def _lines(path: Path) -> list[bytes]:
    """The lines of an evidence file; one that is missing is empty."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    lines = data.split(b"\n")
    return [unsealed(line) for line in lines] if path.name == STREAM_FILE else lines


FILES = (STREAM_FILE, CONSOLE_FILE, TRACE_FILE)


def of(directory: Path) -> str:
    """SHA-256 over everything that the guest of a run's directory did and said, in hex."""
    digest = hashlib.sha256()
    for name in FILES:
        lines = _lines(directory / name)
        digest.update(f"{name} {len(lines)}\n".encode("ascii"))
        for line in lines:
            digest.update(b"%d " % len(line) + line)
    return digest.hexdigest()


@dataclass(frozen=True)
class Parting:
    """The first place where two runs differ.

    Attributes:
        file: name of the evidence file.
        line: its line, from 1.
        at_ns: the guest's time there, None where the lines have none.
        first, second: the two lines, unsealed; empty where one run has ended.
    """

    file: str
    line: int
    at_ns: int | None
    first: bytes
    second: bytes


def parting(first: Path, second: Path) -> Parting | None:
    """Where two runs part first in guest time; None if they are the same."""
    found = [place for name in FILES for place in _parting(name, first / name, second / name)]
    return min(found, key=lambda place: (place.at_ns is None, place.at_ns or 0), default=None)


def _parting(name: str, first: Path, second: Path) -> Iterator[Parting]:
    ones, others = _lines(first), _lines(second)
    for index in range(max(len(ones), len(others))):
        one = ones[index] if index < len(ones) else b""
        other = others[index] if index < len(others) else b""
        if one != other or (index < len(ones)) != (index < len(others)):
            times = [at for line in (one, other) if (at := _TIMES[name](line)) is not None]
            yield Parting(name, index + 1, min(times, default=None), one[:MAX_SHOWN], other[:MAX_SHOWN])
            return


def _stream_time(line: bytes) -> int | None:
    found = _STREAM_TIME.match(line)
    return int(found[1]) if found else None


def _console_time(line: bytes) -> int | None:
    found = _CONSOLE_TIME.match(line)
    return int(found[1]) * 10**9 + int(found[2]) * 1000 if found else None


def _trace_time(line: bytes) -> int | None:
    found = _TRACE_TIME.match(line)
    return int(found[1]) if found else None


_TIMES: dict[str, Callable[[bytes], int | None]] = {
    STREAM_FILE: _stream_time,
    CONSOLE_FILE: _console_time,
    TRACE_FILE: _trace_time,
}
