# SPDX-License-Identifier: Apache-2.0
"""Whole cases: from statuses to a verdict, what was not checked, purity."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from testbed import policy as policies
from testbed.case import Case, Control, NotRun, stream_line, write_atomic
from testbed.errors import ExitCode
from testbed.judge import catalogue, docs, judge, truth_table, verdict_bytes, write_verdict
from testbed.judge.catalogue import CODES
from testbed.judge.modes import MODES
from testbed.report import render, schema
from testbed.spec import Clock, Role
from testbed.status import Status
from testbed.verdict import Finding, Outcome, Verdict
from tests.unit import case_builder
from tests.unit.case_builder import KEY, CaseBuilder, Script

LOCKED = Script(lost_in="hold", ended="watchdog")
PAUSED = Script(lost_in="hold", ended="paused", reason="internal-error")


def compile_error() -> Finding:
    return Finding(
        code="compile-error",
        status=Status.FAIL,
        title="does not compile",
        message="no",
        cause="c",
        hint="h",
        confirmed=True,
    )


@pytest.fixture
def builder(tmp_path: Path) -> CaseBuilder:
    return CaseBuilder(tmp_path / "case")


# --- the truth table -----------------------------------------------------------------------------------------

ALL_FACTS = [
    truth_table.Facts(**dict(zip([field.name for field in fields(truth_table.Facts)], values, strict=True)))
    for values in itertools.product((False, True), repeat=7)
]


@pytest.mark.parametrize("facts", ALL_FACTS, ids=str)
def test_the_truth_table_says_what_the_contract_says(facts: truth_table.Facts) -> None:
    """Told again in other words, as the issue tells it."""
    if facts.control_surprised:
        expected = Outcome.INCONCLUSIVE  # a surprising control beats everything
    elif facts.build_failed or facts.confirmed_fail:
        expected = Outcome.REJECT  # a confirmed FAIL beats ERROR and MISS
    elif facts.required_error or facts.required_miss or facts.interrupted:
        expected = Outcome.INCONCLUSIVE  # MISS is never PASS
    elif facts.reference_failed:
        expected = Outcome.INCONCLUSIVE  # the question was a comparison, and there is none
    else:
        expected = Outcome.PASS
    assert truth_table.decide(facts).outcome is expected


def test_generated_pages_are_current() -> None:
    assert docs.stale() == [], "run `python -m testbed.judge.docs --write`"


# --- CPU hotplug ---------------------------------------------------------------------------------------------

RESTART = 1 << 48
OFFLINE = "cpu 1 going offline, exiting scheduler"


def leaves(kind: int, message: str = "", **fields: Any) -> dict[str, Any]:
    return {"e": "exit", "kind": kind, "code": 0, "message": message, "by_us": False, "source": "kernel", **fields}


def second_attach_ends_with(run: Path, left: dict[str, Any]) -> None:
    """Put an exit right behind the second `attach` of a stream, and sign what follows anew."""
    events = [json.loads(line.split(b" ", 2)[2]) for line in (run / "stream").read_bytes().splitlines()]
    at = [place for place, event in enumerate(events) if event["e"] == "attach"][1]
    events.insert(at + 1, {"t": events[at]["t"], **left})
    write_atomic(run / "stream", b"".join(stream_line(place, KEY, event) for place, event in enumerate(events)))


def hotplug(builder: CaseBuilder, script: Script, baseline: Script | None = None) -> tuple[Verdict, list[str]]:
    """The verdict on `cpu-hotplug`, and the codes of the candidate's own findings."""
    builder.demand("cpu-hotplug")
    builder.run("cpu-hotplug", baseline, role=Role.BASELINE)
    number = builder.run("cpu-hotplug", script)
    builder.run("cpu-hotplug", script, repeats=number)
    verdict = judge(builder.finish())
    return verdict, [finding.code for finding in verdict.findings]


@pytest.mark.parametrize(
    "left",
    [
        leaves(66, OFFLINE),
        leaves(66, "cpu 3 going online, exiting scheduler"),
        leaves(66),
        leaves(65, "my CPUs have changed", code=RESTART | 1 << 32, source="uei"),
    ],
    ids=["offline", "online", "no message", "its own request"],
)
def test_a_restart_that_a_moving_cpu_asks_for_is_advice(builder: CaseBuilder, left: dict[str, Any]) -> None:
    verdict, codes = hotplug(builder, Script(during={"cpu": [left]}))
    assert (verdict.verdict, codes) == (Outcome.PASS, ["restart-requested"])


