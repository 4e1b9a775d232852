# SPDX-License-Identifier: Apache-2.0
"""A schbench of the user's takes the place of ours, and the verdict says so."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from testbed import scenario, trial
from testbed.case import CASE_FILE, Case, write_model
from testbed.errors import UsageError
from testbed.judge import judge
from testbed.report import render
from testbed.scenario import job_text, parse_job
from testbed.spec import sha256
from testbed.workload import bring, find_schbench
from tests.unit.case_builder import TOOL, CaseBuilder


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A dynamic program that is called schbench."""
    (tmp_path / "bin").mkdir()
    return Path(shutil.copy("/bin/true", tmp_path / "bin" / "schbench"))


@pytest.fixture
def image(tmp_path: Path) -> Any:
    root = tmp_path / "image"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/schbench").write_bytes(b"ours")
    return SimpleNamespace(root=root)


def test_the_one_that_was_given_comes_before_the_one_on_path(program: Path, tmp_path: Path) -> None:
    other = Path(shutil.copy("/bin/false", tmp_path / "other"))
    path = {"PATH": str(program.parent)}
    found = [find_schbench(given, path) for given in (other, None)]
    assert [one.path for one in found if one is not None] == [other, program]
    assert find_schbench(None, {"PATH": "/nowhere"}) is None
    assert find_schbench(None, {}) is None


def test_what_no_guest_could_run_is_refused_with_a_way_out(tmp_path: Path) -> None:
    script = tmp_path / "schbench"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    with pytest.raises(UsageError) as caught:
        find_schbench(None, {"PATH": str(tmp_path)})
    assert caught.value.message.startswith("the schbench on PATH can't be used: ")
    assert "take it off PATH" in caught.value.hint
    with pytest.raises(UsageError, match="is a script"):
        find_schbench(script, {})


def test_ours_needs_no_file_and_is_named_by_its_hash(image: Any, tmp_path: Path) -> None:
    ours = bring(None, tmp_path / "case", image)
    assert (ours.facts.origin, ours.facts.sha256, ours.argv, dict(ours.files)) == ("image", sha256(b"ours"), (), {})
    assert not (tmp_path / "case").exists()


def test_a_given_one_travels_with_its_libraries(program: Path, image: Any, tmp_path: Path) -> None:
    given = bring(find_schbench(program, {}), tmp_path / "case", image)
    assert (given.facts.origin, given.facts.name) == ("given", "schbench")
    assert given.facts.sha256 == sha256(program.read_bytes())
    assert "libc.so.6" in given.facts.libraries
    assert given.files["workloads/schbench/bin/schbench"].read_bytes() == program.read_bytes()
    for word in (given.argv[0], given.argv[-1]):
        assert word.removeprefix("/job/") in given.files
    one = scenario.load_all()["schbench"]
    words = {"schbench": given.argv}
    job = parse_job(job_text(one, seed=1, candidate=("none",), kind="object", programs=words))
    step = next(step for step in job.steps if step[0] == "exec")
    argv = next(step.exec.argv for step in one.steps if step.exec)
    assert step == ("exec", "schbench", *given.argv, *argv[1:])


def test_it_is_refused_where_nothing_would_run_it(program: Path) -> None:
    trial.check(trial.Request(candidate=("scx_simple",), policy="default", schbench=program))
    for request in (
        trial.Request(candidate=("scx_simple",), policy="quick", schbench=program),
        trial.Request(candidate=("scx_simple",), policy="default", pattern="stall", schbench=program),
    ):
        with pytest.raises(UsageError, match="no scenario that is to run has schbench"):
            trial.check(request)
    with pytest.raises(UsageError, match="no such file"):
        trial.check(trial.Request(candidate=("scx_simple",), schbench=program.with_name("none")))


def test_the_verdict_and_the_report_say_which_one_ran(program: Path, image: Any, tmp_path: Path) -> None:
    builder = CaseBuilder(tmp_path / "case")
    builder.demand("schbench")
    builder.pair("schbench")
    case = builder.finish()
    for given, words in ((None, "schbench: our own, sha256 "), (program, "schbench: schbench, as given, sha256 ")):
        workload = bring(find_schbench(given, {}), tmp_path / f"case-{given is None}", image)
        facts = case.facts.model_copy(update={"tool": TOOL.model_copy(update={"schbench": workload.facts})})
        write_model(case.path / CASE_FILE, facts)
        verdict = judge(Case.open(case.path))
        assert verdict.tool.schbench == workload.facts
        assert words + workload.facts.sha256[:16] in render(verdict, "text")
