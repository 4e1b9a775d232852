# SPDX-License-Identifier: Apache-2.0
"""The user's own workload: its file, what becomes of it, and what is said when it gets worse or does not work."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed import policy, regressions, trial, workload
from testbed.case import Case, write_atomic
from testbed.errors import ScenarioError, UsageError
from testbed.judge import judge, write_verdict
from testbed.judge.workloads import read_figure
from testbed.minimize.simpler import pinned, simplifications, size
from testbed.plan import plan
from testbed.promote.attest import Refused, attest
from testbed.report import render
from testbed.scenario import Scenario, job_text, parse, parse_job
from testbed.scenario.model import Reading
from testbed.spec import Role, Topology
from testbed.verdict import Outcome, Verdict
from testbed.workload import OwnWorkload, files_of
from testbed.yamlfile import plain, write
from tests.unit.case_builder import CaseBuilder, Script
from tests.unit.test_plan import question

TEXT: dict[str, Any] = {
    "schema": "testbed.workload/1",
    "name": "serve",
    "argv": ["run.sh", "--fast"],
    "files": ["data"],
    "timeout": "10s",
    "warm_up": 1,
    "metrics": [
        {"name": "rate", "better": "higher", "unit": "1/s", "regex": r"rate: (\d+)", "allow_worse": "5%"},
        {"name": "time", "better": "lower", "duration": True, "allow_worse": "5%"},
        {"name": "p99", "better": "lower", "unit": "us", "json": "latency.p99"},
    ],
}
Runs = Sequence[tuple[float, float]]


def written(folder: Path, **changes: Any) -> Path:
    """A workload's file with its script and data; None takes a key out."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "data/input").write_text("7\n")
    (folder / "run.sh").write_text("#!/bin/sh\necho rate: 7\n")
    (folder / "run.sh").chmod(0o755)
    text = {key: value for key, value in {**TEXT, **changes}.items() if value is not None}
    (folder / "serve.yaml").write_text(json.dumps(text))
    return folder / "serve.yaml"


@pytest.fixture
def own(tmp_path: Path) -> OwnWorkload:
    return workload.load(written(tmp_path / "own"))


# --- the file --------------------------------------------------------------------------------------------------


def test_it_becomes_a_scenario_of_its_own(own: OwnWorkload) -> None:
    made = own.scenario
    assert made.name == "workload-serve"
    verbs = ["attach", "exec", "wait", "begin", "exec", "wait", "end", "detach", "health"]
    assert [step.verb for step in made.steps] == verbs
    assert [one.name for one in made.figures] == ["serve.rate", "serve.time", "serve.p99"]
    assert [one.allow_worse for one in made.figures] == [0.05, 0.05, None]
    assert parse(write(plain(made)), "workload-serve.yaml") == made, "as the case holds it"
    job = parse_job(job_text(made, seed=1, candidate=("none",), kind="object", programs={"sh": ("other",)}))
    (warm, measured) = (step for step in job.steps if step[0] == "exec")
    assert warm[1] == "serve-warm-1"
    assert measured[:4] == ("exec", "serve", "/usr/bin/busybox", "sh")
    assert measured[-3:] == ("sh", "/job/workload/files/run.sh", "--fast")


def test_its_hash_is_of_all_that_travels(own: OwnWorkload, tmp_path: Path) -> None:
    again = tmp_path / "again"
    path = written(again)
    assert workload.load(path).sha256 == own.sha256
    (again / "data/input").write_text("8\n")
    other = workload.load(path)
    assert other.sha256 != own.sha256
    assert other.scenario.needs.workload == other.sha256 == other.facts.sha256


def test_the_case_holds_it(own: OwnWorkload, tmp_path: Path) -> None:
    case = tmp_path / "case"
    case.mkdir()
    image: Any = None  # a script needs nothing of it
    travels = own.bring(case, image)
    assert sorted(travels) == ["workload/files/data/input", "workload/files/run.sh"]
    assert files_of(case) == travels
    assert os.access(travels["workload/files/run.sh"], os.X_OK)
    assert (case / "workload/workload.yaml").read_bytes() == own.data
    (case / "workload/files/link").symlink_to("/etc/passwd")
    assert files_of(case) == travels, "a link that somebody put there is not followed"