@pytest.mark.parametrize(
    ("verb", "left", "code"),
    [
        ("start", leaves(66, OFFLINE), "unregistered-by-kernel"),
        ("start", leaves(66), "unregistered-by-kernel"),
        ("health", leaves(66, after_ms=1500), "unregistered-by-kernel"),
        ("start", leaves(65, code=RESTART, source="uei"), "self-ejected"),
        ("health", leaves(65, code=RESTART, source="uei", after_ms=1500), "self-ejected"),
        ("cpu", leaves(65, source="uei"), "self-ejected"),
        ("cpu", leaves(66, "expected hotplug seq 2 did not match actual 4"), "unregistered-by-kernel"),
        ("cpu", leaves(67, OFFLINE), "unregistered-by-kernel"),
        ("cpu", leaves(1024, OFFLINE), "scheduler-error"),
        ("cpu", leaves(1025, OFFLINE, code=RESTART), "self-ejected"),
        ("cpu", leaves(1026, "hog[9] failed to run for 3.012s"), "runnable-task-stall"),
        ("hold", leaves(1026, "hog[9] failed to run for 3.012s"), "runnable-task-stall"),
    ],
)
def test_any_other_exit_around_hotplug_is_a_failure(
    builder: CaseBuilder, verb: str, left: dict[str, Any], code: str
) -> None:
    verdict, codes = hotplug(builder, Script(during={verb: [left]}))
    assert (verdict.verdict, codes[0]) == (Outcome.REJECT, code)
    assert "restart-requested" not in codes


@pytest.mark.parametrize(("kind", "code"), [(65, "self-ejected"), (66, "unregistered-by-kernel")])
def test_a_cpu_that_went_before_the_scheduler_was_attached_is_no_reason_to_leave(
    tmp_path: Path, kind: int, code: str
) -> None:
    """`cpu-hotplug` attaches once more while a CPU is away: who can't run like that says so right after."""
    case = CaseBuilder(tmp_path / "case")
    case.demand("cpu-hotplug")
    case.run("cpu-hotplug", role=Role.BASELINE)
    number = case.run("cpu-hotplug")
    case.run("cpu-hotplug", repeats=number)
    for run in (number, number + 1):
        second_attach_ends_with(case.path / "runs" / f"{run:03}", leaves(kind, code=RESTART))
    verdict = judge(case.finish())
    assert (verdict.verdict, [finding.code for finding in verdict.findings]) == (Outcome.REJECT, [code])


def test_one_excused_restart_excuses_no_loop_of_them(builder: CaseBuilder) -> None:
    again = {"e": "tampered", "what": "enable_seq moved from 3 to 4 without us"}
    verdict, codes = hotplug(builder, Script(during={"cpu": [leaves(66)], "health": [{**again, "after_ms": 5000}]}))
    assert verdict.verdict is Outcome.REJECT
    assert "restart-loop" in codes


@pytest.mark.parametrize(
    ("at", "reason", "code"),
    [
        ("0.000001", "unregistered from BPF", "self-ejected"),
        ("9999.000001", "unregistered from BPF", "self-ejected"),
        ("9999.000001", "runnable task stall", "runnable-task-stall"),
    ],
)
def test_a_request_for_a_restart_excuses_no_other_exit_on_the_console(
    builder: CaseBuilder, at: str, reason: str, code: str
) -> None:
    """A program starts itself again after the request, and its next exit is told by the console alone."""
    left = leaves(65, code=RESTART, source="uei")
    console = f'[{at:>12}] sched_ext: BPF scheduler "sut" disabled ({reason})\n'
    verdict, codes = hotplug(builder, Script(during={"cpu": [left]}, console=console))
    assert (verdict.verdict, sorted(codes)) == (Outcome.REJECT, sorted(["restart-requested", code]))


@pytest.mark.parametrize(
    ("baseline", "code", "outcome"),
    [(None, "hotplug-blocked", Outcome.REJECT), ("EBUSY", "step-failed", Outcome.INCONCLUSIVE)],
)
def test_a_cpu_that_does_not_move_is_the_candidates_fault_only_where_eevdf_moves_it(
    builder: CaseBuilder, baseline: str | None, code: str, outcome: Outcome
) -> None:
    others = Script(failing={"cpu": baseline}) if baseline else None
    verdict, codes = hotplug(builder, Script(failing={"cpu": "CPU 1: not offline in time"}), others)
    assert (verdict.verdict, code in codes) == (outcome, True)
    assert {"hotplug-blocked", "step-failed"} - {code} - set(codes)


