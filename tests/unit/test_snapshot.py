# SPDX-License-Identifier: Apache-2.0
"""Snapshots: their key names all that they depend on, and damaged bytes are never loaded."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from testbed import policy
from testbed.errors import HostError, Interrupted
from testbed.image import Image
from testbed.image.cache import Cache
from testbed.plan import plan
from testbed.spec import Role, RunSpec, Topology
from testbed.vm import snapshot
from testbed.vm.snapshot import Facts, Rate
from tests.unit.test_plan import question

TWO = Topology(cpus=2, memory_mb=512)
RATE = Rate(shift=2, quantum=2500)
IMAGE = cast(Image, SimpleNamespace(id="i" * 64))


def test_the_key_names_image_machine_and_rate() -> None:
    keys = {
        snapshot.key_of(IMAGE.id, TWO, RATE),
        snapshot.key_of("j" * 64, TWO, RATE),
        snapshot.key_of(IMAGE.id, Topology(cpus=4, memory_mb=512), RATE),
        snapshot.key_of(IMAGE.id, Topology(cpus=2, memory_mb=256), RATE),
        snapshot.key_of(IMAGE.id, TWO, Rate(shift=1, quantum=2500)),
        snapshot.key_of(IMAGE.id, TWO, Rate(shift=2, quantum=2501)),
    }
    assert len(keys) == 6


def test_the_hash_sees_content_and_size_and_not_how_holes_are_stored(tmp_path: Path) -> None:
    block = 1 << 16
    sparse, dense, other, longer = (tmp_path / name for name in ("sparse", "dense", "other", "longer"))
    for path in (sparse, dense, other, longer):
        with path.open("wb") as file:
            file.truncate(40 * block)
            os.pwrite(file.fileno(), b"x" * 100, 7 * block + 11)
    with dense.open("r+b") as file:
        os.pwrite(file.fileno(), bytes(5 * block), 20 * block)
    with other.open("r+b") as file:
        os.pwrite(file.fileno(), b"y", 39 * block)
    with longer.open("r+b") as file:
        file.truncate(41 * block)
    hashes = [snapshot._hash(path) for path in (sparse, dense, other, longer)]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


class Bench:
    """Snapshots that are made without QEMU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.made = 0
        self.told: list[str] = []
        monkeypatch.setenv("TESTBED_CACHE", str(root))
        monkeypatch.setattr(snapshot, "_known", {})
        self.attached = 0
        self.attaches = True
        monkeypatch.setattr(snapshot._Making, "boot", lambda making: self.make(making, ""))
        monkeypatch.setattr(snapshot._Making, "attach", lambda making, *words: self.attach(making, *words))

    def attach(self, making: snapshot._Making, base: snapshot.Snapshot, prefix: snapshot.Prefix, files: Path) -> None:
        self.attached += 1
        if not self.attaches:
            raise snapshot.NotAttachedError("QEMU ended with status 0")
        self.make(making, prefix.sha256)

    def make(self, making: snapshot._Making, attached: str) -> None:
        if not attached:
            self.made += 1
        if making.cancelled.is_set():
            raise Interrupted("interrupted")
        directory = making.directory
        (directory / "ram0").write_bytes(b"memory")
        (directory / "state").write_bytes(b"state")
        facts = Facts(
            schema="testbed.snapshot/1",
            key=making.key,
            image=making.image.id,
            topology=making.topology,
            rate=making.rate,
            attached=attached,
            ram=snapshot._memory_hash(directory, making.topology),
            state=snapshot._hash(directory / "state"),
        )
        (directory / "manifest.json").write_text(facts.model_dump_json(by_alias=True))

    def ensure(self, cancelled: threading.Event | None = None) -> snapshot.Snapshot:
        return snapshot.ensure(IMAGE, TWO, RATE, cancelled=cancelled, told=self.told.append)

    def ensure_for(self, spec: RunSpec) -> snapshot.Snapshot:
        return snapshot.ensure_for(IMAGE, spec, Path("files"), threading.Event())

    def forget(self) -> None:
        """As another process would find the cache."""
        snapshot._known.clear()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    return Bench(monkeypatch, tmp_path / "cache")


def test_a_snapshot_is_made_once(bench: Bench) -> None:
    first = bench.ensure()
    bench.forget()
    assert bench.ensure() == first
    assert bench.made == 1
    assert bench.told == []


