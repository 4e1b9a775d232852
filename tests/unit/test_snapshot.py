# SPDX-License-Identifier: Apache-2.0
"""Snapshots: their key names all that they depend on, and damaged bytes are never loaded."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from testbed.errors import HostError, Interrupted
from testbed.image import Image
from testbed.image.cache import Cache
from testbed.spec import Topology
from testbed.vm import snapshot
from testbed.vm.snapshot import Facts, Rate

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
        monkeypatch.setattr(snapshot, "_make", self.make)

    def make(
        self, image: Image, topology: Topology, rate: Rate, key: str, directory: Path, cancelled: threading.Event
    ) -> None:
        self.made += 1
        if cancelled.is_set():
            raise Interrupted("interrupted")
        (directory / "ram0").write_bytes(b"memory")
        (directory / "state").write_bytes(b"state")
        facts = Facts(
            schema="testbed.snapshot/1",
            key=key,
            image=image.id,
            topology=topology,
            rate=rate,
            ram=snapshot._memory_hash(directory, topology),
            state=snapshot._hash(directory / "state"),
        )
        (directory / "manifest.json").write_text(facts.model_dump_json(by_alias=True))

    def ensure(self, cancelled: threading.Event | None = None) -> snapshot.Snapshot:
        return snapshot.ensure(IMAGE, TWO, RATE, cancelled=cancelled, told=self.told.append)

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
    monkeypatch.setattr(snapshot, "_make", lambda *rest: None)
    with pytest.raises(HostError, match="can't be read back"):
        bench.ensure()