# --- cases ---------------------------------------------------------------------------------------------------


def test_a_good_candidate_passes_with_exit_code_0(builder: CaseBuilder) -> None:
    builder.demand("stall")
    builder.pair("stall")
    verdict = judge(builder.finish())
    assert (verdict.verdict, verdict.exit_code, verdict.complete) == (Outcome.PASS, ExitCode.PASS, True)
    assert verdict.safety.outcome == "pass"
    assert verdict.candidate.ops_name == "sut"
    assert [run.status for run in verdict.scenarios[0].runs] == [Status.DONE, Status.PASS]


def test_a_confirmed_fail_beats_error_and_miss(builder: CaseBuilder) -> None:
    for name in ("stall", "starvation", "affinity"):
        builder.demand(name)
    builder.pair("stall", LOCKED)
    builder.pair("starvation", PAUSED)
    verdict = judge(builder.finish())
    assert (verdict.verdict, verdict.exit_code, verdict.complete) == (Outcome.REJECT, 1, False)
    assert [result.status for result in verdict.scenarios] == [Status.FAIL, Status.ERROR, Status.MISS]
    assert verdict.title == "machine locked up in stall"
    assert verdict.safety.decided_by is Clock.SIM


def test_a_build_failure_rejects_without_any_run(builder: CaseBuilder) -> None:
    builder.demand("stall")
    builder.artifact(compile_error())
    verdict = judge(builder.finish())
    assert (verdict.verdict, verdict.exit_code) == (Outcome.REJECT, 1)
    assert verdict.scenarios[0].status is Status.SKIP
    assert [entry.code for entry in verdict.not_checked] == ["nothing-ran"]
    assert verdict.safety.decided_by is None


def test_a_build_error_is_inconclusive(builder: CaseBuilder) -> None:
    builder.demand("stall")
    builder.artifact(compile_error().model_copy(update={"status": Status.ERROR}))
    assert judge(builder.finish()).verdict is Outcome.INCONCLUSIVE


def test_a_required_scenario_that_was_deselected_is_a_miss(builder: CaseBuilder) -> None:
    builder.demand("stall")
    builder.demand("affinity")
    builder.selected = ("stall",)
    builder.pair("stall")
    verdict = judge(builder.finish())
    assert (verdict.verdict, verdict.exit_code) == (Outcome.INCONCLUSIVE, 3)
    assert verdict.scenarios[1].status is Status.MISS
    assert verdict.scenarios[1].reason == "deselected by an option"
    assert verdict.title == "affinity did not run: deselected by an option"


def test_an_optional_scenario_that_did_not_run_is_not_checked(builder: CaseBuilder) -> None:
    builder.demand("stall")
    builder.demand("stall", "live", required=False)
    builder.not_run = (NotRun(scenario="stall", clock=Clock.LIVE, reason="no KVM here"),)
    builder.pair("stall")
    verdict = judge(builder.finish())
    assert verdict.verdict is Outcome.PASS
    entry = next(entry for entry in verdict.not_checked if entry.code == "optional-scenario")
    assert entry.reason == "`stall` under `live` is optional and was not run: no KVM here"


def test_an_optional_error_decides_nothing_and_an_optional_fail_rejects(tmp_path: Path) -> None:
    for script, expected in ((PAUSED, Outcome.PASS), (LOCKED, Outcome.REJECT)):
        builder = CaseBuilder(tmp_path / expected, clock="both")
        builder.demand("stall")
        builder.demand("stall", "live", required=False)
        builder.pair("stall")
        builder.pair("stall", script, clock=Clock.LIVE)
        verdict = judge(builder.finish())
        assert verdict.verdict is expected
        if expected is Outcome.REJECT:
            assert verdict.safety.decided_by is Clock.LIVE
            assert "`live`" in verdict.safety.summary