def test_a_program_travels_with_its_libraries(tmp_path: Path) -> None:
    path = written(tmp_path / "own", argv=["./serve", "-x"])
    shutil.copy("/bin/true", path.with_name("serve"))
    own, case = workload.load(path), tmp_path / "case"
    case.mkdir()
    image: Any = None
    travels = own.bring(case, image)
    assert {"workload/program/bin/serve", "workload/program/lib/libc.so.6", "workload/files/data/input"} <= set(travels)
    assert "libc.so.6" in own.facts.libraries
    assert files_of(case) == travels
    argv = next(step.exec.argv for step in own.scenario.steps if step.exec)
    given_files = {word.removeprefix("/job/") for word in argv if word.startswith("/job/workload/program/")}
    assert given_files - set(travels) == {"workload/program/lib"}
    assert argv[-2:] == ("/job/workload/program/bin/serve", "-x")


def test_a_program_of_the_image_needs_no_file(tmp_path: Path) -> None:
    path = written(tmp_path / "own", argv=["hackbench", "-l", "10"], files=None)
    argv = next(step.exec.argv for step in workload.load(path).scenario.steps if step.exec)
    assert argv == ("/usr/bin/hackbench", "-l", "10")


METRIC = TEXT["metrics"][0]
REFUSED = [
    ({"mterics": []}, "unknown key `mterics`"),
    ({"schema": "testbed.workload/2"}, "`schema` is"),
    ({"metrics": []}, "metrics"),
    ({"timeout": "10"}, "not a duration"),
    ({"timeout": "2000s"}, "expected 1s to 30min"),
    ({"warm_up": 99}, "warm_up"),
    ({"argv": ["nothing.sh"]}, "neither a file beside the workload's own nor a program of the image"),
    ({"argv": ["../run.sh"]}, "no such file"),
    ({"argv": ["python.py"]}, "a script for `/usr/bin/python3`, and the guest has `sh` only"),
    ({"files": ["/etc/passwd"]}, "not beside the workload's file"),
    ({"files": ["../own/data"]}, "not beside the workload's file"),
    ({"files": ["link"]}, "is a symbolic link"),
    ({"files": ["linked/input"]}, "is a symbolic link"),
    ({"files": ["pipe"]}, "no regular file"),
    ({"files": ["missing"]}, "no such file"),
    ({"topology": "twoo"}, "there is no topology `twoo`"),
    ({"metrics": [METRIC, {**METRIC}]}, "used twice"),
    ({"metrics": [{**METRIC, "name": "cputime"}]}, "what the guest tells of every program"),
    ({"metrics": [{**METRIC, "allow_worse": 0.05}]}, "not a percentage"),
    ({"metrics": [{**METRIC, "duration": True}]}, "expected one of `regex`, `json` and `duration`"),
    ({"metrics": [{**METRIC, "regex": None}]}, "expected one of `regex`, `json` and `duration`"),
    ({"metrics": [{**METRIC, "regex": "rate"}]}, "the pattern has 0 groups"),
    ({"metrics": [{**METRIC, "regex": "(a)(b)"}]}, "the pattern has 2 groups"),
    ({"metrics": [{**METRIC, "regex": "(rate"}]}, "not a regular expression"),
    ({"metrics": [{**METRIC, "regex": "(?:a+)+(b)"}]}, "may take for ever"),
    ({"metrics": [{**METRIC, "better": "more"}]}, "`metrics.0.better` is `more`, which is unknown"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=lambda one: one if isinstance(one, str) else "")
def test_what_can_not_be_meant_is_refused_with_its_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    path = written(folder, **changes)
    (folder / "python.py").write_text("#!/usr/bin/python3\n")
    (folder / "link").symlink_to("run.sh")
    (folder / "linked").symlink_to("data")
    os.mkfifo(folder / "pipe")
    with pytest.raises(ScenarioError) as caught:
        workload.load(path)
    assert message in caught.value.message
    assert caught.value.message.startswith(f"{path}:")


def test_what_travels_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "own")
    monkeypatch.setattr(workload, "MAX_TOTAL", 8)
    with pytest.raises(ScenarioError, match="more than 256 files or 0 MiB of them"):
        workload.load(path)


