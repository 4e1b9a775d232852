# SPDX-License-Identifier: Apache-2.0
"""The main job on real guests, in both directions: good schedulers pass, bad ones are caught and rightly named."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import jsonschema
import pytest

from benchmarks.kill9 import left_by
from testbed import report
from testbed.image import Image
from tests.guest.conftest import COMMAND, ROOT, environment, testbed


def test_a_global_fifo_passes_and_the_verdict_can_be_had_again_from_the_evidence(image: Image, tmp_path: Path) -> None:
    answer = testbed(tmp_path, "bpf/good/global_fifo.bpf.c", "--policy", "quick", "--clock", "sim")
    assert (answer.code, answer.document["verdict"]) == (0, "pass"), answer.about()
    assert answer.document["safety"]["outcome"] == "pass"
    assert answer.document["image"]["id"] == image.id
    assert [(one["expected"], one["got"]) for one in answer.document["controls"]] == [
        ("pass", "pass"),
        ("fail", "fail"),
    ]
    jsonschema.validate(answer.document, report.schema())

    written = (answer.case / "verdict.json").read_bytes()
    assert str(tmp_path) not in written.decode(), "no absolute path in the verdict"
    moved = tmp_path / "elsewhere"
    answer.case.rename(moved)
    again = subprocess.run(
        [*COMMAND, "judge", str(moved), "--format", "json"], capture_output=True, check=False, env=environment(tmp_path)
    )
    assert again.returncode == 0
    assert json.loads(again.stdout)["id"] == answer.document["id"]
    assert (moved / "verdict.json").read_bytes() == written


def test_a_scheduler_that_forgets_tasks_is_rejected_and_its_failure_repeats_to_the_bit(
    image: Image, tmp_path: Path
) -> None:
    answer = testbed(tmp_path, "bpf/bad/drops_one_process.bpf.c", "--policy", "quick", "--clock", "sim")
    assert (answer.code, answer.document["verdict"]) == (1, "reject"), answer.about()
    assert "runnable-task-stall" in answer.failures, answer.about()
    assert all(finding["confirmed"] for finding in answer.document["findings"] if finding["status"] == "FAIL")
    runs = {
        spec["number"]: spec["repeats"]
        for spec in (json.loads(path.read_text()) for path in sorted(answer.case.glob("runs/*/spec.json")))
    }
    repeat, original = next((number, again) for number, again in runs.items() if again is not None)
    consoles = [(answer.case / f"runs/{number:03d}/console.log").read_bytes() for number in (original, repeat)]
    assert consoles[0] == consoles[1]
    events = [_without_macs(answer.case / f"runs/{number:03d}/stream") for number in (original, repeat)]
    assert events[0] == events[1]


def _without_macs(stream: Path) -> list[str]:
    """The stream without its MACs, whose key differs by run."""
    lines = [line.split(" ", 2) for line in stream.read_text("ascii", "replace").splitlines()]
    return [f"{words[0]} {words[2]}" for words in lines if len(words) == 3 and words[2].startswith("{")]


def test_the_kernels_own_stalling_example_is_rejected_for_the_right_reason(image: Image, tmp_path: Path) -> None:
    answer = testbed(tmp_path, "--policy", "quick", "--clock", "sim", "-k", "stall", "--", "scx_qmap", "-t", "10")
    assert answer.code == 1, answer.about()
    assert "runnable-task-stall" in answer.failures, answer.about()


def test_a_scheduler_that_decides_in_user_space_is_known_to_its_bpf_half(image: Image, tmp_path: Path) -> None:
    # It is recognised by getpid(), which a process namespace must not make another number than the kernel's.
    answer = testbed(tmp_path, "--policy", "quick", "--clock", "sim", "-k", "first-look", "--", "scx_userland")
    looked = {one["name"]: one["status"] for one in answer.document["scenarios"]}
    assert looked["first-look"] == "PASS", answer.about()
    assert not answer.failures, answer.about()


def test_a_program_that_the_verifier_refuses_is_told_with_its_source_line(image: Image, tmp_path: Path) -> None:
    answer = testbed(tmp_path, "bpf/bad/verifier_rejects.bpf.c", "--policy", "quick", "--clock", "sim", "-k", "stall")
    assert answer.code == 1, answer.about()
    assert answer.failures == {"verifier-rejected"}, answer.about()


def test_what_does_not_compile_is_rejected_without_a_guest(image: Image, tmp_path: Path) -> None:
    answer = testbed(tmp_path, "bpf/bad/does_not_compile.bpf.c")
    assert answer.code == 1, answer.about()
    assert answer.failures == {"compile-error"}
    assert not (answer.case / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["/nowhere/x.bpf.c"], "no such file"),
        (["README.md"], "is not a candidate"),
        (["--", "no_such_scheduler"], "no program `no_such_scheduler`"),
        (["bpf/good/global_fifo.bpf.c", "--policy", "sloppy"], "there is no policy `sloppy`"),
        (["bpf/good/global_fifo.bpf.c", "--out", "/dev/null/case"], "`--out /dev/null/case` can't be made"),
        (["bpf/good/global_fifo.bpf.c", "-k", "nothing"], "`-k nothing` matches no scenario"),
    ],
)
def test_what_can_not_be_meant_is_a_usage_error_and_makes_no_case(
    image: Image, tmp_path: Path, words: list[str], message: str
) -> None:
    answer = testbed(tmp_path, *words)
    assert answer.code == 2, answer.about()
    assert message in answer.document["message"]
    assert not (answer.case / "verdict.json").exists()


def test_an_interrupt_ends_the_guests_and_prints_an_incomplete_verdict(image: Image, tmp_path: Path) -> None:
    process = _start(tmp_path)
    _wait_for_guest(tmp_path)
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    document = json.loads(out)
    assert (document["complete"], document["exit_code"]) == (False, 130)
    assert left_by(tmp_path) == []


def test_kill_9_leaves_no_guest_and_no_verdict(image: Image, tmp_path: Path) -> None:
    process = _start(tmp_path)
    _wait_for_guest(tmp_path)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while left_by(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left_by(tmp_path) == []
    assert not (tmp_path / "case" / "verdict.json").exists()
    assert json.loads((tmp_path / "case" / "case.json").read_text())["interrupted"] is True


def _start(cases: Path) -> subprocess.Popen[str]:
    words = [
        "run",
        "bpf/good/global_fifo.bpf.c",
        "--policy",
        "quick",
        "--clock",
        "sim",
        "--no-cache",
        "--format",
        "json",
    ]
    return subprocess.Popen(
        [*COMMAND, *words, "--out", str(cases / "case")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(cases),
        cwd=ROOT,
    )


def _wait_for_guest(cases: Path) -> None:
    deadline = time.monotonic() + 120
    while not list(cases.glob("case/runs/*/stream")):
        assert time.monotonic() < deadline, "no guest was started"
        time.sleep(0.1)
    assert left_by(cases)