@pytest.mark.parametrize(
    ("expect", "script", "outcome"),
    [
        ("fail", LOCKED, Outcome.PASS),
        ("fail", None, Outcome.INCONCLUSIVE),
        ("pass", None, Outcome.PASS),
        ("pass", LOCKED, Outcome.INCONCLUSIVE),
        ("fail", PAUSED, Outcome.INCONCLUSIVE),
    ],
)
def test_a_surprising_control_beats_everything(
    builder: CaseBuilder, expect: str, script: Script | None, outcome: Outcome
) -> None:
    builder.demand("stall")
    builder.pair("stall")
    number = builder.run("stall", script, role=Role.CONTROL)
    builder.controls.append(Control.model_validate({"run": number, "name": "scx_qmap -t 5", "expect": expect}))
    verdict = judge(builder.finish())
    assert verdict.verdict is outcome
    surprised = [finding for finding in verdict.findings if finding.code == "control-surprised"]
    assert bool(surprised) == (outcome is Outcome.INCONCLUSIVE)
    if surprised:
        assert verdict.title == "control surprised"
        assert verdict.safety.outcome == "inconclusive"


@pytest.mark.parametrize("cut_short", [False, True])
def test_a_control_that_did_not_run_is_a_surprise_where_there_was_time_for_it(
    builder: CaseBuilder, cut_short: bool
) -> None:
    builder.demand("stall")
    builder.pair("stall")
    builder.controls.append(Control(run=99, name="scx_simple", expect="pass"))
    builder.stopped_early = cut_short
    verdict = judge(builder.finish())
    assert verdict.verdict is (Outcome.PASS if cut_short else Outcome.INCONCLUSIVE)
    assert [str(one) for one in verdict.controls] == ["scx_simple did not run"]


def test_controls_are_told_apart_from_the_runs_of_their_scenario(builder: CaseBuilder) -> None:
    builder.demand("stall")
    builder.pair("stall")
    number = builder.run("stall", LOCKED, role=Role.CONTROL)
    builder.controls.append(Control(run=number, name="loses", expect="fail"))
    verdict = judge(builder.finish())
    assert [str(one) for one in verdict.controls] == ["loses was caught"]
    assert {run.role for one in verdict.scenarios for run in one.runs} == {Role.CANDIDATE, Role.BASELINE}


def test_an_interrupted_case_exits_with_130_and_is_not_complete(builder: CaseBuilder) -> None:
    builder.demand("stall")
    builder.demand("affinity")
    builder.interrupted = True
    builder.pair("stall")
    verdict = judge(builder.finish())
    assert (verdict.verdict, verdict.exit_code, verdict.complete) == (Outcome.INCONCLUSIVE, 130, False)
    assert verdict.scenarios[1].reason == "the user ended it"


def test_a_run_that_was_cut_short_is_a_miss(builder: CaseBuilder) -> None:
    builder.demand("stall")
    builder.pair("stall")
    case = builder.finish()
    (case.path / "runs/001/outcome.json").unlink()
    again = Case.open(case.path)
    assert again.unfinished == ("runs/001",)
    assert judge(again).verdict is Outcome.INCONCLUSIVE


def test_every_seed_that_the_policy_wants_must_have_run(builder: CaseBuilder) -> None:
    builder.demand("stall")
    builder.seeds = 3
    builder.pair("stall", seed=1)
    builder.pair("stall", seed=2)
    verdict = judge(builder.finish())
    assert verdict.verdict is Outcome.INCONCLUSIVE
    assert verdict.scenarios[0].reason == "2 of 3 seeds ran"


def test_a_fail_under_one_seed_of_several_rejects(builder: CaseBuilder) -> None:
    builder.demand("stall")
    builder.seeds = 2
    builder.pair("stall", seed=1)
    builder.pair("stall", LOCKED, seed=2)
    verdict = judge(builder.finish())
    assert verdict.verdict is Outcome.REJECT
    assert len(verdict.findings) == 1


def test_without_a_baseline_thresholds_say_nothing_but_ejections_do(tmp_path: Path) -> None:
    builder = CaseBuilder(tmp_path / "a")
    builder.demand("starvation")
    builder.run("starvation")
    assert "no-baseline" in [finding.code for finding in judge(builder.finish()).findings]
    builder = CaseBuilder(tmp_path / "b")
    builder.demand("starvation")
    builder.run("starvation", LOCKED)
    builder.run("starvation", LOCKED, repeats=0)
    assert judge(builder.finish()).verdict is Outcome.REJECT


