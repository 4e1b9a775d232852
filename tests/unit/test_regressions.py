# SPDX-License-Identifier: Apache-2.0
"""Runs that failed once and come first from then on: the file, what it makes of a policy, and the gate's key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from testbed import policy, regressions, scenario
from testbed.case import Case, write_atomic
from testbed.errors import ScenarioError, UsageError
from testbed.gate import config as configs
from testbed.judge import judge, write_verdict
from testbed.minimize.simpler import pinned, written
from testbed.plan import plan
from testbed.spec import Clock, Role, Topology
from testbed.status import Status
from tests.unit.case_builder import CaseBuilder, Script
from tests.unit.test_plan import question
from tests.unit.test_replay import EXIT

ONE = Topology(cpus=1, memory_mb=512)


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    """A case as `testbed minimize` leaves it."""
    builder = CaseBuilder(tmp_path / "minimal")
    builder.demand("stall")
    script = Script(during={"hold": [EXIT]})
    number = builder.run("stall", script, seed=17)
    builder.run("stall", script, seed=17, repeats=number)
    left = pinned(scenario.load_all()["stall"], ONE, 17, "object", None).scenario
    write_atomic(builder.path / "scenarios/stall.yaml", written(left))
    case = builder.finish()
    write_verdict(case.path, judge(case))
    return case.path


def test_a_minimal_run_is_added_once_and_reads_back(minimal: Path, tmp_path: Path) -> None:
    file = tmp_path / "regressions.yaml"
    assert regressions.add(file, minimal) == "sut-stall"
    before = file.read_bytes()
    assert regressions.add(file, minimal) == "sut-stall"
    assert file.read_bytes() == before
    (one,) = regressions.load(file).runs
    assert (one.candidate, one.title, one.seed) == ("any", "runnable task stall in stall", 17)
    assert one.scenario == Case.open(minimal).scenarios()["stall"]
    assert one.scenario.topology == ONE


def test_another_run_of_the_same_candidate_gets_another_name(minimal: Path, tmp_path: Path) -> None:
    file = tmp_path / "regressions.yaml"
    regressions.add(file, minimal)
    file.write_text(file.read_text().replace("seed: 17", "seed: 3"))
    assert regressions.add(file, minimal) == "sut-stall-2"
    assert [one.seed for one in regressions.load(file).runs] == [3, 17]


def entries(minimal: Path, file: Path, candidate: str = "any") -> regressions.Regressions:
    regressions.add(file, minimal)
    file.write_text(file.read_text().replace("candidate: any", f"candidate: {candidate}"))
    return regressions.load(file)


def test_its_runs_are_required_first_under_their_own_seed_and_machine(minimal: Path, tmp_path: Path) -> None:
    given, data = policy.load("quick")
    longer, raw, added = regressions.demanded(given, data, entries(minimal, tmp_path / "r.yaml"), "c" * 64)
    assert policy.parse(raw, "policy.yaml") == longer, "the case's own policy says the same"
    first = longer.scenarios[0]
    assert (first.name, first.clock, first.required, first.seed) == ("regression-sut-stall", Clock.SIM, True, 17)
    assert longer.gap("regression-sut-stall") == given.gap("stall") != given.gap("first-look")
    asked = question(
        policy=longer, scenarios={**scenario.load_all(), **added}, seeds=3, machine=Topology(cpus=8, memory_mb=512)
    )
    specs = plan(asked).specs
    assert [(spec.role, spec.seed, spec.topology) for spec in specs[:2]] == [
        (Role.CANDIDATE, 17, ONE),
        (Role.BASELINE, 17, ONE),
    ]
    assert [spec.seed for spec in specs[2:8]] == [0, 0, 1, 1, 2, 2]
    assert {spec.topology.cpus for spec in specs[2:]} == {8}


def test_an_entry_for_another_candidate_changes_nothing(minimal: Path, tmp_path: Path) -> None:
    given, data = policy.load("quick")
    found = entries(minimal, tmp_path / "r.yaml", "d" * 64)
    assert regressions.demanded(given, data, found, "c" * 64) == (given, data, {})
    assert len(regressions.demanded(given, data, found, "d" * 64)[2]) == 1
    assert regressions.demanded(given, data, None, "c" * 64) == (given, data, {})


@pytest.mark.parametrize(("script", "status"), [(None, Status.PASS), (Script(during={"hold": [EXIT]}), Status.FAIL)])
def test_one_seed_is_enough_for_it_and_for_nothing_else(
    minimal: Path, tmp_path: Path, script: Script | None, status: Status
) -> None:
    builder = CaseBuilder(tmp_path / "case", seeds=2)
    builder.demand("stall")
    builder.demand("starvation")
    builder.pair("stall", script, seed=17)
    builder.pair("starvation")
    case = builder.finish()
    raw = yaml.safe_load((case.path / "policy.yaml").read_text())
    raw["scenarios"][0]["seed"] = 17
    write_atomic(case.path / "policy.yaml", yaml.safe_dump(raw))
    verdict = judge(Case.open(case.path))
    assert verdict.scenarios[0].status is status
    assert (verdict.scenarios[1].status, verdict.scenarios[1].reason) == (Status.MISS, "1 of 2 seeds ran")


@pytest.mark.parametrize(
    ("find", "put", "words"),
    [
        ("  seed: 17", "  sed: 17", "unknown key `sed`"),
        ("candidate: any", "candidate: mine", "candidate"),
        ("  name: stall", "  nam: stall", "unknown key `nam`"),
        ("at_least: 5s", "at_least: 5", "is not a duration"),
        ("- detach", "- detach: {within: 2s}\n    - detach", "`detach` without `attach`"),
        ("stop: [messages, ", "stop: [nobody, messages, ", "`nobody` was not started"),
        ("schema: testbed.regressions/1", "schema: testbed.regressions/2", "which is unknown"),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_line(
    minimal: Path, tmp_path: Path, find: str, put: str, words: str
) -> None:
    file = tmp_path / "r.yaml"
    regressions.add(file, minimal)
    text = file.read_text()
    assert find in text
    file.write_text(text.replace(find, put, 1))
    with pytest.raises(ScenarioError, match=r"r\.yaml:\d+: ") as caught:
        regressions.load(file)
    assert words in caught.value.message
    with pytest.raises(ScenarioError):
        regressions.add(file, minimal)


def test_a_name_that_is_used_twice_is_told(minimal: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    regressions.add(file, minimal)
    text = file.read_text()
    file.write_text(text + text[text.index("- name") :])
    with pytest.raises(ScenarioError, match="`sut-stall` is used twice"):
        regressions.load(file)


def test_the_gates_configuration_names_a_file_beside_it(minimal: Path, tmp_path: Path) -> None:
    regressions.add(tmp_path / "kept.yaml", minimal)
    text = b"schema: testbed.gate-config/1\nregressions: kept.yaml\nscenarios: regression-*\npolicy: quick\n"
    config = configs.parse(text, tmp_path / "testbed.yaml")
    assert config.regressions == str(tmp_path / "kept.yaml")
    with pytest.raises(UsageError, match=r"testbed.yaml:2: cannot read"):
        configs.parse(text.replace(b"kept", b"lost"), tmp_path / "testbed.yaml")
