# SPDX-License-Identifier: Apache-2.0
"""The digest sees whatever a guest did or said, and not the random key of its stream."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed import digest
from testbed.case import CONSOLE_FILE, STREAM_FILE, TRACE_FILE, stream_line

EVENTS = [{"t": 1_000_000 * (n + 1), "e": "beat", "n": n} for n in range(5)]


def evidence(place: Path, *, key: bytes = b"k" * 32, console: bytes = b"<6>[    1.000000] up\n") -> Path:
    place.mkdir()
    (place / STREAM_FILE).write_bytes(b"".join(stream_line(n, key, event) for n, event in enumerate(EVENTS)))
    (place / CONSOLE_FILE).write_bytes(console)
    (place / TRACE_FILE).write_bytes(b"1000000 00000000000000aa\n2000000 00000000000000bb\n")
    return place


def test_the_key_of_the_stream_does_not_matter(tmp_path: Path) -> None:
    one, other = evidence(tmp_path / "a"), evidence(tmp_path / "b", key=b"x" * 32)
    assert (one / STREAM_FILE).read_bytes() != (other / STREAM_FILE).read_bytes()
    assert digest.of(one) == digest.of(other)
    assert digest.parting(one, other) is None


@pytest.mark.parametrize("name", digest.FILES)
@given(at=st.integers(min_value=0, max_value=10_000), bit=st.integers(min_value=0, max_value=7))
def test_every_bit_of_the_evidence_matters(
    tmp_path_factory: pytest.TempPathFactory, name: str, at: int, bit: int
) -> None:
    tmp = tmp_path_factory.mktemp("digest")
    one, other = evidence(tmp / "a"), evidence(tmp / "b")
    data = bytearray((other / name).read_bytes())
    at %= len(data)
    data[at] ^= 1 << bit
    (other / name).write_bytes(data)
    macs_apart = digest._lines(one / name) == digest._lines(other / name)
    assert (digest.of(one) == digest.of(other)) == macs_apart
    assert (digest.parting(one, other) is None) == macs_apart


def test_lines_can_not_move_between_files(tmp_path: Path) -> None:
    one = evidence(tmp_path / "a")
    other = evidence(tmp_path / "b")
    (one / CONSOLE_FILE).write_bytes(b"x\ny\n")
    (one / TRACE_FILE).write_bytes(b"")
    (other / CONSOLE_FILE).write_bytes(b"x\n")
    (other / TRACE_FILE).write_bytes(b"y\n")
    assert digest.of(one) != digest.of(other)


def test_they_part_where_the_guests_time_is_smallest(tmp_path: Path) -> None:
    one, other = evidence(tmp_path / "a"), evidence(tmp_path / "b", console=b"<6>[    1.000000] down\n")
    lines = (other / STREAM_FILE).read_bytes().split(b"\n")
    lines[3] = lines[3].replace(b'"n":3', b'"n":4')
    (other / STREAM_FILE).write_bytes(b"\n".join(lines))
    found = digest.parting(one, other)
    assert found is not None
    assert (found.file, found.line, found.at_ns) == (STREAM_FILE, 4, 4_000_000)
    assert (found.first, found.second) == (
        b'3 {"t":4000000,"e":"beat","n":3}',
        b'3 {"t":4000000,"e":"beat","n":4}',
    )


def test_a_run_that_ended_earlier_parts_at_its_end(tmp_path: Path) -> None:
    one, other = evidence(tmp_path / "a"), evidence(tmp_path / "b")
    data = (other / CONSOLE_FILE).read_bytes()
    (one / CONSOLE_FILE).write_bytes(data + b"<6>[    2.500000] more\n")
    found = digest.parting(one, other)
    assert found is not None
    assert (found.file, found.line, found.at_ns) == (CONSOLE_FILE, 2, 2_500_000_000)
    assert found.second == b""


def test_evidence_that_is_missing_is_empty(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert digest.of(tmp_path / "a") == digest.of(tmp_path / "b")
