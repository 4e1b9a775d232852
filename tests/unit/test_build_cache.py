# SPDX-License-Identifier: Apache-2.0
"""Compiled candidates are kept under the hash of all that they are made of, and only believed byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from testbed import build as builds
from testbed.build import Artifact, ArtifactFacts, Toolchain
from testbed.build import cache as kept
from testbed.build.cache import build_key, cached_build
from testbed.candidate import Candidate, Kind, read_candidate
from testbed.case import canonical_json
from testbed.image.cache import Cache
from testbed.verdict import CandidateFacts

TOOLS = cast(Toolchain, SimpleNamespace())


class Bench:
    """A compiler that counts."""

    def __init__(self, tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tmp = tmp
        self.made = 0
        self.copies = 0
        self.cache = Cache.open(tmp / "cache")
        source = tmp / "sut.bpf.c"
        source.write_text("int x;\n")
        self.candidate = read_candidate(str(source))
        monkeypatch.setattr(kept, "build", self.build)

    def build(self, candidate: Candidate, image: Toolchain, out_dir: Path) -> Artifact:
        self.made += 1
        (out_dir / "include").mkdir(parents=True)
        (out_dir / "candidate.bpf.o").write_bytes(b"object")
        (out_dir / "include" / "a.h").write_bytes(b"")
        facts = ArtifactFacts(
            schema="testbed.artifact/1", candidate=CandidateFacts(kind="source", name="sut", sha256="a" * 64)
        )
        (out_dir / builds.ARTIFACT).write_bytes(canonical_json(facts.model_dump(mode="json", by_alias=True)))
        return Artifact(out_dir, facts)

    def get(self, image_id: str = "i" * 64) -> Artifact:
        self.copies += 1
        return cached_build(self.candidate, TOOLS, image_id, self.tmp / f"out{self.copies}", self.cache)

    @property
    def entry(self) -> Path:
        return next(self.cache.builds.iterdir())


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_the_same_source_is_compiled_once(bench: Bench) -> None:
    first, second = bench.get(), bench.get()
    assert bench.made == 1
    assert first.facts == second.facts
    for name in ("candidate.bpf.o", "include/a.h", builds.ARTIFACT):
        assert (first.directory / name).read_bytes() == (second.directory / name).read_bytes()


def test_another_image_or_source_compiles_again(bench: Bench) -> None:
    bench.get()
    bench.get("j" * 64)
    (bench.tmp / "sut.bpf.c").write_text("int y;\n")
    bench.candidate = read_candidate(str(bench.tmp / "sut.bpf.c"))
    bench.get()
    assert bench.made == 3


def test_the_code_that_builds_is_part_of_the_key(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    before = build_key(bench.candidate, "i")
    monkeypatch.setattr(kept, "_ourselves", lambda: "another version")
    assert build_key(bench.candidate, "i") != before


@pytest.mark.parametrize("name", ["files/candidate.bpf.o", f"files/{builds.ARTIFACT}", "entry.json"])
def test_a_damaged_entry_is_compiled_again(bench: Bench, name: str) -> None:
    bench.get()
    (bench.entry / name).write_bytes(b"damage")
    assert (bench.get().directory / "candidate.bpf.o").read_bytes() == b"object"
    assert bench.made == 2


def test_an_entry_can_not_write_outside_of_the_case(bench: Bench) -> None:
    bench.get()
    entry = json.loads((bench.entry / "entry.json").read_text())
    outside = bench.tmp / "outside"
    entry["files"]["../outside"] = entry["files"]["candidate.bpf.o"]
    (bench.entry / "outside").write_bytes(b"object")
    (bench.entry / "entry.json").write_text(json.dumps(entry))
    bench.get()
    assert not outside.exists()
    assert bench.made == 2


def test_objects_are_not_kept(bench: Bench, tmp_path: Path) -> None:
    bench.candidate = cast(Candidate, SimpleNamespace(kind=Kind.OBJECT))
    bench.get()
    assert list(bench.cache.builds.iterdir()) == []


def test_a_cache_that_can_not_be_written_costs_nothing_but_time(bench: Bench) -> None:
    bench.cache.tmp.rmdir()
    bench.cache.tmp.write_text("")
    bench.get()
    assert bench.get().facts.candidate.name == "sut"
    assert bench.made == 2