@pytest.mark.parametrize("name", ["ram0", "state", "manifest.json"])
def test_a_damaged_snapshot_is_told_and_made_again(bench: Bench, name: str) -> None:
    place = bench.ensure().path
    (place / name).write_bytes(b"damage")
    bench.forget()
    assert bench.ensure().path == place
    assert bench.made == 2
    assert "is damaged; it is made again" in bench.told[0]
    assert (place / "ram0").read_bytes() == b"memory"


def test_several_threads_make_one(bench: Bench) -> None:
    threads = [threading.Thread(target=bench.ensure) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bench.made == 1


def test_an_interrupt_leaves_nothing(bench: Bench) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(Interrupted):
        bench.ensure(cancelled)
    cache = Cache.open()
    assert list(cache.snapshots.iterdir()) == []
    assert list(cache.tmp.iterdir()) == []


def test_one_that_can_not_be_read_back_is_the_hosts_fault(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot._Making, "boot", lambda making: None)
    with pytest.raises(HostError, match="can't be read back"):
        bench.ensure()


def spec_of(scenario: str, *, attached: bool, role: Role = Role.CANDIDATE) -> RunSpec:
    """A run of the policy `default` against the machine of this file."""
    specs = plan(question(policy=policy.load("default")[0])).specs
    spec = next(one for one in specs if one.scenario == scenario and one.role is role)
    return spec.model_copy(update={"attached": attached, "topology": TWO})


def test_what_is_done_before_a_machine_is_saved_with_its_candidate() -> None:
    spec = spec_of("crawl", attached=True)
    prefix = snapshot.prefix_of(spec)
    assert prefix is not None
    assert prefix.files == spec.files
    assert prefix.job.splitlines() == [
        "testbed-job 1",
        "seed 0",
        "limit 160000",
        "candidate object candidate.bpf.o",
        "timeout_ms 3000",
        "attach 150000",
        "save",
    ]
    assert snapshot.prefix_of(spec_of("crawl", attached=False)) is None


def test_runs_that_attach_first_share_a_machine_whatever_their_scenario_and_seed() -> None:
    found = {snapshot.prefix_of(spec_of(name, attached=True)) for name in ("crawl", "starvation")}
    assert len(found) == 1
    assert snapshot.prefix_of(spec_of("first-look", attached=True)) not in found, "its timeout_ms is another one"


def test_only_who_attaches_first_may_begin_attached() -> None:
    assert snapshot.may_begin_attached(spec_of("crawl", attached=False))
    assert not snapshot.may_begin_attached(spec_of("attach-detach", attached=False))
    assert not snapshot.may_begin_attached(spec_of("crawl", attached=False, role=Role.BASELINE))


def test_every_setting_that_a_job_may_have_stands_before_its_first_step() -> None:
    spec = spec_of("crawl", attached=True)
    header, rest = spec.job.split("\n", 1)
    more = spec.model_copy(update={"job": f"{header}\noracle 1\ncallbacks 1\n{rest}"})
    assert snapshot.may_begin_attached(more)
    assert snapshot.prefix_of(more) == snapshot.prefix_of(spec)


def test_a_machine_with_a_candidate_is_made_from_the_one_without(bench: Bench) -> None:
    plain, attached = (
        bench.ensure_for(spec_of("crawl", attached=False)),
        bench.ensure_for(spec_of("crawl", attached=True)),
    )
    bench.ensure_for(spec_of("starvation", attached=True))
    assert plain.facts.attached == ""
    assert attached.facts.attached != ""
    assert (bench.made, bench.attached) == (1, 1)


def test_a_candidate_that_does_not_attach_there_begins_without_and_is_not_tried_again(bench: Bench) -> None:
    bench.attaches = False
    spec = spec_of("crawl", attached=True)
    assert bench.ensure_for(spec).facts.attached == ""
    assert bench.ensure_for(spec) == bench.ensure()
    assert bench.attached == 1


def test_the_oldest_machines_with_candidates_go(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "KEPT_ATTACHED", 2)
    plain = bench.ensure().path
    made = []
    for age, files in enumerate("abc"):
        spec = spec_of("crawl", attached=True).model_copy(update={"files": files * 64})
        made.append(bench.ensure_for(spec).path)
        os.utime(made[-1], (age, age))
    assert [place.exists() for place in (plain, *made)] == [True, False, True, True]


def test_a_copy_of_a_memory_file_has_the_same_bytes_and_holes(tmp_path: Path) -> None:
    source, target = tmp_path / "old", tmp_path / "new"
    with source.open("wb") as file:
        file.write(b"begin")
        file.seek(8 << 20)
        file.write(b"middle")
        file.truncate(16 << 20)
    snapshot._copy_sparse(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks <= source.stat().st_blocks