@pytest.mark.parametrize(("window", "code"), [("2s", "unfair-share"), ("2100ms", "not-measured")])
def test_shares_are_looked_at_over_long_windows_only(builder: CaseBuilder, window: str, code: str) -> None:
    builder.demand("crawl")
    builder.pair("crawl", Script(figures={"hogs.work.1": 1}))
    case = builder.finish()
    policy = policies.parse(case.policy_bytes.replace(b"window: 1s", f"window: {window}".encode()), "p.yaml")
    assert [finding.code for finding in judge(case, policy, b"").findings] == [code]


def test_a_task_that_did_nothing_has_a_share_that_json_can_hold(builder: CaseBuilder) -> None:
    builder.demand("crawl")
    builder.pair("crawl", Script(figures={"hogs.work.3": 0}))
    verdict = judge(builder.finish())
    assert [finding.code for finding in verdict.findings] == ["unfair-share"]
    measured = {one.name: one for one in verdict.scenarios[0].runs[1].measurements}
    assert (measured["hogs.work.spread"].value, measured["hogs.work.spread"].samples) == (250_000, 4)
    json.loads(verdict_bytes(verdict), parse_constant=lambda word: pytest.fail(word))


@pytest.mark.parametrize(
    ("figures", "codes"),
    [
        ({"loaded.wasted": 0.4}, ["idle-while-runnable"]),
        # idle time for which nobody waited is nobody's fault
        ({"loaded.idle": 0.4, "loaded.wasted": 0.01}, []),
        ({"hogs.cputime.0": 1}, ["unfair-share"]),
        # what a task says of its own work counts only where nobody watched
        ({"hogs.work.0": 1, "hogs.cputime.0": 250_000}, []),
        ({"@kthreads.wait.max": 900_000}, ["kworker-starved"]),
        ({"hogs.wait.max": 900_000}, ["task-starved"]),
        ({"hogs.wait.max": 450_000}, []),
    ],
)
def test_what_the_oracle_saw_decides(builder: CaseBuilder, figures: dict[str, float], codes: list[str]) -> None:
    builder.demand("starvation")
    builder.pair("starvation", Script(figures=figures))
    assert [finding.code for finding in judge(builder.finish()).findings] == codes


def test_what_the_oracle_counted_is_told_for_each_second_of_the_windows(builder: CaseBuilder) -> None:
    builder.demand("starvation")
    one = {"e": "measure", "task": -1, "cpu": -1, "window": "loaded", "samples": 7}
    counted = [
        {**one, "name": "cputime", "load": "hogs", "unit": "ns", "value": 3_000_000_000},
        {**one, "name": "migrations", "load": "@kthreads", "unit": "1", "value": 5},
        {**one, "name": "callback", "load": "loaded", "stat": "my_enqueue", "unit": "ns", "value": 700.5},
    ]
    # Outside of windows a class has had the whole life of the machine.
    whole = {**one, "name": "wait", "load": "@kthreads", "stat": "max", "unit": "us", "value": 9e9, "window": ""}
    builder.pair("starvation", Script(during={"end": counted, "health": [whole]}))
    verdict = judge(builder.finish())
    assert verdict.verdict is Outcome.PASS
    measured = {one.name: one for one in verdict.scenarios[0].runs[1].measurements}
    assert (measured["hogs.cputime"].value, measured["hogs.cputime"].unit) == (1.5, "CPUs")
    assert (measured["@kthreads.migrations"].value, measured["@kthreads.migrations"].unit) == (2.5, "1/s")
    assert measured["loaded.callback.my_enqueue"].value == 700.5
    assert measured["@kthreads.wait.max"].value == 1900


def test_where_the_oracle_did_not_watch_its_checks_are_not_measured(builder: CaseBuilder) -> None:
    builder.demand("starvation")
    script = Script(figures={"loaded.idle": 0.4, "hogs.work.0": 1}, oracle=False)
    builder.pair("starvation", script)
    findings = judge(builder.finish()).findings
    assert {finding.code for finding in findings} == {"idle-while-runnable", "unfair-share", "not-measured"}
    (unseen,) = [finding.message for finding in findings if finding.code == "not-measured"]
    assert unseen == "check `wait` of `hogs`: the run has no figure for waits for a CPU"