# --- the policy and the plan -----------------------------------------------------------------------------------


def test_the_verdict_requires_it_in_some_seeds(own: OwnWorkload) -> None:
    quick, data = policy.load("quick")
    assert workload.demanded(quick, data, None) == (quick, data)
    longer, longer_data = workload.demanded(quick, data, own)
    assert policy.parse(longer_data, "policy.yaml") == longer
    demand = longer.scenarios[-1]
    assert (demand.name, demand.required, demand.seeds) == ("workload-serve", True, 3)
    asked = question(policy=longer.model_copy(update={"scenarios": (demand,)}), scenarios={demand.name: own.scenario})
    specs = plan(asked).specs
    assert [(spec.role, spec.seed) for spec in specs] == [
        (role, seed) for seed in range(3) for role in (Role.CANDIDATE, Role.BASELINE)
    ]


def test_it_is_looked_at_before_anything_runs(tmp_path: Path, own: OwnWorkload) -> None:
    path = written(tmp_path / "own")
    trial.check(trial.Request(candidate=("scx_simple",), policy="quick", workload=path))
    with pytest.raises(UsageError, match="`-k stall` leaves it out"):
        trial.check(trial.Request(candidate=("scx_simple",), policy="quick", workload=path, pattern="stall"))
    with pytest.raises(UsageError, match="cannot read"):
        trial.check(trial.Request(candidate=("scx_simple",), workload=tmp_path / "none.yaml"))
    file = tmp_path / "regressions.yaml"
    entry = regressions.Regression(name="old", title="it failed", seed=3, scenario=own.scenario)
    write_atomic(file, write({"schema": "testbed.regressions/1", "runs": [plain(entry)]}))
    trial.check(trial.Request(candidate=("scx_simple",), workload=path, regressions=file))
    with pytest.raises(UsageError, match="runs a workload that is not the one that was given"):
        trial.check(trial.Request(candidate=("scx_simple",), regressions=file))


def test_a_simpler_run_of_it_still_runs_it(own: OwnWorkload) -> None:
    setup = pinned(own.scenario, Topology(cpus=2, memory_mb=512), 5, "object", None)
    simpler = list(simplifications(setup))
    assert simpler
    for one in simpler:
        assert one.setup.scenario.needs.workload == own.sha256, one.what
        assert size(one.setup) < size(setup)


# --- reading figures -------------------------------------------------------------------------------------------


def value_of(output: str, **reading: str) -> float | None:
    found = read_figure("serve.x", Reading.model_validate(reading), output)
    return found.value if found is not None else None


def test_numbers_are_found_where_the_user_says() -> None:
    lines = "warming: rate: 1\nrate: 5\nrate: 7.5e1 per second\n"
    assert value_of(lines, regex=r"^rate: ([\d.e]+)") == 75
    assert value_of(lines, regex=r"^no: (\d+)") is None
    assert value_of("rate: nan rate: -3\n", regex=r"rate: (\S+)") is None
    assert value_of('{"a": {"b": 3}}\nnoise\n{"a": {"b": 4}}\n', json_path="a.b") == 4
    assert value_of('text\n{\n "a": [\n  {"b": "12"}\n ]\n}\n', json_path="a.0.b") == 12
    assert value_of('{"a": true, "b": NaN, "c": -1, "d": 1e400}', json_path="a") is None
    for path in ("b", "c", "d", "e", "a.x"):
        assert value_of('{"a": true, "b": NaN, "c": -1, "d": 1e400}', json_path=path) is None
    assert value_of("rate: 5\n" + "x" * 70_000, regex=r"rate: (\d+)") is None, "only the end is looked at"
    assert value_of("x" * 2_000 + "rate: 5\n", regex=r"rate: (\d+)") is None, "and only the begin of a line"


