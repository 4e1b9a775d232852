# SPDX-License-Identifier: Apache-2.0
"""The cache of sim runs: what has one answer is run once, what is damaged is not believed, what differs is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from testbed.case import KEY_FILE, OUTCOME_FILE, SPEC_FILE, STREAM_FILE, Ended, GuestOutcome, read_run, write_model
from testbed.engine import Executed
from testbed.engine.cached import CachedEngine, run_key, spot_check
from testbed.engine.local import HOST_FILE
from testbed.image.cache import Cache
from testbed.plan import plan
from testbed.spec import Clock, RunSpec
from tests.unit.test_plan import question


@dataclass
class Counting:
    """An engine that writes a little evidence and counts."""

    digest: str = "d1"
    runs: list[int] = field(default_factory=list)

    def execute(
        self, spec: RunSpec, directory: Path, stop: threading.Event, line: Callable[[str], None]
    ) -> Executed | None:
        if stop.is_set():
            return None
        self.runs.append(spec.number)
        directory.mkdir(parents=True)
        write_model(directory / SPEC_FILE, spec)
        (directory / KEY_FILE).write_text("ab" * 32 + "\n")
        (directory / STREAM_FILE).write_bytes(b"what was said\n")
        (directory / HOST_FILE).write_text('{"seconds": 1.5}')
        write_model(directory / OUTCOME_FILE, outcome(self.digest))
        return Executed()


def outcome(digest: str) -> GuestOutcome:
    return GuestOutcome(accelerator="tcg-parallel-icount", qemu="10", ended=Ended.FINISHED, digest=digest)


@dataclass
class Bench:
    tmp: Path
    inner: Counting = field(default_factory=Counting)
    told: list[str] = field(default_factory=list)
    made: int = 0

    @property
    def cache(self) -> Cache:
        return Cache.open(self.tmp / "cache")

    def execute(self, spec: RunSpec, stop: threading.Event | None = None) -> tuple[Executed | None, Path]:
        directory = self.tmp / f"case{self.made}" / "runs" / spec.name
        self.made += 1
        engine = CachedEngine(self.inner, self.cache, self.told.append)
        return engine.execute(spec, directory, stop or threading.Event(), lambda line: None), directory

    @property
    def entry(self) -> Path:
        return next(self.cache.runs.iterdir())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


SPEC = plan(question()).specs[0]


def test_the_same_inputs_are_run_once_whatever_their_place_in_the_case(bench: Bench) -> None:
    first, _ = bench.execute(SPEC)
    moved = SPEC.model_copy(update={"number": 7, "wall_limit_s": 5})
    again, directory = bench.execute(moved)
    assert (first, again) == (Executed(), Executed(cached=True, confirmed=False))
    assert bench.inner.runs == [SPEC.number]
    run = read_run(directory)
    assert (run.spec, run.outcome.digest) == (moved, "d1")
    assert json.loads((directory / HOST_FILE).read_text()) == {"cached": True, "confirmed": False, "seconds": 1.5}


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 99},
        {"candidate": "e" * 64},
        {"files": "e" * 64},
        {"image": "e" * 64},
        {"job": "testbed-job 1\nsleep 1\n"},
        {"icount_shift": 3},
        {"parallel_quantum": 77},
        {"topology": SPEC.topology.model_copy(update={"cpus": 4})},
    ],
)
def test_other_inputs_are_another_run(change: dict[str, object]) -> None:
    assert run_key(SPEC.model_copy(update=change)) != run_key(SPEC)


def test_a_live_run_is_never_cached(bench: Bench) -> None:
    live = SPEC.model_copy(update={"clock": Clock.LIVE})
    bench.execute(live)
    bench.execute(live)
    assert len(bench.inner.runs) == 2
    assert list(bench.cache.runs.iterdir()) == []


def test_a_run_that_the_host_ended_is_not_cached(bench: Bench) -> None:
    bench.inner.digest = ""
    bench.execute(SPEC)
    assert list(bench.cache.runs.iterdir()) == []


def test_a_repetition_is_really_run_and_confirms_the_entry(bench: Bench) -> None:
    repeat = SPEC.model_copy(update={"number": 9, "repeats": SPEC.number})
    bench.execute(SPEC)
    assert bench.execute(repeat)[0] == Executed()
    assert bench.execute(repeat)[0] == Executed(cached=True, confirmed=True)
    assert bench.execute(SPEC)[0] == Executed(cached=True, confirmed=True)
    assert bench.inner.runs == [SPEC.number, 9]


def test_a_repetition_that_ran_beside_its_run_confirms_the_entry(bench: Bench) -> None:
    repeat = SPEC.model_copy(update={"number": 9, "repeats": SPEC.number})
    real = bench.inner.execute

    def beside(spec: RunSpec, directory: Path, stop: threading.Event, line: Callable[[str], None]) -> Executed | None:
        if spec.repeats is not None and len(bench.inner.runs) == 0:
            bench.execute(SPEC)
        return real(spec, directory, stop, line)

    bench.inner.execute = beside  # type: ignore[method-assign]  # the other guest, on another thread
    assert bench.execute(repeat)[0] == Executed()
    assert bench.inner.runs == [SPEC.number, 9]
    assert bench.execute(repeat)[0] == Executed(cached=True, confirmed=True)


def test_a_repetition_with_another_digest_is_told_and_nothing_stays_in_the_cache(bench: Bench) -> None:
    bench.execute(SPEC)
    bench.inner.digest = "d2"
    bench.execute(SPEC.model_copy(update={"number": 9, "repeats": SPEC.number}))
    assert list(bench.cache.runs.iterdir()) == []
    assert "had the same inputs and another digest" in bench.told[0]


@pytest.mark.parametrize("name", [STREAM_FILE, OUTCOME_FILE, KEY_FILE, "entry.json"])
@pytest.mark.parametrize("damage", [b"", b"something else"])
def test_a_damaged_entry_is_thrown_away_loudly_and_run_again(bench: Bench, name: str, damage: bytes) -> None:
    bench.execute(SPEC)
    (bench.entry / name).write_bytes(damage)
    executed, directory = bench.execute(SPEC)
    assert executed == Executed()
    assert "thrown away" in bench.told[0]
    assert (directory / STREAM_FILE).read_bytes() == b"what was said\n"
    assert bench.execute(SPEC)[0] == Executed(cached=True)


def test_an_entry_can_not_name_files_of_the_host(bench: Bench) -> None:
    bench.execute(SPEC)
    entry = json.loads((bench.entry / "entry.json").read_text())
    entry["files"]["../../../secret"] = "0" * 64
    (bench.entry / "entry.json").write_text(json.dumps(entry))
    assert bench.execute(SPEC)[0] == Executed()


def test_an_interrupted_run_leaves_nothing_in_the_cache(bench: Bench) -> None:
    stop = threading.Event()
    stop.set()
    assert bench.execute(SPEC, stop)[0] is None
    assert list(bench.cache.runs.iterdir()) == []


def test_a_cache_that_can_not_be_written_costs_the_entry_and_not_the_run(bench: Bench) -> None:
    cache = bench.cache
    cache.tmp.rmdir()
    cache.tmp.write_text("not a directory")
    engine = CachedEngine(bench.inner, cache, bench.told.append)
    directory = bench.tmp / "case" / "runs" / SPEC.name
    assert engine.execute(SPEC, directory, threading.Event(), lambda line: None) == Executed()
    assert (directory / OUTCOME_FILE).is_file()
    assert "the run is not cached" in bench.told[0]


def test_about_one_of_sixteen_runs_is_spot_checked_and_always_the_same() -> None:
    specs = [SPEC.model_copy(update={"seed": seed}) for seed in range(1600)]
    chosen = [spec.seed for spec in specs if spot_check(spec)]
    assert 60 < len(chosen) < 140
    assert chosen == [spec.seed for spec in specs if spot_check(spec)]
    assert not any(spot_check(spec.model_copy(update={"clock": Clock.LIVE})) for spec in specs)
