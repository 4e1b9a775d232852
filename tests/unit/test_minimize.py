# SPDX-License-Identifier: Apache-2.0
"""Shrinking a failing run: the order of "simpler", the search over it, and the case that is left."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed import digest, minimize, replay, scenario
from testbed.case import KEY_FILE, STREAM_FILE, Case, GuestOutcome, write_atomic
from testbed.cli import main
from testbed.errors import HostError, Interrupted, UsageError
from testbed.image import Image
from testbed.image.cpio import write_archive
from testbed.minimize.search import Found, Search, Stopped
from testbed.minimize.simpler import Setup, pinned, simplifications, size, written
from testbed.report.events import Event
from testbed.scenario import parse_job
from testbed.spec import Clock, Role, Topology
from testbed.vm.fake import FakeGuest
from testbed.vm.fake import Script as Played
from testbed.vm.guest import Boot, Guest
from tests.unit.case_builder import KEY, CaseBuilder, Script, simulate
from tests.unit.test_replay import EXIT

SCENARIOS = scenario.load_all()
FOUR = Topology(cpus=4, memory_mb=512, llcs=2, nodes=2)
TITLE = "runnable task stall in stall"


def setup_of(name: str, machine: Topology | None = None, seed: int = 0) -> Setup:
    own = SCENARIOS[name]
    return pinned(own, machine or own.topology, seed, "object", None)


# --- what is simpler ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("kind", ["object", "program"])
@pytest.mark.parametrize("timeout_ms", [None, 1000, 9000])
def test_a_pinned_run_has_the_same_job_and_is_the_same_file_again(
    name: str, kind: scenario.CandidateKind, timeout_ms: int | None
) -> None:
    own = SCENARIOS[name]
    for machine in (own.topology, FOUR):
        found = pinned(own, machine, 5, kind, timeout_ms).scenario
        jobs = [
            scenario.job_text(
                one, seed=5, candidate=("none",), kind=kind, cpus=machine.cpus, candidate_timeout_ms=timeout_ms
            )
            for one in (own, found)
        ]
        assert jobs[0] == jobs[1]
        assert found.topology == machine
        assert scenario.parse(written(found), f"{name}.yaml") == found


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_simplification_is_valid_and_smaller_and_there_is_an_end(name: str) -> None:
    setup = setup_of(name, FOUR, seed=9)
    for _ in range(200):
        ones = list(simplifications(setup))
        for one in ones:
            assert size(one.setup) < size(setup), one.what
        if not ones:
            break
        setup = ones[len(ones) // 2].setup
        assert scenario.parse(written(setup.scenario), f"{name}.yaml") == setup.scenario
    assert not list(simplifications(setup)), "nothing is left but one step"
    assert len(setup.scenario.steps) == 1


def test_what_speaks_of_a_load_goes_with_it() -> None:
    setup = setup_of("starvation")
    found = {one.what: one.setup.scenario for one in simplifications(setup)}
    left = found["without step 2 (start)"]
    assert "hogs" not in left.loads()
    assert [step.stop for step in left.steps if step.stop] == [("near", "plain", "polite", "eager", "kworkers", "rcu")]
    assert {one.load for one in left.checks} == {"near", "plain", "polite", "eager", "kworkers", "rcu", "loaded"}
    assert [one.name for one in left.figures] == ["plain.gap.p50", "plain.gap.p99"]
    assert found["without step 11 (end)"].windows() == ()


def test_the_order_looks_at_steps_first_and_at_the_seed_last() -> None:
    setup = setup_of("stall", seed=3)
    fewer = next(one.setup for one in simplifications(setup) if one.what.startswith("without step "))
    other = next(one.setup for one in simplifications(setup) if one.what == "seed 0")
    smaller = next(one.setup for one in simplifications(setup) if one.what == "on 1 CPU")
    assert sorted([setup, other, smaller, fewer], key=size) == [fewer, smaller, other, setup]


# --- the search --------------------------------------------------------------------------------------------------


@dataclass
class World:
    """What a scheduler does, as a rule over runs.

    Attributes:
        needs: it fails when all these loads run …
        cpus: … on so many CPUs …
        time_ms: … for so long …
        seeds: … under seeds that leave one of these by 3.
        otherwise: with this title where only the time is too short.
    """

    needs: frozenset[str] = frozenset()
    cpus: int = 1
    time_ms: int = 0
    seeds: frozenset[int] = frozenset({0, 1, 2})
    otherwise: str = ""
    asked: int = 0

    def title(self, setup: Setup, stop: threading.Event) -> str | None:
        self.asked += 1
        own = setup.scenario
        first = next((step.verb for step in own.steps), "")
        if first not in ("attach", "cycle") or not self.needs <= {*own.loads(), *own.programs()}:
            return ""
        if own.topology.cpus < self.cpus or setup.seed % 3 not in self.seeds:
            return ""
        return TITLE if size(setup).time_ms >= self.time_ms else self.otherwise


def search(world: World, setup: Setup, *, trials: int = 10_000, jobs: int = 1) -> Found:
    return Search(TITLE, world.title, trials, jobs, threading.Event(), lambda *told: None).run(setup)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[World, Setup]:
    name = draw(st.sampled_from(sorted(SCENARIOS)))
    setup = setup_of(name, draw(st.sampled_from([SCENARIOS[name].topology, FOUR])), draw(st.integers(0, 40)))
    own = setup.scenario
    names = sorted({*own.loads(), *own.programs()})
    world = World(
        frozenset(draw(st.sets(st.sampled_from(names), max_size=3))) if names else frozenset(),
        draw(st.integers(1, own.topology.cpus)),
        draw(st.integers(0, size(setup).time_ms)),
        frozenset({setup.seed % 3, draw(st.integers(0, 2))}),
        draw(st.sampled_from(["", "task starved in stall"])),
    )
    return world, setup


@given(worlds())
def test_the_result_fails_alike_and_no_single_simplification_of_it_does(drawn: tuple[World, Setup]) -> None:
    world, setup = drawn
    nobody = threading.Event()
    if world.title(setup, nobody) != TITLE:
        return  # a scenario that begins with something else than the scheduler
    found = search(world, setup)
    assert found.complete
    assert world.title(found.setup, nobody) == TITLE
    assert size(found.setup) <= size(setup)
    alike = [one.what for one in simplifications(found.setup) if world.title(one.setup, nobody) == TITLE]
    assert alike == []


def test_only_what_the_failure_needs_is_left() -> None:
    world = World(frozenset({"forks", "near"}), cpus=2, time_ms=300, otherwise="task starved in stall")
    found = search(world, setup_of("stall", FOUR, seed=7))
    verbs = [step.verb for step in found.setup.scenario.steps]
    assert verbs == ["attach", "start", "start", "hold"]
    assert (size(found.setup).cpus, size(found.setup).tasks, size(found.setup).time_ms) == (2, 2, 500)
    assert found.setup.seed == 0
    assert set(found.other) == {"task starved in stall"}, "another title is another failure, and it is told"


@pytest.mark.parametrize("jobs", [2, 5])
def test_trials_side_by_side_find_the_same_with_the_same_count(jobs: int) -> None:
    world = World(frozenset({"kworkers"}), time_ms=1000)
    alone, together = search(world, setup_of("stall")), search(world, setup_of("stall"), jobs=jobs)
    assert alone == together


def test_a_bound_ends_it_with_what_was_found_so_far() -> None:
    world = World(frozenset({"forks"}))
    found = search(world, setup_of("stall"), trials=4)
    assert (found.trials, found.complete) == (4, False)
    assert world.title(found.setup, threading.Event()) == TITLE
    assert size(found.setup) < size(setup_of("stall"))


def test_nothing_is_asked_twice() -> None:
    world = World(frozenset({"forks"}), time_ms=200)
    seen: list[tuple[bytes, int]] = []

    def attempt(setup: Setup, stop: threading.Event) -> str | None:
        seen.append((setup.text, setup.seed))
        return world.title(setup, stop)

    Search(TITLE, attempt, 1000, 1, threading.Event(), lambda *told: None).run(setup_of("stall"))
    assert len(seen) == len(set(seen))


def test_an_interrupt_ends_trials_that_hang() -> None:
    cancelled = threading.Event()

    def hangs(setup: Setup, stop: threading.Event) -> str | None:
        cancelled.set()
        assert stop.wait(30)
        return None

    with pytest.raises(Stopped):
        Search(TITLE, hangs, 100, 2, cancelled, lambda *told: None).run(setup_of("stall"))


def test_a_trial_that_this_machine_can_not_run_ends_it() -> None:
    def broken(setup: Setup, stop: threading.Event) -> str | None:
        raise HostError("no space")

    with pytest.raises(HostError, match="no space"):
        Search(TITLE, broken, 100, 2, threading.Event(), lambda *told: None).run(setup_of("stall"))


# --- with guests -------------------------------------------------------------------------------------------------


class Told(FakeGuest):
    """A guest that does its job as the runner would, and whose evidence has a digest."""

    def boot(self) -> None:
        """Say it with the key that the script was signed with."""
        super().boot()
        write_atomic(self.boot_.directory / KEY_FILE, KEY.hex() + "\n")

    def run(self) -> GuestOutcome:
        """End, with a digest, so that the run can be kept."""
        outcome = super().run()
        return outcome.model_copy(update={"digest": digest.of(self.boot_.directory)})


@dataclass
class Bench:
    """A case with a failing run of `stall`, and guests that fail while `forks` run for half a second."""

    builder: CaseBuilder
    script: Script
    runs: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    well: bool = False

    def guest(self, boot: Boot) -> Guest:
        job = parse_job(boot.spec.job)
        words = [word for step in job.steps for word in step]
        holds = sum(int(step[1]) for step in job.steps if step[0] == "hold")
        candidate = boot.spec.role is Role.CANDIDATE
        fails = candidate and "forks" in words and holds >= 500 and "attach" in words and not self.well
        self.runs.append(boot.spec.job)
        own = SCENARIOS[boot.spec.scenario]
        raw = simulate(boot.spec.job, own, self.script if fails else Script(), candidate=candidate)
        return Told(boot, Played(raw=raw))

    def case(self) -> Case:
        self.builder.demand("stall")
        self.builder.run("stall", role=Role.BASELINE, seed=0)
        number = self.builder.run("stall", self.script, seed=0)
        self.builder.run("stall", self.script, seed=0, repeats=number)
        case = self.builder.finish()
        main(["judge", str(case.path), "--format", f"json={case.path / 'ignored'}"])
        return Case.open(case.path)

    def shrink(
        self, place: Path, *, trials: int = 1000, jobs: int = 2, cancelled: threading.Event | None = None
    ) -> tuple[minimize.Target, minimize.Minimized]:
        target = minimize.find(place)
        found = minimize.minimize(
            target,
            guest=self.guest,
            listener=self.events.append,
            cancelled=cancelled or threading.Event(),
            trials=trials,
            jobs=jobs,
        )
        return target, found


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    files = write_archive(tmp_path / "empty.cpio", {})
    monkeypatch.setattr(replay, "load_image", lambda image_id: cast(Image, SimpleNamespace(id=image_id)))
    monkeypatch.setenv("TESTBED_CACHE", str(tmp_path / "cache"))
    return Bench(CaseBuilder(tmp_path / "case", files=files), Script(during={"hold": [EXIT]}))


def test_what_is_left_is_a_case_that_is_rejected_for_the_same_and_replays(bench: Bench) -> None:
    case = bench.case()
    before = {path: path.read_bytes() for path in case.path.rglob("*") if path.is_file()}
    target, found = bench.shrink(case.path)
    assert (found.title, found.run, found.complete) == (TITLE, "runs/001", True)
    assert str(found.before) == "11 steps, 2 CPUs, 12 tasks, 5 s, seed 0"
    assert str(found.after) == "3 steps, 1 CPU, 1 task, 0.5 s, seed 0"

    left = Case.open(case.path / "minimized/001")
    assert left.verdict is not None
    assert (left.verdict.verdict, left.verdict.title) == ("reject", TITLE)
    own = left.scenarios()["stall"]
    assert [step.verb for step in own.steps] == ["attach", "start", "hold"]
    assert (own.topology.cpus, own.catches) == (1, ("runnable-task-stall",))
    assert [run.spec.repeats for run in left.runs] == [None, 0]
    assert len({run.outcome.digest for run in left.runs}) == 1
    assert {path: path.read_bytes() for path in before} == before, "the case and its verdict are what they were"

    _, runs = replay.find(left.path)

    def same(boot: Boot) -> Guest:
        return FakeGuest(boot, Played(raw=(left.path / "runs/000" / STREAM_FILE).read_bytes()))

    again = replay.replay(left, runs, guest=same, listener=bench.events.append, jobs=1, cancelled=threading.Event())
    assert [one.identical for one in again] == [True]
    assert minimize.known(target) == found


def test_an_interrupted_search_goes_on_from_the_cache(bench: Bench) -> None:
    case = bench.case()
    first = bench.shrink(case.path, jobs=1)[1]
    asked = len(bench.runs)
    bench.runs.clear()
    again = bench.shrink(case.path, jobs=1)[1]
    assert again == first
    assert asked > 10
    assert bench.runs == [], "the confirmed result too is taken from the cache"


def test_a_bound_leaves_a_result_that_a_later_call_betters(bench: Bench) -> None:
    case = bench.case()
    target, found = bench.shrink(case.path, trials=3)
    assert not found.complete
    assert Case.open(target.place).verdict is not None
    assert minimize.known(target) is None
    _, better = bench.shrink(case.path)
    assert better.complete
    assert better.after.steps < found.after.steps
    assert minimize.known(target) == better


def test_a_fault_that_does_not_come_back_is_told(bench: Bench) -> None:
    case = bench.case()
    bench.well = True
    with pytest.raises(HostError, match="did not fail as it did: nothing was found"):
        bench.shrink(case.path)
    assert not list((case.path).glob("minimized/*"))


def test_an_interrupt_leaves_nothing_half(bench: Bench) -> None:
    case = bench.case()
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(Interrupted):
        bench.shrink(case.path, cancelled=cancelled)
    assert not list((case.path).glob("minimized/*"))


def test_a_run_without_a_failure_has_nothing_to_shrink(bench: Bench) -> None:
    bench.builder.demand("stall")
    bench.builder.run("stall", role=Role.BASELINE)
    bench.builder.run("stall")
    case = bench.builder.finish()
    with pytest.raises(UsageError, match="did not fail under virtual time"):
        minimize.find(case.path / "runs/001")
    with pytest.raises(UsageError, match="is a run without a candidate"):
        minimize.find(case.path / "runs/000")


def test_what_failed_live_can_not_be_shrunk(bench: Bench) -> None:
    bench.builder.demand("stall", "live")
    bench.builder.run("stall", bench.script, clock=Clock.LIVE)
    case = bench.builder.finish()
    assert main(["minimize", str(case.path)]) == 2


def test_a_run_of_another_version_is_refused(bench: Bench) -> None:
    case = bench.case()
    spec = case.path / "runs/001/spec.json"
    raw = json.loads(spec.read_text())
    raw["job"] = raw["job"].replace("hold 5000", "hold 5001")
    spec.write_text(json.dumps(raw))
    with pytest.raises(UsageError, match="made by another version"):
        bench.shrink(case.path / "runs/001")


@pytest.mark.parametrize("name", ["spec.json", "key", "outcome.json"])
def test_a_damaged_run_is_told_as_such(bench: Bench, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    case = bench.case()
    (case.path / "runs/001" / name).write_text("{}")
    assert main(["minimize", str(case.path / "runs/001")]) == 3
    assert "error: " in capsys.readouterr().err


def test_a_missing_image_is_this_machines_lack(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    case = bench.case()

    def missing(image_id: str) -> Image:
        raise UsageError("there is no image")

    monkeypatch.setattr(replay, "load_image", missing)
    with pytest.raises(HostError, match="the image of these runs is not here"):
        bench.shrink(case.path)


def test_the_command_says_how_far_it_came_and_keeps_it(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = bench.case()
    capsys.readouterr()
    monkeypatch.setattr("testbed.cli.minimize.make_guest", bench.guest)
    file = tmp_path / "kept.yaml"
    assert main(["minimize", str(case.path), "-j", "1", "--add", str(file)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{TITLE}\n  before: 11 steps, 2 CPUs, 12 tasks, 5 s, seed 0\n  after:  3 steps, 1 CPU, ")
    assert "trials; nothing simpler fails alike\n" in printed
    assert file.is_file()
    bench.runs.clear()
    assert main(["minimize", str(case.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["after"]["steps"] == 3
    assert bench.runs == [], "minimal already"


def test_a_broken_regression_file_is_told_before_the_work(bench: Bench, tmp_path: Path) -> None:
    case = bench.case()
    (tmp_path / "kept.yaml").write_text("schema: testbed.regressions/1\n")
    assert main(["minimize", str(case.path), "--add", str(tmp_path / "kept.yaml")]) == 2
    assert not list((case.path).glob("minimized/*"))


def test_a_threshold_is_looked_at_beside_the_baseline_of_every_trial(bench: Bench) -> None:
    late = Script(figures={"plain.gap.max": 9e6})
    bench.builder.demand("starvation")
    bench.builder.run("starvation", role=Role.BASELINE, seed=0)
    bench.builder.run("starvation", late, seed=0)
    case = bench.builder.finish()

    def guest(boot: Boot) -> Guest:
        candidate = boot.spec.role is Role.CANDIDATE
        bench.runs.append(boot.spec.role)
        script = late if candidate else Script()
        return Told(boot, Played(raw=simulate(boot.spec.job, SCENARIOS["starvation"], script, candidate=candidate)))

    target = minimize.find(case.path)
    assert (target.code, target.alone) == ("canary-starved", False)
    found = minimize.minimize(
        target, guest=guest, listener=bench.events.append, cancelled=threading.Event(), trials=1000, jobs=1
    )
    assert found.complete
    left = Case.open(target.place)
    assert [run.spec.role for run in left.runs] == [Role.CANDIDATE, Role.CANDIDATE, Role.BASELINE]
    (own,) = left.scenarios().values()
    assert [(check.check, check.load) for check in own.checks] == [("gap", "plain")]
    assert [step.verb for step in own.steps] == ["start", "stop"]
    assert left.verdict is not None
    assert left.verdict.title == "canary starved in starvation" == found.title
    assert "baseline" in bench.runs


def test_a_schbench_of_the_user_stays_what_stands_for_it() -> None:
    own = SCENARIOS["schbench"]
    given = {"schbench": ("/job/workloads/schbench/lib/ld.so", "--argv0", "schbench", "/job/workloads/schbench/bin/s")}
    job = scenario.job_text(own, seed=0, candidate=("none",), kind="object", programs=given)
    assert minimize.programs_of(own, parse_job(job)) == given
    plain = scenario.job_text(own, seed=0, candidate=("none",), kind="object")
    assert minimize.programs_of(own, parse_job(plain)) == {"schbench": ("/usr/bin/schbench",)}