@given(st.text() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(str), st.integers(0, 3))
def test_no_output_is_an_error(text: str, deep: int) -> None:
    for output in (text, "[" * 30_000 * deep, '{"a":' * 20_000 + text, '{"a": ' + "9" * 5000 + "}"):
        for reading in ({"json_path": "a.b"}, {"json_path": "a"}, {"regex": r"([\d.]+)"}):
            found = value_of(output, **reading)
            assert found is None or 0 <= found < 1e15


# --- the verdict -----------------------------------------------------------------------------------------------

GOOD = 'rate: {}\n{{"latency": {{"p99": 12}}}}\n'


def judged(tmp_path: Path, own: OwnWorkload, runs: Sequence[tuple[Script, Script]]) -> Verdict:
    """The verdict over pairs of runs: the candidate's and EEVDF's."""
    name = own.scenario.name
    builder = CaseBuilder(tmp_path / "case", seeds=len(runs))
    builder.demand(name, own=own.scenario)
    for seed, (candidate, baseline) in enumerate(runs):
        builder.run(name, baseline, role=Role.BASELINE, seed=seed)
        number = builder.run(name, candidate, seed=seed)
        if candidate.failing or candidate.output.get("serve") == "":
            builder.run(name, candidate, seed=seed, repeats=number)
    return judge(builder.finish())


def said(rate: float, seconds: float = 2.0, **more: Any) -> Script:
    return Script(output={"serve": GOOD.format(int(rate))}, figures={"serve.ran_ms": seconds * 1000}, **more)


@pytest.mark.parametrize(
    ("rates", "judgement", "rejected"),
    [
        ([(800, 1000), (805, 1004), (798, 1002)], "worse", True),
        ([(970, 1000), (972, 1001), (971, 1003)], "worse", False),
        ([(1000, 1000), (1001, 1000), (1000, 1001)], "not distinguishable", False),
        ([(1200, 1000), (1204, 1003), (1201, 1001)], "better", False),
        ([(800, 1000), (900, 1300), (1000, 1250)], "not distinguishable", False),
        ([(800, 1000), (900, 880), (805, 1000)], "not distinguishable", False),
    ],
    ids=["worse", "allowed", "equal", "better", "noisy-baseline", "pairs-disagree"],
)
def test_a_rate_may_fall_so_far_and_no_farther(
    rates: Runs, judgement: str, rejected: bool, own: OwnWorkload, tmp_path: Path
) -> None:
    verdict = judged(tmp_path, own, [(said(one), said(two)) for one, two in rates])
    figure = next(one for one in verdict.benefit.figures if one.name == "serve.rate")
    assert (figure.judgement, figure.unit) == (judgement, "1/s")
    assert verdict.verdict is (Outcome.REJECT if rejected else Outcome.PASS), verdict.title
    codes = [one.code for one in verdict.findings]
    assert codes == (["workload-worse"] if rejected else [])
    if rejected:
        assert verdict.title == "the user's workload got worse in workload-serve"
        assert verdict.safety.outcome == "pass", "what is worse may still be safe"
        assert "`serve.rate` is 800 1/s, the baseline's 1002 1/s (medians): worse by 20.2%, allowed are 5.0%" in (
            verdict.findings[0].message
        )
        assert "workload-worse" in render(verdict, "text")
    noisy = [one.reason.split("`")[1] for one in verdict.not_checked if one.code == "noisy-guardrail"]
    assert noisy == (["serve.rate"] if figure.floor > 0.05 else [])


def test_a_longer_time_is_worse_too(own: OwnWorkload, tmp_path: Path) -> None:
    verdict = judged(tmp_path, own, [(said(7, 2.2), said(7, 2.0)) for _ in range(3)])
    assert [one.code for one in verdict.findings] == ["workload-worse"]
    assert verdict.findings[0].message.startswith("`serve.time` is 2.2")


