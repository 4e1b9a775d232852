# SPDX-License-Identifier: Apache-2.0
"""The case on disk: written whole or not at all, read with suspicion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.case import (
    Case,
    DamagedCaseError,
    canonical_json,
    parse_stream,
    printable,
    stream_line,
    write_atomic,
)
from testbed.errors import UsageError
from tests.unit.case_builder import KEY, CaseBuilder

EVENTS = st.lists(
    st.fixed_dictionaries(
        {"t": st.integers(0, 2**62), "e": st.sampled_from(("beat", "log", "measure"))},
        optional={"text": st.text(max_size=40), "value": st.floats(allow_nan=False, allow_infinity=False)},
    ),
    max_size=12,
)


def lines_of(events: list[dict[str, object]], key: bytes = KEY) -> list[bytes]:
    return [stream_line(number, key, event) for number, event in enumerate(events)]


@given(EVENTS)
def test_what_the_runner_wrote_is_read_back(events: list[dict[str, object]]) -> None:
    stream = parse_stream(b"".join(lines_of(events)), KEY)
    assert [dict(event.fields) for event in stream.events] == events
    assert stream.damage == ()
    assert not stream.cut


@given(EVENTS.filter(bool), st.data())
def test_another_key_makes_no_event(events: list[dict[str, object]], data: st.DataObject) -> None:
    other = data.draw(st.binary(min_size=32, max_size=32).filter(lambda key: key != KEY))
    stream = parse_stream(b"".join(lines_of(events, other)), KEY)
    assert stream.events == ()
    assert len(stream.damaged("forged")) == len(events)


@given(EVENTS.filter(bool), st.data())
def test_a_changed_byte_never_makes_another_event(events: list[dict[str, object]], data: st.DataObject) -> None:
    raw = bytearray(b"".join(lines_of(events)))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    stream = parse_stream(bytes(raw), KEY)
    assert all(dict(event.fields) in events for event in stream.events)
    assert all(dict(event.fields) == events[event.seq] for event in stream.events)


@given(st.binary(max_size=400))
def test_no_bytes_make_the_parser_fail(data: bytes) -> None:
    stream = parse_stream(data, KEY)
    assert stream.events == ()


@given(EVENTS.filter(bool), st.data())
def test_a_line_that_is_left_out_is_missed(events: list[dict[str, object]], data: st.DataObject) -> None:
    lines = lines_of(events)
    gone = data.draw(st.integers(0, len(lines) - 1))
    stream = parse_stream(b"".join(lines[:gone] + lines[gone + 1 :]), KEY)
    assert len(stream.events) == len(events) - 1
    # The end of a stream is told by its `end` event, not by its numbers.
    assert bool(stream.damaged("missing")) == (gone < len(lines) - 1)


def test_the_firmwares_words_come_before_the_first_event() -> None:
    lines = lines_of([{"t": 1, "e": "hello"}, {"t": 2, "e": "end"}])
    stream = parse_stream(b"SeaBIOS (version 1.16.3)\nBUILD: gcc\n" + b"".join(lines), KEY)
    assert [event.line for event in stream.events] == [3, 4]
    assert (stream.preamble, stream.damage) == (2, ())


def test_half_a_line_at_the_end_is_no_damage() -> None:
    stream = parse_stream(lines_of([{"t": 1, "e": "hello"}])[0] + b"1 00ff", KEY)
    assert stream.cut
    assert stream.damage == ()


def test_a_line_that_is_sent_twice_is_forged() -> None:
    lines = lines_of([{"t": 1, "e": "hello"}, {"t": 2, "e": "end"}])
    stream = parse_stream(lines[0] + lines[0] + lines[1], KEY)
    assert [damage.line for damage in stream.damaged("forged")] == [2]
    assert [event.name for event in stream.events] == ["hello", "end"]


@given(st.one_of(st.text(), st.binary()))
def test_printable_text_is_printable(text: str | bytes) -> None:
    assert all(" " <= char <= "~" for char in printable(text))
    assert len(printable(text)) <= 400


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "one")
    with pytest.raises(TypeError):
        write_atomic(path, 5)  # type: ignore[arg-type]
    assert path.read_text() == "one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_canonical_json_does_not_depend_on_order() -> None:
    assert canonical_json({"b": 1, "a": "ä"}) == b'{\n  "a": "\\u00e4",\n  "b": 1\n}\n'


def damaged(path: Path) -> DamagedCaseError:
    with pytest.raises(DamagedCaseError) as caught:
        Case.open(path)
    return caught.value


@pytest.fixture
def case(tmp_path: Path) -> Case:
    builder = CaseBuilder(tmp_path / "case")
    builder.demand("stall")
    builder.pair("stall")
    return builder.finish()


def test_no_case_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not a case: it has no `case\.json`"):
        Case.open(tmp_path)


def test_a_case_without_a_verdict_is_interrupted_and_readable(case: Case) -> None:
    assert case.verdict is None
    assert [run.name for run in case.runs] == ["runs/000", "runs/001"]
    assert case.runs[1].stream.first("attach") is not None


def test_damage_is_told_by_file(case: Case) -> None:
    (case.path / "runs/001/outcome.json").write_text('{"ended": "fine"}')
    assert "`runs/001/outcome.json` is damaged: accelerator: Field required" in damaged(case.path).message
    assert damaged(case.path).exit_code == 3


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("runs/001/key", "zz", "`runs/001/key` is not 32 bytes in hex"),
        ("runs/001/spec.json", "[]", "`runs/001/spec.json` is damaged"),
        ("candidate/artifact.json", "{}", "`candidate/artifact.json` is damaged"),
        ("case.json", "{", "`case.json` is damaged"),
    ],
)
def test_each_damaged_file_is_named(case: Case, file: str, content: str, message: str) -> None:
    (case.path / file).write_text(content)
    assert message in damaged(case.path).message


def test_a_run_in_the_wrong_directory_is_damage(case: Case) -> None:
    (case.path / "runs/001").rename(case.path / "runs/005")
    assert "is run 1, expected `005`" in damaged(case.path).message


def test_a_missing_key_is_named(case: Case) -> None:
    (case.path / "runs/001/key").unlink()
    assert damaged(case.path).message == "cannot read `runs/001/key`: no such file or directory"


def test_a_guest_that_never_spoke_has_no_stream_and_is_no_damage(case: Case) -> None:
    (case.path / "runs/001/stream").unlink()
    (case.path / "runs/001/console.log").unlink()
    assert Case.open(case.path).runs[1].stream.events == ()


def test_evidence_that_is_no_number_is_no_number(case: Case) -> None:
    line = stream_line(0, KEY, {"t": 5, "e": "beat", "rejected": "many", "late_us": True, "state": 4})
    event = parse_stream(line, KEY).events[0]
    assert (event.integer("rejected"), event.number("late_us"), event.text("state")) == (0, 0.0, "")
    assert json.loads(line.split(b" ", 2)[2])["rejected"] == "many"
