# SPDX-License-Identifier: Apache-2.0
"""The pool: failures are confirmed, the first confirmed one ends the work, and a lost guest loses nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, cast

import pytest

from testbed import policy, scenario
from testbed.case import OUTCOME_FILE, Control, Ended, read_run
from testbed.engine.local import LocalEngine
from testbed.errors import HostError
from testbed.image import Image
from testbed.plan import plan
from testbed.report import Event, StageEnded
from testbed.run import Pool
from testbed.spec import Role, RunSpec
from testbed.status import Status
from testbed.vm.fake import FakeGuest, Script
from testbed.vm.guest import Boot, Guest
from tests.unit.test_plan import question

HELLO = {
    "t": 1_000_000_000, "e": "hello", "version": 1, "release": "7.3.4", "cpus": 2, "possible": 2, "memory_kb": 500_000,
    "clocksource": "tsc", "state": "disabled", "timeout_max_ms": 30_000,
}  # fmt: skip
ENDED = {"t": 9_000_000_000, "e": "end", "ok": True}
STALL = {
    "t": 6_000_000_000, "e": "exit", "kind": 1026, "name": "SCX_EXIT_ERROR_STALL", "code": 0,
    "reason": "runnable task stall", "message": "hog[77] failed to run for 4.012s", "by_us": False, "source": "kernel",
}  # fmt: skip
GOOD = Script(events=(HELLO, ENDED))
STALLED = Script(events=(HELLO, STALL, ENDED))


class Bench:
    """A pool over fake guests."""

    def __init__(
        self, case: Path, script: Callable[[RunSpec], Script], *, run_all: bool = False, jobs: int = 2
    ) -> None:
        self.case = case
        self.events: list[Event] = []
        self.guests: list[FakeGuest] = []
        demanded, _ = policy.load("quick")
        files = case / "files"
        files.write_bytes(b"")

        def make(boot: Boot) -> Guest:
            guest = FakeGuest(boot, script(boot.spec))
            self.guests.append(guest)
            return guest

        self.cancelled = threading.Event()
        self.pool = Pool(
            self.engine(make),
            case,
            self.events.append,
            self.cancelled,
            demanded,
            scenario.load_all(),
            jobs=jobs,
            run_all=run_all,
            sources={},
            spot_check=lambda spec: False,
        )

    def engine(self, make: Callable[[Boot], Guest]) -> LocalEngine:
        image = cast(Image, SimpleNamespace())
        return LocalEngine(image, {"f" * 64: self.case / "files", "b" * 64: self.case / "files"}, make)

    def run(self) -> None:
        self.pool.run(plan(question()).specs)

    @property
    def specs(self) -> list[RunSpec]:
        return [read_run(place).spec for place in sorted((self.case / "runs").iterdir())]

    @property
    def statuses(self) -> list[Status]:
        return [event.status for event in self.events if isinstance(event, StageEnded)]


def stalls_as_candidate(spec: RunSpec) -> Script:
    return STALLED if spec.role is Role.CANDIDATE else GOOD


def test_a_good_candidate_runs_everything_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda spec: GOOD)
    bench.run()
    assert [spec.repeats for spec in bench.specs] == [None] * len(plan(question()).specs)
    assert not bench.pool.stopped_early


def test_a_failure_is_repeated_and_then_ends_the_work(tmp_path: Path) -> None:
    bench = Bench(tmp_path, stalls_as_candidate, jobs=1)
    bench.run()
    assert [spec.repeats for spec in bench.specs if spec.repeats is not None] == [0]
    assert bench.pool.stopped_early
    assert len(bench.specs) == 2, "the failing run and its repeat, nothing after them"
    assert bench.statuses == [Status.FAIL, Status.FAIL]


def test_all_goes_on_after_a_confirmed_failure(tmp_path: Path) -> None:
    bench = Bench(tmp_path, stalls_as_candidate, run_all=True)
    bench.run()
    planned = plan(question()).specs
    repeats = [spec for spec in bench.specs if spec.repeats is not None]
    assert len(repeats) == len([spec for spec in planned if spec.role is Role.CANDIDATE])
    assert not bench.pool.stopped_early


def test_a_failure_that_does_not_come_again_does_not_end_the_work(tmp_path: Path) -> None:
    def once(spec: RunSpec) -> Script:
        return STALLED if spec.number == 0 and spec.repeats is None else GOOD

    bench = Bench(tmp_path, once)
    bench.run()
    assert not bench.pool.stopped_early
    assert len([spec for spec in bench.specs if spec.repeats == 0]) == 1


def test_a_baseline_is_never_repeated(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda spec: STALLED if spec.role is Role.BASELINE else GOOD)
    bench.run()
    assert [spec for spec in bench.specs if spec.repeats is not None] == []


def test_an_interrupt_ends_guests_that_hang_and_leaves_no_half_run(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda spec: Script(events=(HELLO,), hang=True))
    threading.Timer(0.3, bench.cancelled.set).start()
    bench.run()
    assert not any((tmp_path / "runs").iterdir())
    assert all(guest.closed for guest in bench.guests)


def test_a_guest_that_can_not_be_started_is_the_hosts_fault_and_is_closed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda spec: GOOD)

    def broken(boot: Boot) -> Guest:
        guest = FakeGuest(boot, GOOD)
        bench.guests.append(guest)

        def fail() -> None:
            raise HostError("no room")

        guest.boot = fail  # type: ignore[method-assign]
        return guest

    bench.pool.engine = bench.engine(broken)
    with pytest.raises(HostError, match="no room"):
        bench.run()
    assert all(guest.closed for guest in bench.guests)
    assert not list((tmp_path / "runs").glob(f"*/{OUTCOME_FILE}"))


@pytest.mark.parametrize("ended", [Ended.PAUSED, Ended.QEMU_DIED, Ended.WALL_LIMIT, Ended.NEVER_CONNECTED])
def test_what_happens_to_qemu_is_never_the_candidates_fault(tmp_path: Path, ended: Ended) -> None:
    bench = Bench(tmp_path, lambda spec: Script(events=(HELLO,), ended=ended, reason="the host says so"))
    bench.run()
    assert Status.FAIL not in bench.statuses
    assert set(bench.statuses) == {Status.ERROR}


def test_every_run_has_a_key_of_its_own(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda spec: GOOD)
    bench.run()
    keys = [(place / "key").read_text() for place in (tmp_path / "runs").iterdir()]
    assert len(set(keys)) == len(keys)


def test_a_share_of_passing_runs_is_repeated_last(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda spec: GOOD, jobs=1)
    bench.pool.spot_check = lambda spec: spec.number == 1
    bench.run()
    planned = len(plan(question()).specs)
    assert [spec.repeats for spec in bench.specs] == [None] * planned + [1]
    assert not bench.pool.stopped_early


def test_a_spot_check_that_fails_alone_is_no_confirmed_failure(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda spec: STALLED if spec.repeats is not None else GOOD, jobs=1)
    bench.pool.spot_check = lambda spec: spec.number == 0
    bench.run()
    assert not bench.pool.stopped_early
    assert len(bench.specs) == len(plan(question()).specs) + 1


def test_a_failure_that_was_to_be_spot_checked_is_repeated_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, stalls_as_candidate, jobs=1, run_all=True)
    bench.pool.spot_check = lambda spec: True
    bench.run()
    repeats = [spec.repeats for spec in bench.specs if spec.repeats is not None]
    assert sorted(repeats) == sorted(set(repeats))


@pytest.mark.parametrize("slow", ["first", "repeat"])
def test_the_first_run_is_repeated_beside_itself_and_stops_the_work_when_both_failed(tmp_path: Path, slow: str) -> None:
    def stalls(spec: RunSpec) -> Script:
        if (spec.repeats is None) == (slow == "first"):
            time.sleep(0.3)
        return STALLED if 0 in (spec.number, spec.repeats) else GOOD

    bench = Bench(tmp_path, stalls)
    bench.pool.early_repeat = True
    bench.run()
    assert [spec.number for spec in bench.specs if spec.repeats == 0] == [len(plan(question()).specs)]
    assert bench.pool.stopped_early


def test_an_early_repetition_of_a_good_run_is_no_more_than_a_check(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda spec: GOOD)
    bench.pool.early_repeat = True
    bench.run()
    planned = len(plan(question()).specs)
    assert [spec.repeats for spec in bench.specs] == [None] * planned + [0]
    assert not bench.pool.stopped_early


def test_one_guest_at_a_time_repeats_nothing_early(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda spec: GOOD, jobs=1)
    bench.pool.early_repeat = True
    bench.run()
    assert [spec.repeats for spec in bench.specs] == [None] * len(plan(question()).specs)


def attaches_in(seconds: float) -> Callable[[RunSpec], Script]:
    attach = {
        "t": 2_000_000_000, "e": "attach", "ok": True, "stage": "enable", "errno": "", "detail": "", "ops": "slow",
        "enable_seq": 1, "timeout_ms": 3000, "elapsed_ns": int(seconds * 1e9),
    }  # fmt: skip
    return lambda spec: Script(events=(HELLO, attach, ENDED))


@pytest.mark.parametrize("jobs", [1, 2, 8])
def test_after_a_long_attach_the_other_runs_begin_with_the_candidate_attached(tmp_path: Path, jobs: int) -> None:
    bench = Bench(tmp_path, attaches_in(60.0), run_all=True, jobs=jobs)
    bench.run()
    attached = {(spec.scenario, spec.role): spec.attached for spec in bench.specs if spec.repeats is None}
    first = plan(question()).specs[0].scenario
    for (name, role), found in attached.items():
        steps = scenario.load_all()[name].steps
        assert found == (role is Role.CANDIDATE and name != first and steps[0].verb == "attach"), (name, role)


def test_after_a_short_attach_every_run_attaches_by_itself(tmp_path: Path) -> None:
    bench = Bench(tmp_path, attaches_in(0.8))
    bench.run()
    assert not any(spec.attached for spec in bench.specs)


def test_what_repeats_a_run_begins_as_it_did(tmp_path: Path) -> None:
    bench = Bench(tmp_path, attaches_in(60.0), run_all=True)
    bench.pool.spot_check = lambda spec: True
    bench.run()
    by_number = {spec.number: spec for spec in bench.specs}
    repeats = [spec for spec in bench.specs if spec.repeats is not None]
    assert any(spec.attached for spec in repeats)
    for spec in repeats:
        assert spec.repeats is not None and spec.attached == by_number[spec.repeats].attached


def test_a_repetition_that_ends_before_the_baseline_is_no_error(tmp_path: Path) -> None:
    def again() -> list[Status]:
        return [one.status for one in bench.events if isinstance(one, StageEnded) and one.title.endswith("again)")]

    def baseline_last(spec: RunSpec) -> Script:
        deadline = time.monotonic() + 30
        while spec.role is Role.BASELINE and not again() and time.monotonic() < deadline:
            time.sleep(0.01)
        return GOOD

    bench = Bench(tmp_path, baseline_last)
    bench.pool.early_repeat = True
    specs = tuple(spec for spec in plan(question()).specs if spec.scenario == "starvation")
    bench.pool.run(tuple(spec.model_copy(update={"number": number}) for number, spec in enumerate(specs)))
    assert again() == [Status.DONE]


@pytest.mark.parametrize(
    ("expect", "script", "status", "summary"),
    [
        ("pass", GOOD, Status.DONE, "known: pass, as it must be"),
        ("fail", STALLED, Status.DONE, "known: caught, as it must be"),
        ("fail", GOOD, Status.ERROR, "known: expected fail, got pass"),
        ("pass", STALLED, Status.ERROR, "known: expected pass, got fail"),
    ],
)
def test_a_control_is_told_by_whether_it_got_what_is_known(
    tmp_path: Path, expect: Literal["pass", "fail"], script: Script, status: Status, summary: str
) -> None:
    bench = Bench(tmp_path, lambda spec: script)
    bench.pool.spot_check = lambda spec: True
    first = plan(question()).specs[0]
    bench.pool.controls = (Control(run=0, name="known", expect=expect),)
    bench.pool.run((first.model_copy(update={"role": Role.CONTROL}),))
    (ended,) = [event for event in bench.events if isinstance(event, StageEnded)]
    assert (ended.status, ended.summary) == (status, summary)
    assert not bench.pool.stopped_early