def test_the_same_evidence_under_another_policy(builder: CaseBuilder) -> None:
    builder.demand("starvation")
    builder.pair("starvation", Script(figures={"polite.gap.max": 1_500_000}))
    case = builder.finish()
    assert judge(case).verdict is Outcome.REJECT
    milder = case.policy_bytes.replace(b"floor: 500ms", b"floor: 2s")
    verdict = judge(case, policies.parse(milder, "p.yaml"), milder)
    assert verdict.verdict is Outcome.PASS
    assert verdict.policy.sha256 != judge(case).policy.sha256


def test_the_verdict_is_the_same_bytes_wherever_the_case_lies(builder: CaseBuilder, tmp_path: Path) -> None:
    builder.demand("starvation")
    builder.pair("starvation", Script(figures={"polite.gap.max": 1_500_000}))
    case = builder.finish()
    first = write_verdict(case.path, judge(case)).read_bytes()
    shutil.copytree(case.path, tmp_path / "elsewhere" / "case")
    second = verdict_bytes(judge(Case.open(tmp_path / "elsewhere" / "case")))
    assert first == second
    assert str(tmp_path).encode() not in first
    assert first.endswith(b"}\n")
    verdict = Case.open(case.path).verdict
    assert verdict is not None
    assert verdict == judge(case)
    other = verdict.model_copy(update={"title": "x"})
    assert len(verdict.id) == 16
    assert judge(case).id != other.model_copy(update={"id": "0" * 16}).id


def test_what_is_printed_and_what_is_stored_fit_the_published_schema(builder: CaseBuilder) -> None:
    builder.demand("starvation")
    builder.pair("starvation", Script(figures={"polite.gap.max": 1_500_000}))
    case = builder.finish()
    validator = jsonschema.Draft202012Validator(schema())
    validator.check_schema(schema())
    verdict = judge(case)
    validator.validate(json.loads(verdict_bytes(verdict)))
    document = json.loads(render(verdict, "json", case_dir="/x/case", elapsed_s=1.5))
    validator.validate(document)
    assert (document["case_dir"], document["elapsed_s"]) == ("/x/case", 1.5)
    assert set(document) - {"case_dir", "elapsed_s"} == set(json.loads(verdict_bytes(verdict)))


def test_every_finding_is_in_the_catalogue_and_points_into_the_case(builder: CaseBuilder) -> None:
    builder.demand("stall")
    builder.pair("stall", LOCKED)
    case = builder.finish()
    for finding in judge(case).findings:
        entry = catalogue.explain(finding.code)
        assert finding.title.startswith(entry.title)
        assert not any(char.isdigit() for char in entry.title.replace("NULL", ""))
        assert finding.cause
        assert finding.hint
        for ref in finding.evidence:
            lines = (case.path / ref.file).read_bytes().count(b"\n")
            assert ref.line is not None
            assert 1 <= ref.line <= lines + 1


def test_what_ran_is_not_listed_as_not_checked(builder: CaseBuilder) -> None:
    builder.clock = "both"
    builder.demand("attach-detach")
    builder.demand("attach-detach", "live", required=False)
    builder.pair("attach-detach")
    builder.run("attach-detach", Script(accelerator="kvm"), role=Role.BASELINE, clock=Clock.LIVE)
    builder.run("attach-detach", Script(accelerator="kvm"), clock=Clock.LIVE)
    codes = {entry.code for entry in judge(builder.finish()).not_checked}
    assert not codes & {"detach-under-load", "real-concurrency", "real-speed", "optional-scenario"}
    assert {"cpu-hotplug", "suspend", "weight-of-a-cgroup", "host-kernel", "longer-runs"} <= codes


def test_each_failure_mode_that_nothing_could_have_shown_is_listed(builder: CaseBuilder) -> None:
    builder.demand("rt-hog")
    builder.pair("rt-hog")
    verdict = judge(builder.finish())
    modes = {entry.mode: entry for entry in verdict.not_checked if entry.mode is not None}
    assert sorted(modes) == [mode.number for mode in MODES if "rt-hog" not in mode.scenarios]
    assert modes[41].reason.startswith(
        "a storm of processes, far more than the machine can serve, stalls it for good: "
    )
    assert "`overload` would show it and did not run; the longest run was " in modes[41].reason
    assert modes[41].how == "testbed run … --policy full -k overload"
    assert "43 of 45 known failure modes (reasons in" in " ".join(render(verdict, "text").split())