def test_one_pair_has_the_noise_of_the_table(own: OwnWorkload, tmp_path: Path) -> None:
    verdict = judged(tmp_path, own, [(said(950), said(1000))])
    figure = next(one for one in verdict.benefit.figures if one.name == "serve.rate")
    assert figure.floor > 0.05
    assert figure.judgement == "not distinguishable"
    noisy = next(one for one in verdict.not_checked if one.code == "noisy-guardrail")
    assert noisy.reason.startswith("`serve.rate` may be worse by 5.0%, and noise explains ")


@pytest.mark.parametrize(
    "detail", ["not ended in time; killed", "exit status 2; last line: no such file", "killed by signal 9"]
)
def test_who_breaks_it_is_named(detail: str, own: OwnWorkload, tmp_path: Path) -> None:
    broken = said(7, failing={"wait": detail})
    verdict = judged(tmp_path / "own", own, [(broken, said(7))])
    assert verdict.verdict is Outcome.REJECT
    assert verdict.title == "the user's workload failed in workload-serve"
    assert detail in verdict.findings[0].message
    verdict = judged(tmp_path / "both", own, [(broken, broken)])
    assert verdict.verdict is Outcome.INCONCLUSIVE
    assert verdict.title == "the user's workload does not work in workload-serve"
    verdict = judged(tmp_path / "baseline", own, [(said(7), broken)])
    assert verdict.verdict is Outcome.INCONCLUSIVE
    assert verdict.title == "the user's workload does not work in workload-serve"


def test_a_workload_that_says_nothing_has_not_passed(own: OwnWorkload, tmp_path: Path) -> None:
    silent = Script(output={"serve": ""})
    verdict = judged(tmp_path / "own", own, [(silent, said(7))])
    assert verdict.verdict is Outcome.REJECT
    assert {one.code for one in verdict.findings} == {"workload-failed"}
    assert {one.message.split("`")[1] for one in verdict.findings} == {"serve.rate", "serve.p99"}
    verdict = judged(tmp_path / "both", own, [(silent, silent)])
    assert verdict.verdict is Outcome.INCONCLUSIVE
    assert {one.code for one in verdict.findings} == {"workload-broken"}
    lost = Script(output={"serve": GOOD.format(7)}, output_lost=9)
    verdict = judged(tmp_path / "lost", own, [(lost, said(7))])
    assert verdict.verdict is Outcome.INCONCLUSIVE
    assert "9 bytes of its output were dropped" in verdict.findings[0].message


def test_a_scheduler_that_is_ejected_is_told_as_that(own: OwnWorkload, tmp_path: Path) -> None:
    left = {
        "e": "exit", "kind": 1026, "name": "SCX_EXIT_ERROR_STALL", "code": 0, "reason": "runnable task stall",
        "message": "serve[77] failed to run for 3.1s", "by_us": False, "source": "kernel", "ops": "sut",
    }  # fmt: skip
    gone = Script(during={"wait": [left]}, failing={"wait": "cut short: the candidate is not enabled"})
    verdict = judged(tmp_path, own, [(gone, said(7))])
    assert verdict.verdict is Outcome.REJECT
    assert verdict.title == "runnable task stall in workload-serve"


def test_nobody_attests_what_no_policy_knows(own: OwnWorkload, tmp_path: Path) -> None:
    verdict = judged(tmp_path, own, [(said(1000), said(1000))] * 3)
    write_verdict(tmp_path / "case", verdict)
    nothing: Any = None  # it is refused before any guest is wanted
    with pytest.raises(Refused, match="a workload of its user's") as caught:
        attest(tmp_path / "case", nothing, self_signed=True)
    assert caught.value.code == "own-workload"


def test_the_case_is_judged_again_without_the_file(own: OwnWorkload, tmp_path: Path) -> None:
    verdict = judged(tmp_path, own, [(said(800), said(1000))] * 3)
    case = Case.open(tmp_path / "case")
    assert isinstance(case.scenarios()[own.scenario.name], Scenario)
    assert judge(case) == verdict
