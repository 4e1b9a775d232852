# SPDX-License-Identifier: Apache-2.0
"""What a gate hands on about who did not pass: bounded, what tells most first, and nothing of it obeys a candidate."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed import minimize
from testbed.case import VERDICT_FILE, Case
from testbed.cli import main
from testbed.errors import ExitCode, HostError, Interrupted, UsageError
from testbed.gate import Document, Entry, State, artifacts
from testbed.gate.artifacts import INDEX_FILE, PAGE, PICTURE, REPRO, SUMMARY_FILE, Index, collect, summary
from testbed.gate.document import Asked, conclude
from testbed.judge import judge
from testbed.verdict import PolicyFacts
from tests.unit.case_builder import CaseBuilder
from tests.unit.test_report_html import build, events
from tests.unit.test_report_writers import HOSTILE

ALL = [VERDICT_FILE, PAGE, PICTURE, REPRO]


@dataclass
class Gate:
    """A gate's directory with cases, as `Session` leaves it."""

    directory: Path
    document: Document


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """One that starves, one that passes, one that could not be judged."""
    directory = tmp_path / "gate"
    bad = build(directory / "cases" / "000-bad", events())
    good = CaseBuilder(directory / "cases" / "001-good")
    good.demand("starvation")
    good.pair("starvation")
    entries = [
        entry("sched/bad.bpf.c", bad),
        entry("sched/good.bpf.c", good.finish()),
        Entry(path="sched/lost.bpf.c", sha256="", state=State.FAILED, trouble="no disk", case="cases/002-lost"),
    ]
    return Gate(directory, document(*entries))


def entry(path: str, case: Case) -> Entry:
    place = f"cases/{case.path.name}"
    return Entry(path=path, sha256="", state=State.JUDGED, case=place, verdict=judge(case), elapsed_s=1.0)


def document(*entries: Entry) -> Document:
    policy = PolicyFacts(name="quick", sha256="0" * 64)
    asked = Asked(
        policy=policy, policy_word="quick", scenarios=None, clock=None, cpus=None, seeds=None, judge=1, testbed="0"
    )
    return conclude(entries, asked, plan="p")


def shrunk(target: minimize.Target) -> None:
    """What a search leaves."""
    target.place.mkdir(parents=True)
    (target.place / "case.json").write_text("{}")
    (target.place / minimize.RESULT_FILE).write_text("{}")
    (target.place / "link").symlink_to("/etc/passwd")


def names(index: Index) -> list[str]:
    return [file.name for file in index.files]


def test_who_failed_has_a_verdict_a_page_a_picture_and_a_run(gate: Gate, tmp_path: Path) -> None:
    target = tmp_path / "failures"
    index = collect(gate.document, gate.directory, target, shrink=shrunk)
    assert names(index) == [f"000-bad/{name}" for name in ALL]
    assert [(one.candidate, one.what) for one in index.left_out] == [("sched/lost.bpf.c", PAGE)]
    assert json.loads((target / "000-bad" / VERDICT_FILE).read_text())["verdict"] == "reject"
    assert (target / "000-bad" / PICTURE).read_text().startswith("<svg")
    with tarfile.open(target / "000-bad" / REPRO) as archive:
        assert archive.getnames() == ["000-bad-minimal/case.json", "000-bad-minimal/minimized.json"]
    assert Index.model_validate_json((target / INDEX_FILE).read_bytes()) == index
    assert "left out" in (target / SUMMARY_FILE).read_text()


def test_a_run_that_was_shrunk_is_packed_to_the_same_bytes_and_not_shrunk_again(gate: Gate, tmp_path: Path) -> None:
    collect(gate.document, gate.directory, tmp_path / "one", shrink=shrunk)
    collect(gate.document, gate.directory, tmp_path / "two")
    assert (tmp_path / "one/000-bad" / REPRO).read_bytes() == (tmp_path / "two/000-bad" / REPRO).read_bytes()


def test_the_bound_is_kept_and_what_tells_least_goes_first(gate: Gate, tmp_path: Path) -> None:
    whole = collect(gate.document, gate.directory, tmp_path / "whole", shrink=shrunk)
    size = {file.name.partition("/")[2]: file.bytes for file in whole.files}
    for number, lacking in enumerate((REPRO, PICTURE, PAGE)):
        rest = ALL[: ALL.index(lacking)]
        limit = sum(size[name] for name in rest) + artifacts._INDEX_BYTES
        index = collect(gate.document, gate.directory, tmp_path / str(number), limit=limit)
        assert [name for name in ALL if f"000-bad/{name}" in names(index)][: len(rest)] == rest
        assert lacking in [one.what for one in index.left_out]
        written = sum(path.stat().st_size for path in (tmp_path / str(number)).rglob("*") if path.is_file())
        assert written <= limit


def test_a_run_that_can_not_be_shrunk_is_told(gate: Gate, tmp_path: Path) -> None:
    def fails(target: minimize.Target) -> None:
        raise HostError("it did not fail again")

    index = collect(gate.document, gate.directory, tmp_path / "failures", shrink=fails)
    assert names(index) == [f"000-bad/{name}" for name in ALL[:3]]
    assert (REPRO, "it did not fail again") in [(one.what, one.why) for one in index.left_out]


def test_an_interrupt_while_shrinking_writes_nothing(gate: Gate, tmp_path: Path) -> None:
    def interrupted(target: minimize.Target) -> None:
        raise Interrupted("interrupted")

    with pytest.raises(Interrupted):
        collect(gate.document, gate.directory, tmp_path / "failures", shrink=interrupted)
    assert not (tmp_path / "failures").exists()


def test_a_directory_that_holds_something_is_refused(gate: Gate, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    with pytest.raises(UsageError, match="is not an empty directory"):
        collect(gate.document, gate.directory, tmp_path / "full")


def test_nobody_failed(tmp_path: Path) -> None:
    index = collect(document(), tmp_path, tmp_path / "failures")
    assert (index.files, index.left_out) == ((), ())
    assert (tmp_path / "failures" / SUMMARY_FILE).read_text() == ""


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_a_candidate_stays_text(gate: Gate, text: str) -> None:
    file = artifacts.File(candidate=text, name=f"000-x/{PAGE}", bytes=1)
    left = artifacts.LeftOut(candidate=text, what=PAGE, why=text)
    said = summary(Index(limit=1, files=(file,), left_out=(left,)))
    assert len(said.splitlines()) == 4, "no line of a candidate's"
    for line in said.splitlines()[2:]:
        assert not any(char in line.replace("<code>", "").replace("</code>", "") for char in "<>`[]|!*_@\\")


def test_shrinking_is_for_artifacts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gate", "--minimize", "3"]) == ExitCode.USAGE
    assert "`--minimize` is for `--artifacts`" in capsys.readouterr().err
