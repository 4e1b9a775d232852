# SPDX-License-Identifier: Apache-2.0
"""The command line: exit codes, errors that say who must act, one JSON document on stdout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from testbed import cases
from testbed.cli import main
from testbed.errors import ExitCode

CLUSTER = ("--engine", "dask", "--scheduler", "tcp://here:8786")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run"], "expected one candidate: a file, or a program behind `--`"),
        (["run", "a.bpf.c", "--", "scx_simple"], "expected one candidate: a file, or a program behind `--`"),
        (["run", "a.bpf.c", "--clock", "lunar"], "argument --clock: invalid choice: 'lunar'"),
        (["run", "a.bpf.c", "--cpus", "0"], "argument --cpus: expected a whole number from 1 to 64, found `0`"),
        (["run", "a.bpf.c", "-j", "many"], "argument -j: expected a whole number from 1 to 256, found `many`"),
        (["run", "a.bpf.c", "--format", "xml"], "there is no format `xml`"),
        (["run", "a.bpf.c", "--format", "text", "--format", "text"], "only one format can go to stdout"),
        (["explain", "no-such-code"], "no-such-code"),
        (["explain", "--", "scx_simple"], "`testbed explain` takes no program behind `--`"),
        (["judge", "/nowhere"], "`/nowhere` is not a case"),
        (["cases", "show", "nothing"], "`nothing` is no case"),
        (["scenarios", "nothing"], "there is no scenario `nothing`"),
        (["lint"], "the following arguments are required: CANDIDATE"),
        (["lint", "a.bpf.c", "--format", "xml"], "argument --format: invalid choice: 'xml'"),
        (["lint", "--", "scx_simple"], "the following arguments are required: CANDIDATE"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["run", "a.bpf.c", "--engine", "dask"], "`--engine dask` needs `--scheduler ADDRESS`"),
        (["gate", "--scheduler", "tcp://here:8786"], "`--scheduler` is for `--engine dask`"),
        (["corpus", "--engine", "slurm"], "argument --engine: invalid choice: 'slurm'"),
        (["nightly", "--engine", "dask"], "`--engine dask` needs `--scheduler ADDRESS`"),
        (["run", "a.bpf.c", *CLUSTER, "--clock", "live"], "`--clock live` can't run on a cluster"),
        (["gate", *CLUSTER, "--clock", "both"], "`--clock both` can't run on a cluster"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code, out, err = run(capsys, *words)
    assert code == ExitCode.USAGE
    assert message in err
    assert out == ""


def test_an_error_is_one_json_document_when_json_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "run", "--format", "json")
    document = json.loads(out)
    assert code == document["exit_code"] == ExitCode.USAGE
    assert document["schema"] == "testbed.error/1"
    assert document["addressee"] == "you"
    assert document["hint"]


@pytest.mark.parametrize(
    "verb", ["run", "build", "lint", "corpus", "judge", "explain", "scenarios", "cases", "image", "doctor"]
)
def test_every_verb_has_help_with_the_exit_codes(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    assert "exit codes:" in capsys.readouterr().out


def test_every_code_can_be_explained(capsys: pytest.CaptureFixture[str]) -> None:
    _, listing, _ = run(capsys, "explain", "--json")
    for entry in json.loads(listing):
        code, text, _ = run(capsys, "explain", entry["code"])
        assert code == ExitCode.PASS
        assert entry["code"] in text


def test_scenarios_are_listed_with_their_titles(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "scenarios")
    assert code == ExitCode.PASS
    assert "stall" in out


def test_no_cases_is_no_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTBED_CASES", str(tmp_path / "none"))
    code, out, err = run(capsys, "cases", "list")
    assert (code, out) == (ExitCode.PASS, "")
    assert "no cases yet" in err


def test_prune_keeps_what_was_asked_to_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTBED_CASES", str(tmp_path))
    for name in ("old", "kept"):
        (tmp_path / name / "candidate").mkdir(parents=True)
    (tmp_path / "kept" / cases.KEEP_FILE).touch()
    (tmp_path / "unrelated").mkdir()
    assert [one.path.name for one in cases.prune(0, dry_run=True)] == ["old"]
    assert (tmp_path / "old").is_dir(), "a dry run removes nothing"
    assert [one.path.name for one in cases.prune(0, dry_run=False)] == ["old"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "unrelated"]