def test_figures_are_told_beside_the_baselines(builder: CaseBuilder) -> None:
    builder.demand("starvation")
    builder.run("starvation", role=Role.BASELINE)
    builder.run("starvation", Script(figures={"plain.gap.p99": 60_000, "plain.gap.p50": 65}))
    figures = {figure.name: figure for figure in judge(builder.finish()).benefit.figures}
    worse = figures["plain.gap.p99"]
    assert (worse.judgement, worse.candidate, worse.baseline, worse.unit) == ("worse", 60_000, 800, "us")
    assert worse.resolution == 10.0  # the quantum: 10 000 instructions of 1 ns
    assert figures["plain.gap.p50"].judgement == "not distinguishable"  # 5 us apart, below the quantum
    assert figures["hogs.work"].judgement == "not distinguishable"


def test_requests_per_second_are_a_figure_of_a_short_run_too(builder: CaseBuilder) -> None:
    builder.demand("schbench")
    builder.run("schbench", role=Role.BASELINE)
    slow = '{"int": {"average_rps": 450, "rps_pct50.0": 450, "rps_samples": 11}}\n'  # too few for a median
    builder.run("schbench", Script(output={"schbench": slow}))
    figures = {figure.name: figure for figure in judge(builder.finish()).benefit.figures}
    assert figures["schbench.rps.avg"].judgement == "worse"


def test_a_percentile_of_few_samples_is_not_measured(builder: CaseBuilder) -> None:
    builder.demand("starvation")
    builder.run("starvation", role=Role.BASELINE)
    builder.run("starvation", Script(figures={"plain.gap.p99": 60_000}, samples=120))
    figures = {figure.name: figure for figure in judge(builder.finish()).benefit.figures}
    assert figures["plain.gap.p99"].judgement == "not measured"


def test_a_figure_that_a_scenario_requires_is_there_or_the_run_says_nothing(builder: CaseBuilder) -> None:
    builder.demand("cyclictest")
    builder.run("cyclictest", role=Role.BASELINE)
    builder.run("cyclictest", Script(output={"cyclictest": "FATAL: no such clock"}))
    verdict = judge(builder.finish())
    assert verdict.verdict is Outcome.INCONCLUSIVE
    assert [finding.code for finding in verdict.findings] == ["not-measured"]
    assert "figure `cyclictest.latency.p50`" in verdict.findings[0].message


def test_missed_deadlines_are_told_and_reject_nobody(builder: CaseBuilder) -> None:
    builder.demand("deadlines")
    builder.run("deadlines", role=Role.BASELINE)
    late = case_builder.OUTPUT["rt-app"].replace("  3960  ", "  -3960  ")
    builder.run("deadlines", Script(output={"rt-app": late}))
    verdict = judge(builder.finish())
    assert verdict.verdict is Outcome.PASS
    figures = {figure.name: figure for figure in verdict.benefit.figures}
    assert (figures["rt-app.missed"].candidate, figures["rt-app.missed"].judgement) == (1, "worse")
    assert (figures["rt-app.response.p50"].candidate, figures["rt-app.response.p50"].baseline) == (8960, 1040)
    assert figures["rt-app.response.p99"].judgement == "not measured"
    assert "not measured (25 of 1000 samples)" in render(verdict, "text")


@pytest.mark.parametrize(("slower", "expected"), [(2, "not distinguishable"), (3, "worse")])
def test_a_program_s_time_is_from_its_start_to_its_end(builder: CaseBuilder, slower: int, expected: str) -> None:
    builder.demand("build")
    for role, times in ((Role.BASELINE, 2), (Role.CANDIDATE, slower)):
        beat = {"e": "beat", "state": "enabled", "ops": "sut", "enable_seq": 1, "after_ms": 350 * times}
        builder.run("build", Script(during={"wait": [beat]}), role=role)
    (figure,) = judge(builder.finish()).benefit.figures
    assert (figure.name, figure.unit, figure.judgement) == ("build.time", "s", expected)
    assert figure.baseline is not None and 0.7 < figure.baseline < 0.71


