# SPDX-License-Identifier: Apache-2.0
"""Virtual time on real guests: a run repeats to the bit, a seed is another run, and a moment can be looked at."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import NoteSegment

from testbed import digest, policy, scenario, trial
from testbed.build import build, guest_command
from testbed.candidate import read_candidate
from testbed.case import CONSOLE_FILE, TRACE_FILE, Ended, read_run
from testbed.cli.run import make_guest
from testbed.engine.local import LocalEngine
from testbed.image import Image
from testbed.image.cpio import write_archive
from testbed.judge import assess
from testbed.spec import Clock, Role, RunSpec, Topology
from testbed.status import Status
from testbed.vm import snapshot
from tests.guest.conftest import COMMAND, ROOT, Answer, environment, testbed


def spec(image: Image, files: str, *, seed: int = 0, name: str = "first-look") -> RunSpec:
    chosen = scenario.load_all()[name]
    return RunSpec(
        schema="testbed.run/1",
        number=0,
        role=Role.BASELINE,
        scenario=name,
        clock=Clock.SIM,
        topology=Topology(cpus=2, memory_mb=512),
        seed=seed,
        job=scenario.job_text(chosen, seed=seed, candidate=("none",), kind="object"),
        files=files,
        image=image.id,
        wall_limit_s=600,
    )


def run(image: Image, tmp: Path, *, seed: int = 0) -> Path:
    """One run of EEVDF without any cache."""
    files = write_archive(tmp / "files", {})
    place = tmp / f"seed{seed}-{len(list(tmp.iterdir()))}" / "000"
    engine = LocalEngine(image, {files: tmp / "files"}, make_guest)
    assert engine.execute(spec(image, files, seed=seed), place, threading.Event(), lambda line: None) is not None
    return place


def test_the_same_run_repeats_to_the_bit_and_a_seed_is_another_one(image: Image, tmp_path: Path) -> None:
    first, again, other = run(image, tmp_path), run(image, tmp_path), run(image, tmp_path, seed=3)
    assert digest.parting(first, again) is None
    one, two, three = (read_run(place).outcome for place in (first, again, other))
    assert one.ended is Ended.FINISHED
    assert (one.digest, one.snapshot) == (two.digest, two.snapshot)
    assert one.digest == digest.of(first)
    assert (first / "key").read_bytes() != (again / "key").read_bytes(), "the key is random, and does not matter"
    assert three.digest != one.digest
    assert three.snapshot == one.snapshot
    traces = [(place / TRACE_FILE).read_text().splitlines() for place in (first, other)]
    assert len(traces[0]) > 500, "a line for each ms in which something ran"
    assert traces[0][:50] != traces[1][:50]


def test_seeds_change_what_differs_between_two_boots(image: Image, tmp_path: Path) -> None:
    tasks = []
    for seed in (0, 1):
        events = read_run(run(image, tmp_path, seed=seed)).stream.of("task")
        tasks.append([(event.text("load"), event.text("comm"), event.integer("pid")) for event in events])
    assert [load for load, _, _ in tasks[0]] == [load for load, _, _ in tasks[1]]
    assert [comm for _, comm, _ in tasks[0]] != [comm for _, comm, _ in tasks[1]]
    assert {pid for _, _, pid in tasks[0]}.isdisjoint({pid for _, _, pid in tasks[1]})
    assert not any(comm.startswith("tb-") for some in tasks for _, comm, _ in some)


def attached_run(image: Image, tmp: Path, source: str, *, seed: int = 0) -> Path:
    """One run of a scheduler of ours that begins attached."""
    work = tmp / f"attached-{len(list(tmp.iterdir()))}"
    artifact = build(read_candidate(str(ROOT / source)), image, work / "candidate")
    packed = trial.archives(artifact, {}, work)
    words = guest_command(artifact)
    begin = spec(image, packed.candidate, seed=seed).model_copy(
        update={
            "role": Role.CANDIDATE,
            "candidate": artifact.candidate.sha256,
            "job": scenario.job_text(scenario.load_all()["first-look"], seed=seed, candidate=words, kind="object"),
            "attached": True,
        }
    )
    place = work / "000"
    engine = LocalEngine(image, dict(packed.by_hash), make_guest)
    assert engine.execute(begin, place, threading.Event(), lambda line: None) is not None
    return place


def test_a_run_that_begins_attached_repeats_and_is_judged_like_any_other(image: Image, tmp_path: Path) -> None:
    good = [attached_run(image, tmp_path, "bpf/good/global_fifo.bpf.c", seed=seed) for seed in (0, 0, 3)]
    assert digest.parting(good[0], good[1]) is None
    assert digest.parting(good[0], good[2]) is not None, "a seed is another run"
    first = read_run(good[0])
    assert first.stream.damage == ()
    attach = first.stream.first("attach")
    assert attach is not None and attach.flag("ok") and attach.flag("before")
    assert first.stream.first("load") is None, "the verifier did its work before"
    hello, began = first.stream.events[0], attach.t - first.stream.events[0].t
    assert (hello.name, hello.text("state")) == ("hello", "enabled")
    assert began < 100_000_000
    demanded, _ = policy.load("quick")
    look = scenario.load_all()["first-look"]
    assert assess(first, scenario=look, policy=demanded, baseline=None, sources={}).status is Status.PASS

    bad = read_run(attached_run(image, tmp_path, "bpf/bad/drops_one_process.bpf.c"))
    found = assess(bad, scenario=look, policy=demanded, baseline=None, sources={}).findings
    assert {one.code for one in found} == {"runnable-task-stall"}


@pytest.fixture(scope="module")
def rejected(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """A case of a scheduler that loses tasks."""
    tmp = tmp_path_factory.mktemp("rejected")
    return testbed(tmp, "bpf/bad/drops_one_process.bpf.c", "--policy", "quick", "--clock", "sim", "-k", "first-look")


def tool(tmp: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], capture_output=True, text=True, check=False, env=environment(tmp), cwd=ROOT
    )


def test_a_rejection_replays_wherever_the_case_is(rejected: Answer, tmp_path: Path) -> None:
    assert rejected.code == 1, rejected.about()
    assert rejected.failures == {"runnable-task-stall"}, rejected.about()
    moved = tmp_path / "elsewhere"
    subprocess.run(["cp", "-r", str(rejected.case), str(moved)], check=True)
    result = tool(tmp_path, "replay", str(moved), "--json")
    assert result.returncode == 0, result.stderr
    runs = json.loads(result.stdout)
    assert runs[0]["run"].endswith("000"), "the candidate's; EEVDF's is cut short where two guests were faster"
    assert all(one["identical"] for one in runs), runs

    console = moved / "runs/000" / CONSOLE_FILE
    console.write_bytes(console.read_bytes().replace(b"sched_ext:", b"sched_eXt:", 1))
    result = tool(tmp_path, "replay", str(moved / "runs/000"))
    assert result.returncode == 1
    assert "they part in console.log, line " in result.stdout
    assert "sched_eXt:" in result.stdout


def test_a_guest_stops_at_a_finding_and_its_memory_can_be_read(rejected: Answer, tmp_path: Path) -> None:
    dump = tmp_path / "vmcore"
    result = tool(tmp_path, "replay", str(rejected.case), "--until", "runnable-task-stall", "--dump", str(dump))
    assert result.returncode == 0, result.stderr
    assert "stands still at" in result.stdout
    with dump.open("rb") as file:
        core = ELFFile(file)
        assert core["e_type"] == "ET_CORE"
        segments = [segment for segment in core.iter_segments("PT_NOTE") if isinstance(segment, NoteSegment)]
        names = {note["n_name"] for segment in segments for note in segment.iter_notes()}
    assert "VMCOREINFO" in names, "crash and drgn need it"


def told(answer: Answer) -> tuple[object, ...]:
    """A rejection without the runs that were cut short, or were not, when it was confirmed."""
    return tuple(answer.document[key] for key in ("verdict", "title", "safety", "candidate", "findings"))


def test_the_same_question_is_answered_from_the_cache_with_the_same_verdict(
    rejected: Answer, image: Image, tmp_path: Path
) -> None:
    words = ("bpf/bad/drops_one_process.bpf.c", "--policy", "quick", "--clock", "sim", "-k", "first-look")
    again = testbed(tmp_path, *words)
    assert told(again) == told(rejected)
    found = [
        json.loads((path / "host.json").read_text())
        for path in sorted(again.case.glob("runs/*"))
        if read_run(path).spec.role is Role.CANDIDATE
    ]
    # EEVDF's run may have been ended before it was done, when the failure was confirmed.
    assert [(host["cached"], host["confirmed"]) for host in found] == [(True, True)] * 2


@pytest.mark.slow
def test_two_snapshots_that_were_made_apart_have_the_same_memory(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name in ("one", "two"):
        root = tmp_path / name
        root.mkdir()
        (root / "images").symlink_to(image.path.parent)
        monkeypatch.setenv("TESTBED_CACHE", str(root))
        topology = Topology(cpus=2, memory_mb=512)
        found.append(snapshot.ensure(image, topology, snapshot.Rate(shift=2, quantum=2500)).facts.ram)
    assert found[0] == found[1]
