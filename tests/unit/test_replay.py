# SPDX-License-Identifier: Apache-2.0
"""Replay: the same inputs again, compared to the bit, and the moment that a finding means."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from testbed import digest, freeze, replay
from testbed.case import STREAM_FILE, Case, DamagedCaseError, RunEvidence, read_key
from testbed.errors import UsageError
from testbed.image import Image
from testbed.image.cpio import write_archive
from testbed.spec import Clock, Role
from testbed.vm.fake import FakeGuest, Script
from testbed.vm.guest import Boot, Guest
from tests.unit.case_builder import CaseBuilder
from tests.unit.case_builder import Script as Run

EXIT = {
    "e": "exit", "kind": 1026, "name": "SCX_EXIT_ERROR_STALL", "code": 0, "reason": "runnable task stall",
    "message": "nginx[77] failed to run for 3.012s", "by_us": False, "source": "kernel", "t": 5_000_000_000,
}  # fmt: skip


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CaseBuilder:
    """Cases whose runs name files that the case still has, and an image that is here."""
    files = write_archive(tmp_path / "empty.cpio", {})
    made = CaseBuilder(tmp_path / "case", files=files)
    monkeypatch.setattr(replay, "load_image", lambda image_id: cast(Image, SimpleNamespace(id=image_id)))
    return made


def same(case: Case) -> Callable[[Boot], Guest]:
    """Guests that say what those of the case said, line for line."""

    def make(boot: Boot) -> Guest:
        original = case.path / "runs" / boot.spec.name
        assert boot.key == read_key(original)
        script = Script(raw=(original / STREAM_FILE).read_bytes(), console=(original / "console.log").read_bytes())
        return FakeGuest(boot, script)

    return make


def again(case: Case, place: Path, make: Callable[[Boot], Guest], jobs: int = 2) -> list[replay.Replayed]:
    opened, runs = replay.find(place)
    found = replay.replay(opened, runs, guest=make, listener=lambda event: None, jobs=jobs, cancelled=threading.Event())
    return list(found)


def test_all_runs_of_a_case_are_run_again_but_for_repetitions_and_live_ones(builder: CaseBuilder) -> None:
    builder.demand("stall")
    builder.run("stall", role=Role.BASELINE)
    number = builder.run("stall")
    builder.run("stall", repeats=number)
    builder.run("stall", clock=Clock.LIVE)
    case = builder.finish()
    found = again(case, case.path, same(case))
    assert [(one.run, one.identical) for one in found] == [("runs/000", True), ("runs/001", True)]


def test_one_run_may_be_named_also_a_repetition(builder: CaseBuilder) -> None:
    builder.demand("stall")
    number = builder.run("stall")
    builder.run("stall", repeats=number)
    case = builder.finish()
    found = again(case, case.path / "runs/001", same(case))
    assert [(one.run, one.identical, one.evidence) for one in found] == [("runs/001", True, None)]


def test_another_run_is_told_with_the_first_place_where_they_part(builder: CaseBuilder) -> None:
    builder.demand("stall")
    builder.run("stall")
    case = builder.finish()

    def other(boot: Boot) -> Guest:
        stream = (case.path / "runs/000/stream").read_bytes()
        return FakeGuest(boot, Script(raw=stream.replace(b'"verb":"attach"', b'"verb":"detach"', 1)))

    (found,) = again(case, case.path, other)
    assert not found.identical
    assert found.parting is not None
    assert (found.parting.file, b'"verb":"attach"' in found.parting.first) == (STREAM_FILE, True)
    assert found.evidence is not None
    assert digest.of(found.evidence) == found.again


def test_an_image_that_is_not_here_is_named_with_the_ways_to_get_it(
    builder: CaseBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder.demand("stall")
    builder.run("stall")
    case = builder.finish()

    def missing(image_id: str) -> Image:
        raise UsageError("there is no image")

    monkeypatch.setattr(replay, "load_image", missing)
    with pytest.raises(UsageError, match=r"is not here: i \(linux 7.3.4, qemu 10.0\)") as caught:
        again(case, case.path, same(case))
    assert "testbed image import" in caught.value.hint


def test_a_case_whose_candidate_was_changed_is_damaged(builder: CaseBuilder) -> None:
    builder.files = "0" * 64
    builder.demand("stall")
    builder.run("stall")
    case = builder.finish()
    with pytest.raises(DamagedCaseError, match="ran with files 0000000000000000"):
        again(case, case.path, same(case))


def test_what_ran_live_can_not_be_replayed(builder: CaseBuilder) -> None:
    builder.demand("stall", "live")
    builder.run("stall", clock=Clock.LIVE)
    case = builder.finish()
    with pytest.raises(UsageError, match="has no run under virtual time"):
        replay.find(case.path)


def test_an_interrupt_ends_it_early(builder: CaseBuilder) -> None:
    builder.demand("stall")
    builder.run("stall")
    case = builder.finish()
    opened, runs = replay.find(case.path)
    cancelled = threading.Event()
    cancelled.set()
    found = replay.replay(
        opened,
        runs,
        guest=lambda boot: FakeGuest(boot, Script(hang=True)),
        listener=lambda event: None,
        jobs=1,
        cancelled=cancelled,
    )
    assert list(found) == []


# --- moments -----------------------------------------------------------------------------------------------------


def stalled(builder: CaseBuilder) -> tuple[Case, tuple[RunEvidence, ...]]:
    builder.demand("stall")
    script = Run(during={"hold": [EXIT]})
    builder.run("stall", role=Role.BASELINE)
    number = builder.run("stall", script)
    builder.run("stall", script, repeats=number)
    case = builder.finish()
    return replay.find(case.path)


def test_a_finding_means_the_moment_of_its_event(builder: CaseBuilder) -> None:
    case, runs = stalled(builder)
    at = freeze.moment(case, runs, "runnable-task-stall")
    hello = next(iter(at.run.stream.of("hello")))
    assert (at.run.name, at.guest_ns) == ("runs/001", 5_000_000_000)
    assert at.virtual_ns == 5_000_000_000 + hello.integer("tsc") - hello.t


def test_seconds_mean_the_guests_own_time(builder: CaseBuilder) -> None:
    case, runs = stalled(builder)
    at = freeze.moment(case, runs, "4.25s")
    assert (at.run.name, at.guest_ns) == ("runs/000", 4_250_000_000)


def test_a_finding_that_the_case_has_not_is_told_with_those_that_it_has(builder: CaseBuilder) -> None:
    case, runs = stalled(builder)
    with pytest.raises(UsageError, match="the case has no finding `crawl`") as caught:
        freeze.moment(case, runs, "crawl")
    assert "runnable-task-stall" in caught.value.hint


def test_a_finding_without_a_moment_asks_for_seconds(builder: CaseBuilder) -> None:
    builder.demand("stall")
    builder.run("stall", role=Role.BASELINE)
    number = builder.run("stall", Run(digest="a" * 64))
    builder.run("stall", Run(digest="b" * 64), repeats=number)
    case, runs = replay.find(builder.finish().path)
    with pytest.raises(UsageError, match="does not point at a moment"):
        freeze.moment(case, runs, "run-diverged")


def test_a_run_whose_clock_is_not_known_has_no_moments(builder: CaseBuilder) -> None:
    case, runs = stalled(builder)
    stream = dataclasses.replace(runs[0].stream, events=runs[0].stream.events[1:])
    silent = dataclasses.replace(runs[0], stream=stream)
    with pytest.raises(DamagedCaseError, match="does not say how its time is QEMU's"):
        freeze.moment(case, (silent,), "4s")
