# SPDX-License-Identifier: Apache-2.0
"""Switches and wake-ups as pieces of time, whatever a case holds in their place."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.case import Event, GuestOutcome, RunEvidence, Stream
from testbed.spec import Clock, Role, RunSpec, Topology
from testbed.timeline import IDLE, UNKNOWN, Timeline, Wait, focus, read, shares
from tests.unit.trace_builder import BASE, NAMES, STARVED, Record, starvation, trace_events

US = 1_000
END = BASE + 740_000 * US


def stream(*events: dict[str, Any], t: int = END) -> Stream:
    found = [
        Event(line, line - 1, event.get("t", t), event["e"], {key: value for key, value in event.items() if key != "t"})
        for line, event in enumerate(events, start=1)
    ]
    return Stream(tuple(found))


def timeline(records: Sequence[Record], until_us: int) -> Timeline:
    """Two CPUs; at last something wakes up, which says only that time has passed."""
    found = read(stream(*trace_events([*records, [until_us, 0, 4000]], NAMES)))
    assert found is not None
    return found


def run(*events: dict[str, Any]) -> RunEvidence:
    spec = RunSpec(
        number=0,
        role=Role.CANDIDATE,
        scenario="stall",
        clock=Clock.SIM,
        topology=Topology(cpus=2, memory_mb=512),
        seed=1,
        job="",
        files="",
        image="",
        wall_limit_s=1,
    )
    outcome = GuestOutcome.model_validate({"accelerator": "a", "qemu": "q", "ended": "finished"})
    return RunEvidence(spec, outcome, stream(*trace_events(starvation(), NAMES), *events))


def us(wait: Wait) -> tuple[int, int, int, bool, bool]:
    return wait.pid, (wait.start - BASE) // US, (wait.end - BASE) // US, wait.seen, wait.over


def test_switches_are_pieces_without_gaps() -> None:
    found = timeline([[0, 0, 5, 1, 7], [30, 0, 7, 0, 0], [50, 0, 0, 0, 5]], 80)
    assert [(one.pid, (one.start - BASE) // US, (one.end - BASE) // US) for one in found.pieces[0]] == [
        (7, 0, 30),
        (IDLE, 30, 50),
        (5, 50, 80),
    ]
    assert [one.pid for one in found.pieces[1]] == [UNKNOWN]
    assert shares(found, 0, BASE, BASE + 80 * US) == {5: 0.375, 7: 0.375, IDLE: 0.25}


def test_a_wait_goes_from_the_wakeup_or_the_preemption_to_the_running() -> None:
    records = [
        [0, 0, 5, 1, 7],
        [10, 1, 9],
        [20, 0, 7, 0, 5],
        [40, 1, 0, 0, 9],
        [50, 1, 9, 2, 8],
        [60, 0, 9],
        [70, 1, 6],
    ]
    found = timeline(records, 100)
    assert [us(wait) for wait in found.waits] == [
        (5, 0, 20, True, True),
        (8, 0, 50, False, True),
        (9, 10, 40, True, True),
        (9, 60, 100, True, False),
        (6, 70, 100, True, False),
    ]
    longest = found.longest()
    assert longest is not None and longest.pid == 8


def test_a_wakeup_of_who_runs_or_waits_already_says_nothing() -> None:
    found = timeline([[0, 0, 0, 0, 5], [10, 0, 5], [20, 1, 9], [30, 0, 9], [40, 0, 5, 0, 9]], 50)
    assert [us(wait) for wait in found.waits] == [(9, 20, 40, True, True)]


def test_what_lies_between_lost_records_is_not_known() -> None:
    found = timeline([[0, 0, 0, 0, 5], [5, 1, 7], [10, 0, 9, 0, 0]], 20)
    assert [one.pid for one in found.pieces[0]] == [UNKNOWN, IDLE]
    assert found.waits == ()


def test_the_recording_goes_on_until_it_is_told_if_that_is_soon() -> None:
    records = [[0, 0, 0, 0, 5], [10, 1, 7]]
    for told, end in (
        (BASE + 60_000_000, BASE + 60_000_000),
        (BASE + 900_000_000, BASE + 10 * US),
        (0, BASE + 10 * US),
    ):
        found = read(stream(*trace_events(records, NAMES), t=told))
        assert found is not None and found.end == end


def test_a_cpu_that_nobody_announced_has_a_lane() -> None:
    found = timeline([[0, 3, 0, 0, 5]], 20)
    assert [[one.pid for one in lane] for lane in found.pieces] == [[UNKNOWN], [UNKNOWN], [UNKNOWN], [5]]


@pytest.mark.parametrize(
    "record", [None, [], [1], [-1, 0, 5], [0, 5000, 5], [0, 0, 5, 7, 9], [0, 0, "5"], [0, 0, True], [2**60, 0, 5]]
)
def test_what_is_no_record_is_counted(record: Any) -> None:
    found = read(stream({"e": "trace", "base": BASE, "cpus": 2, "lost": 3, "r": [[0, 0, 0, 0, 5], record]}))
    assert found is not None
    assert (found.malformed, found.lost) == (1, 3)


def test_a_run_without_a_trace_has_no_timeline() -> None:
    assert read(stream({"e": "beat"})) is None
    assert read(stream({"e": "trace", "base": BASE, "cpus": 2, "lost": 0, "r": []})) is None


_value = st.one_of(st.integers(-2, 40), st.integers(), st.none(), st.text(max_size=2))
_records = st.lists(st.one_of(st.lists(_value, max_size=6), _value), max_size=20)


@given(_value, _value, _records, _records)
def test_any_trace_gives_pieces_that_fill_the_time(base: Any, cpus: Any, first: Any, second: Any) -> None:
    lines = [{"e": "trace", "base": base, "cpus": cpus, "lost": base, "r": records} for records in (first, second)]
    found = read(stream(*lines, {"e": "names", "tasks": first}, {"e": "names", "tasks": base}))
    if found is None:
        return
    for lane in found.pieces:
        assert sum(piece.end - piece.start for piece in lane) == found.end - found.start
        assert all(one.end == two.start for one, two in pairwise(lane))
    assert all(found.start <= wait.start < wait.end <= found.end for wait in found.waits)


def test_the_starving_task_is_looked_for() -> None:
    evidence = run({"e": "starving", "pid": 1, "tid": STARVED, "allowed": "0,2-3", "waited_ms": 700})
    found = read(evidence.stream)
    assert found is not None
    looked = focus(found, evidence)
    assert looked is not None
    assert (looked.pid, looked.since, looked.until, looked.seen) == (STARVED, BASE + 40_050 * US, END, True)
    assert looked.allowed == frozenset((0, 2, 3))


def test_what_is_noticed_after_the_recording_ends_with_it() -> None:
    told = {"e": "starving", "pid": STARVED, "waited_ms": 5_700, "t": END + 5_000_000_000}
    evidence = run(told, {**told, "waited_ms": 9_700, "t": END + 9_000_000_000})
    found = read(evidence.stream)
    assert found is not None
    looked = focus(found, evidence, evidence.stream.events[-1])
    assert looked is not None
    assert (looked.until, looked.noticed) == (END, "the recording ends")


def test_the_task_that_the_watchdog_names_is_looked_for_also_before_the_trace() -> None:
    evidence = run({"e": "exit", "kind": 1026, "message": "backup[4711] failed to run for 2.500s"})
    found = read(evidence.stream)
    assert found is not None
    looked = focus(found, evidence)
    assert looked is not None
    assert (looked.pid, looked.since, looked.seen) == (4711, END - 2_500_000_000, False)
    assert looked.allowed is None


def test_the_watchdog_looked_when_it_says() -> None:
    evidence = run({"e": "exit", "kind": 1026, "message": f"backup[{STARVED}] failed to run for 0.650s"})
    found = read(evidence.stream)
    assert found is not None
    looked = focus(found, evidence)
    assert looked is not None
    assert (looked.since, looked.until) == (BASE + 40_050 * US, BASE + 690_050 * US)


def test_without_a_name_the_longest_wait_is_looked_for() -> None:
    evidence = run({"e": "exit", "kind": 1024, "message": "DSQ 0x5 does not exist"})
    found = read(evidence.stream)
    assert found is not None
    looked = focus(found, evidence)
    assert looked is not None and looked.pid == STARVED
    assert found.task(12).name == "kworker/0:1[12]" and found.task(12).kthread
    assert found.task(4711).name == "task[4711]"