@pytest.mark.parametrize(("pairs", "expected"), [(4, "not measured"), (5, "worse")])
def test_live_figures_need_five_pairs(builder: CaseBuilder, pairs: int, expected: str) -> None:
    builder.clock = "live"
    builder.demand("schbench", "live")
    slow = (
        '{"int": {"wakeup_latency_pct99.0": 40000, "wakeup_latency_samples": 9000, '
        '"wakeup_latency_pct50.0": 6, "rps_pct50.0": 900, "rps_samples": 40}}\n'
    )
    for _ in range(pairs):
        builder.run("schbench", role=Role.BASELINE, clock=Clock.LIVE)
        builder.run("schbench", Script(output={"schbench": slow}, accelerator="kvm"), clock=Clock.LIVE)
    figures = {figure.name: figure for figure in judge(builder.finish()).benefit.figures}
    assert figures["schbench.wakeup_latency.p99"].judgement == expected
    assert figures["schbench.wakeup_latency.p99"].resolution == 0


def test_untrusted_text_in_a_verdict_is_plain(builder: CaseBuilder) -> None:
    builder.demand("stall")
    evil = {"e": "starving", "pid": 9, "tid": 9, "comm": "\x1b[2Jevil\n", "cpu": 0, "waited_ms": 5100, "after_ms": 6000}
    builder.pair("stall", Script(during={"hold": [evil]}))
    raw = verdict_bytes(judge(builder.finish()))
    assert b"\\u001b" not in raw
    assert b"evil" in raw


def test_the_catalogue_is_complete_and_well_formed() -> None:
    assert len(CODES) > 50
    for code, entry in CODES.items():
        assert code == entry.code
        assert code == code.lower()
        texts = (entry.title, entry.meaning, entry.why, entry.cause, entry.fix, entry.example)
        assert all(text.strip() for text in texts), code
        for text in (entry.cause, entry.fix):
            assert not text.endswith("."), code
        assert entry.example in catalogue.text(entry)


def test_an_unknown_code_gets_a_suggestion() -> None:
    with pytest.raises(Exception, match="there is no finding code `canary-starve`") as caught:
        catalogue.explain("canary-starve")
    assert caught.value.hint == "did you mean `canary-starved`?"  # type: ignore[attr-defined]


def test_a_case_without_its_policy_is_named(builder: CaseBuilder) -> None:
    builder.demand("stall")
    case = builder.finish()
    write_atomic(case.path / "policy.yaml", "kind: verdict\n")
    with pytest.raises(Exception, match=r"policy\.yaml:1: `schema` is missing"):
        judge(Case.open(case.path))


def test_a_repetition_that_did_something_else_is_an_error_that_nobody_can_miss(builder: CaseBuilder) -> None:
    builder.demand("stall")
    builder.run("stall", role=Role.BASELINE)
    number = builder.run("stall", Script(digest="a" * 64))
    builder.run("stall", Script(digest="b" * 64), repeats=number)
    verdict = judge(builder.finish())
    assert (verdict.verdict, verdict.scenarios[0].status) == (Outcome.INCONCLUSIVE, Status.ERROR)
    assert [finding.code for finding in verdict.findings] == ["run-diverged"]
    assert "aaaaaaaaaaaaaaaa and bbbbbbbbbbbbbbbb" in verdict.findings[0].message


def test_a_baseline_that_diverged_is_an_error_too(builder: CaseBuilder) -> None:
    builder.demand("stall")
    number = builder.run("stall", Script(digest="a" * 64), role=Role.BASELINE)
    builder.run("stall", Script(digest="b" * 64), role=Role.BASELINE, repeats=number)
    builder.run("stall")
    verdict = judge(builder.finish())
    assert verdict.verdict is Outcome.INCONCLUSIVE


def test_a_failure_that_was_seen_twice_stands_although_the_runs_differ(builder: CaseBuilder) -> None:
    builder.demand("stall")
    builder.run("stall", role=Role.BASELINE)
    number = builder.run("stall", dataclasses.replace(LOCKED, digest="a" * 64))
    builder.run("stall", dataclasses.replace(LOCKED, digest="b" * 64), repeats=number)
    verdict = judge(builder.finish())
    assert verdict.verdict is Outcome.REJECT
    assert "run-diverged" in {finding.code for finding in verdict.findings}


def test_repetitions_with_the_same_digest_say_nothing(builder: CaseBuilder) -> None:
    builder.demand("stall")
    builder.run("stall", role=Role.BASELINE)
    number = builder.run("stall", Script(digest="a" * 64))
    builder.run("stall", Script(digest="a" * 64), repeats=number)
    verdict = judge(builder.finish())
    assert (verdict.verdict, verdict.findings) == (Outcome.PASS, ())
