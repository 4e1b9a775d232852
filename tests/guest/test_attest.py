# SPDX-License-Identifier: Apache-2.0
"""Attestation of real cases: a passing one is attested, and one that was made to look like it is not."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testbed import judge
from testbed.case import (
    CONSOLE_FILE,
    KEY_FILE,
    OUTCOME_FILE,
    STREAM_FILE,
    TRACE_FILE,
    Case,
    RunEvidence,
    canonical_json,
)
from testbed.image import Image, btf_sha256
from testbed.image.tree import file_sha256
from testbed.spec import Role
from tests.guest.conftest import COMMAND, ROOT, Answer, environment, testbed

POLICY = """\
schema: testbed.policy/1
kind: verdict
name: quick
description: one scenario, so that the test is short
seeds: 1
seeds_reason: one order of events is enough for this test
live_pairs: 1
live_pairs_reason: no live runs in this test
scenarios:
  - {name: first-look, clock: sim, required: true, reason: the shortest of all scenarios}
"""


def policy_file(tmp: Path) -> Path:
    """A policy of one scenario, with the thresholds of `quick`."""
    quick = (ROOT / "policies/verdict/quick.yaml").read_text()
    path = tmp / "quick.yaml"
    path.write_text(POLICY + quick[quick.index("thresholds:") :].replace("stall: {gap", "first-look: {gap", 1))
    return path


def attest(case: Path, tmp: Path) -> subprocess.CompletedProcess[str]:
    env = environment(tmp) | {"XDG_CONFIG_HOME": str(tmp / "config")}
    words = ["attest", str(case), "--out", str(tmp / "attestation.json")]
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False, env=env, cwd=ROOT)


def judged(tmp: Path, source: str, *more: str) -> Answer:
    return testbed(tmp, source, "--policy", str(policy_file(tmp)), "--clock", "sim", *more)


@pytest.fixture(scope="module")
def passed(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    answer = judged(tmp_path_factory.mktemp("passed"), "bpf/good/global_fifo.bpf.c")
    assert answer.code == 0, answer.about()
    return answer


@pytest.fixture(scope="module")
def rejected(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    # With all of its runs, as a case that passes has them: EEVDF's would be ended at the failure unless it was cached.
    answer = judged(tmp_path_factory.mktemp("rejected"), "bpf/bad/drops_one_process.bpf.c", "--all")
    assert answer.code == 1, answer.about()
    return answer


def answered(words: list[str]) -> dict[str, Any]:
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_a_passing_case_is_attested_and_verified(passed: Answer, image: Image, tmp_path: Path) -> None:
    done = attest(passed.case, tmp_path)
    assert done.returncode == 0, done.stderr
    verify = [
        *COMMAND, "verify", str(tmp_path / "attestation.json"), "--key", str(tmp_path / "config/testbed/attest.pub"),
        "--case", str(passed.case), "--kernel", passed.document["kernel"]["release"], "--json",
    ]  # fmt: skip
    document = answered(verify)
    assert document["verified"], document
    assert document["statement"]["predicate"]["passedTests"] == ["first-look/sim"]
    (kernel,) = [one for one in document["statement"]["predicate"]["configuration"] if one["name"] == "kernel"]
    assert kernel["annotations"]["btf_sha256"] == btf_sha256(image), "what the host compares with its own"
    lab = answered([*verify, "--policy", "lab"])
    # It calls itself `quick`, and is another one than the installed.
    codes = {one["code"] for one in lab["refusals"]}
    assert "altered-policy" in codes
    assert "risk-not-accepted" not in codes, "what no verdict can look at must not stand in every verdict's way"


def test_a_rejected_case_is_not_attested(rejected: Answer, tmp_path: Path) -> None:
    done = attest(rejected.case, tmp_path)
    assert done.returncode == 1
    assert "the evidence does not pass" in done.stderr
    assert not (tmp_path / "attestation.json").exists()


def sealed_again(case: Path) -> None:
    """What somebody does who knows the testbed: the verdict is made to fit the evidence."""
    judge.write_verdict(case, judge.judge(Case.open(case)))


def evidence_of(good: Path, case: Path) -> None:
    """Give a case the evidence of another one: whole, signed by the keys that lie beside it, judged as it should be."""

    def part(run: RunEvidence) -> tuple[Role, str]:
        return run.spec.role, run.spec.candidate if run.spec.role is Role.CONTROL else ""

    donors = {part(run): good / run.name for run in Case.open(good).runs if run.spec.repeats is None}
    for run in Case.open(case).runs:
        for name in (STREAM_FILE, CONSOLE_FILE, TRACE_FILE, KEY_FILE, OUTCOME_FILE):
            shutil.copyfile(donors[part(run)] / name, case / run.name / name)
    sealed_again(case)


def other_source(case: Path) -> None:
    """Put another source into the case, with hashes that fit."""
    source = case / "candidate/global_fifo.bpf.c"
    source.write_text(source.read_text() + "\n/* and something that nobody judged */\n")
    file = case / "candidate/artifact.json"
    facts = json.loads(file.read_text())
    facts["files"]["global_fifo.bpf.c"] = file_sha256(source)
    facts["candidate"]["source_sha256"] = file_sha256(source)
    file.write_bytes(canonical_json(facts))
    sealed_again(case)


def another_verdict(case: Path) -> None:
    file = case / "verdict.json"
    file.write_text(file.read_text().replace('"better"', '"worse"').replace("no fault found", "no fault at all"))


def easier_scenario(case: Path) -> None:
    """A scenario in which less is done than in the runs."""
    file = case / "scenarios/first-look.yaml"
    text = file.read_text()
    assert "at_least: 900ms" in text
    file.write_text(text.replace("at_least: 900ms", "at_least: 100ms"))
    sealed_again(case)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_source, "is not the one that was judged"),
        (another_verdict, "is not the one that its evidence gives"),
        (easier_scenario, "is not a run that the case's policy and scenarios make"),
    ],
)
def test_a_passing_case_that_was_changed_is_not_attested(
    passed: Answer, tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    case = tmp_path / "case"
    shutil.copytree(passed.case, case)
    change(case)
    done = attest(case, tmp_path)
    assert done.returncode == 1, done.stderr
    assert message in done.stderr
    assert not (tmp_path / "attestation.json").exists()


def test_evidence_that_is_not_the_candidates_own_does_not_come_again(
    passed: Answer, rejected: Answer, tmp_path: Path
) -> None:
    case = tmp_path / "case"
    shutil.copytree(rejected.case, case)
    evidence_of(passed.case, case)
    verdict = Case.open(case).verdict
    assert verdict is not None and verdict.verdict == "pass", "judging alone can't see it"
    done = attest(case, tmp_path)
    assert done.returncode == 1, done.stderr
    assert "run again, is another run than the one in the case" in done.stderr
