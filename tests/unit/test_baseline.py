# SPDX-License-Identifier: Apache-2.0
"""Figures against another scheduler: what `--baseline` may name, what is run, and who is never blamed."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path

import pytest

from testbed import baseline, trial
from testbed.build import ArtifactFacts
from testbed.case import Case, DamagedCaseError, canonical_json, write_model
from testbed.cli import main
from testbed.engine.cached import run_key
from testbed.errors import ExitCode, UsageError
from testbed.judge import judge, write_verdict
from testbed.plan import Attached, plan
from testbed.promote.attest import Desk, Refused, attest
from testbed.report import render
from testbed.spec import Clock, Role, sha256
from testbed.status import Status
from testbed.verdict import BaselineFacts, CandidateFacts, Finding, Outcome, Verdict
from tests.unit.case_builder import CaseBuilder, Script
from tests.unit.test_plan import question
from tests.unit.test_run import GOOD, STALLED, Bench

OTHER = BaselineFacts(kind="source", name="old.bpf.c", sha256="d" * 64)
REFERENCE = Attached("d" * 64, ("object", "candidate.bpf.o"), None, "e" * 64)
EJECTED = {
    "e": "exit", "kind": 1026, "name": "SCX_EXIT_ERROR_STALL", "code": 0, "reason": "runnable task stall",
    "message": "hog[77] failed to run for 4.012s", "by_us": False, "source": "kernel", "after_ms": 4000,
}  # fmt: skip


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A case with a candidate that was built, in the list of cases."""
    monkeypatch.setenv("TESTBED_CASES", str(tmp_path))
    case = tmp_path / "earlier"
    builder = CaseBuilder(case)
    builder.demand("crawl")
    builder.pair("crawl")
    builder.finish()
    (case / "candidate/candidate.bpf.o").write_bytes(b"object")
    facts = CandidateFacts(kind="object", name="old.bpf.o", sha256="d" * 64, object_sha256=sha256(b"object"))
    artifact = ArtifactFacts(candidate=facts, files={"candidate.bpf.o": sha256(b"object")})
    write_model(case / "candidate/artifact.json", artifact)
    return case


# --- what it may name ----------------------------------------------------------------------------------------


def test_a_word_is_eevdf_a_case_a_file_or_a_program(judged: Path) -> None:
    assert baseline.find("eevdf") is None
    assert baseline.find("EEVDF") is None
    assert baseline.find("earlier") == baseline.Named(case=judged)
    assert baseline.find(str(judged)) == baseline.Named(case=judged)
    assert baseline.find("lib/old.bpf.c") == baseline.Named(file="lib/old.bpf.c")
    assert baseline.find("scx_bpfland --slice-us 5000") == baseline.Named(program=("scx_bpfland", "--slice-us", "5000"))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("", "`--baseline` names nothing"),
        ("scx_simple 'x", "`--baseline scx_simple 'x` is no command line: no closing quotation"),
        ("nowhere.bpf.c", "`--baseline nowhere.bpf.c` can't be used: no such file: `nowhere.bpf.c`"),
    ],
)
def test_what_can_not_be_meant_is_refused_with_a_hint(word: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        baseline.check(word)
    assert caught.value.message == message
    assert caught.value.hint


def test_a_directory_that_is_no_case_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a directory and no case"):
        baseline.check(str(tmp_path))


def test_a_program_that_is_not_there_names_the_option(tmp_path: Path) -> None:
    named = baseline.Named(program=("scx_nobody",))
    with pytest.raises(UsageError) as caught:
        baseline.candidate_of("scx_nobody", named, examples=tmp_path, examples_root=tmp_path, schedulers=None)
    assert caught.value.message.startswith("`--baseline scx_nobody` can't be used: ")


def test_the_verb_says_so_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TESTBED_CASES", str(tmp_path / "cases"))
    (tmp_path / "my.bpf.c").write_text("int x;\n")
    assert main(["run", str(tmp_path / "my.bpf.c"), "--baseline", "old.bpf.c"]) == ExitCode.USAGE
    assert capsys.readouterr().err.startswith("error: `--baseline old.bpf.c` can't be used: no such file")
    assert not (tmp_path / "cases").exists()


# --- a case in the place of EEVDF ----------------------------------------------------------------------------


def test_a_case_gives_what_it_judged_and_nothing_else(judged: Path, tmp_path: Path) -> None:
    artifact = baseline.bring(judged, tmp_path / "copy")
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["artifact.json", "candidate.bpf.o"]
    assert baseline.facts(artifact) == BaselineFacts(kind="object", name="old.bpf.o", sha256="d" * 64)


@pytest.mark.parametrize("name", ["candidate.bpf.o", "../policy.yaml", "/etc/passwd", "missing"])
def test_a_case_that_was_edited_is_of_no_use(judged: Path, tmp_path: Path, name: str) -> None:
    path = judged / "candidate/artifact.json"
    raw = json.loads(path.read_text())
    path.write_bytes(canonical_json({**raw, "files": {name: sha256(b"something else")}}))
    with pytest.raises(DamagedCaseError, match="is not what it was"):
        baseline.check(str(judged))


def test_a_case_of_other_conditions_is_told_as_such(judged: Path) -> None:
    policy = Case.open(judged).policy().name
    assert baseline.other_conditions("earlier", "i", policy) == ""
    assert baseline.other_conditions("scx_simple", "other", "other") == ""
    note = baseline.other_conditions("earlier", "other", "strict")
    assert note == f"of the case `earlier`, judged under image i and policy {policy}; run here under this verdict's"


def test_a_case_without_a_candidate_is_of_no_use(judged: Path) -> None:
    (judged / "candidate/artifact.json").unlink()
    with pytest.raises(UsageError, match="the case `earlier` has no candidate that was built"):
        baseline.check("earlier")


def test_a_baseline_that_does_not_compile_is_refused_with_its_error(judged: Path) -> None:
    path = judged / "candidate/artifact.json"
    finding = Finding(
        code="does-not-compile", status=Status.FAIL, title="does not compile", message="candidate.bpf.c:3: no `;`\nx",
        cause="", hint="",
    )  # fmt: skip
    raw = json.loads(path.read_text())
    path.write_bytes(canonical_json({**raw, "findings": [finding.model_dump(mode="json")]}))
    with pytest.raises(UsageError) as caught:
        baseline.check("earlier")
    assert caught.value.message.endswith("can't be attached: does not compile: candidate.bpf.c:3: no `;`")


# --- what is run ---------------------------------------------------------------------------------------------


def test_a_reference_runs_behind_eevdf_and_only_where_there_are_figures() -> None:
    specs = plan(question(reference=REFERENCE, seeds=2)).specs
    roles = {
        name: [(spec.role, spec.seed) for spec in specs if spec.scenario == name] for name in ("stall", "starvation")
    }
    pair = [Role.CANDIDATE, Role.BASELINE]
    assert roles["stall"] == [(role, seed) for seed in (0, 1) for role in pair]
    assert roles["starvation"] == [(role, seed) for seed in (0, 1) for role in (*pair, Role.REFERENCE)]


def test_the_cache_knows_a_reference_from_when_it_was_the_candidate() -> None:
    as_reference = plan(question(reference=REFERENCE)).specs
    as_candidate = plan(question(candidate=REFERENCE.candidate, files=REFERENCE.files)).specs
    known = {run_key(spec) for spec in as_candidate if spec.role is Role.CANDIDATE}
    assert {run_key(spec) for spec in as_reference if spec.role is Role.REFERENCE} <= known


def test_a_program_and_an_object_each_get_a_job_of_their_kind() -> None:
    program = dataclasses.replace(REFERENCE, words=("program", "bin/scx_simple"))
    jobs = {spec.role: spec.job for spec in plan(question(reference=program, pattern="starvation")).specs}
    assert "candidate program bin/scx_simple\ntimeout_ms 0\n" in jobs[Role.REFERENCE]
    assert "candidate object candidate.bpf.o\ntimeout_ms 3000\n" in jobs[Role.CANDIDATE]


def test_a_reference_that_fails_ends_nothing_and_is_not_repeated(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda spec: STALLED if spec.role is Role.REFERENCE else GOOD)
    specs = plan(question(reference=dataclasses.replace(REFERENCE, files="f" * 64))).specs
    bench.pool.run(specs)
    assert not bench.pool.stopped_early
    assert [spec.number for spec in bench.specs] == list(range(len(specs)))


def test_archives_of_a_reference_are_those_it_had_as_the_candidate(judged: Path, tmp_path: Path) -> None:
    artifact = baseline.bring(judged, tmp_path / "copy")
    alone = trial.archives(artifact, {}, tmp_path)
    both = trial.archives(artifact, {}, tmp_path, artifact)
    assert (alone.reference, both.reference) == ("", alone.candidate)
    assert set(both.by_hash) == {alone.candidate, alone.baseline}


# --- what is said --------------------------------------------------------------------------------------------


def starvation(builder: CaseBuilder, candidate: float, eevdf: float, other: Script) -> None:
    """One round of three."""
    builder.run("starvation", Script(figures={"plain.gap.p99": candidate}))
    builder.run("starvation", Script(figures={"plain.gap.p99": eevdf}), role=Role.BASELINE)
    builder.run("starvation", other, role=Role.REFERENCE)


@pytest.fixture
def builder(tmp_path: Path) -> CaseBuilder:
    builder = CaseBuilder(tmp_path / "case")
    builder.baseline = OTHER
    builder.demand("starvation")
    return builder


def p99(verdict: Verdict) -> tuple[float | None, float | None, str]:
    figure = next(one for one in verdict.benefit.figures if one.name == "plain.gap.p99")
    return figure.candidate, figure.baseline, figure.judgement


def test_figures_are_told_against_the_reference_and_the_verdict_says_which(builder: CaseBuilder) -> None:
    starvation(builder, 2000, 800, Script(figures={"plain.gap.p99": 9000}))
    verdict = judge(builder.finish())
    assert p99(verdict) == (2000, 9000, "better")
    assert verdict.baseline == OTHER
    assert verdict.benefit.summary.startswith("better than old.bpf.c in plain.gap.p99")
    assert [(run.role, run.status) for run in verdict.scenarios[0].runs] == [
        (Role.CANDIDATE, Status.PASS),
        (Role.BASELINE, Status.DONE),
        (Role.REFERENCE, Status.PASS),
    ]
    text = render(verdict, "text")
    assert "     candidate     old.bpf.c  unit" in text
    assert "  against: old.bpf.c, sha256 dddddddddddddddd (safety: EEVDF)" in text


def test_a_note_about_the_baseline_stands_under_it(builder: CaseBuilder) -> None:
    builder.baseline = OTHER.model_copy(update={"note": "of the case `earlier`, judged under policy strict"})
    starvation(builder, 2000, 800, Script())
    lines = render(judge(builder.finish()), "text").splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith("  against: "))
    assert lines[place + 1] == "  of the case `earlier`, judged under policy strict"


def test_eevdf_is_what_it_was_before(tmp_path: Path) -> None:
    builder = CaseBuilder(tmp_path / "case")
    builder.demand("starvation")
    starvation(builder, 2000, 800, Script())
    text = render(judge(builder.finish()), "text")
    assert "worse than EEVDF in plain.gap.p99" in text
    assert "against:" not in text


def test_safety_stays_a_matter_of_eevdf(builder: CaseBuilder) -> None:
    """The reference waits as long as the candidate, which is no excuse; and it is no fault of the reference's."""
    bad = Script(figures={"plain.gap.max": 3_000_000})
    number = builder.run("starvation", bad)
    builder.run("starvation", role=Role.BASELINE)
    builder.run("starvation", bad, role=Role.REFERENCE)
    builder.run("starvation", bad, repeats=number)
    verdict = judge(builder.finish())
    assert (verdict.verdict, verdict.title) == (Outcome.REJECT, "canary starved in starvation")
    assert "reference-failed" not in {finding.code for finding in verdict.findings}


def test_a_collapse_is_one_against_eevdf(builder: CaseBuilder) -> None:
    worse = {"plain.gap.p99": 300_000.0}
    number = builder.run("starvation", Script(figures=worse))
    builder.run("starvation", role=Role.BASELINE)
    builder.run("starvation", Script(figures=worse), role=Role.REFERENCE)
    builder.run("starvation", Script(figures=worse), repeats=number)
    verdict = judge(builder.finish())
    assert "latency-collapse" in {finding.code for finding in verdict.findings}


def test_a_reference_that_fails_by_itself_blames_nobody(builder: CaseBuilder) -> None:
    starvation(builder, 2000, 800, Script(during={"hold": [EJECTED]}))
    verdict = judge(builder.finish())
    assert (verdict.verdict, verdict.title) == (
        Outcome.INCONCLUSIVE,
        "what it is compared with failed in starvation",
    )
    assert (verdict.safety.outcome, verdict.scenarios[0].status) == ("pass", Status.PASS)
    assert verdict.benefit.outcome == "not measured"
    assert verdict.benefit.summary == (
        "not measured: the baseline old.bpf.c failed in starvation (runnable task stall)"
    )
    (finding,) = verdict.findings
    assert (finding.code, finding.status) == ("reference-failed", Status.ERROR)
    assert finding.evidence
    assert finding.evidence[0].file == "runs/002/stream"


@pytest.mark.parametrize("status", [Status.FAIL, Status.ERROR, Status.MISS])
def test_a_reference_that_fails_hides_nothing_that_is_worse(builder: CaseBuilder, status: Status) -> None:
    """Neither a fault of the candidate's nor what was not run is told as the reference's."""
    broken = Script(during={"hold": [EJECTED]})
    bad = Script(figures={"plain.gap.max": 3_000_000})
    number = builder.run("starvation", bad if status is Status.FAIL else Script())
    builder.run("starvation", role=Role.BASELINE)
    builder.run("starvation", broken, role=Role.REFERENCE)
    if status is Status.FAIL:
        builder.run("starvation", bad, repeats=number)
    else:
        builder.demand("stall")
    if status is Status.ERROR:
        builder.run("stall")
        builder.run("stall", Script(lost_in="hold", ended="panic"), role=Role.BASELINE)
    verdict = judge(builder.finish())
    assert verdict.verdict is (Outcome.REJECT if status is Status.FAIL else Outcome.INCONCLUSIVE)
    assert "compared with" not in verdict.title
    assert verdict.safety.outcome == ("fail" if status is Status.FAIL else "inconclusive")
    assert "reference-failed" in {finding.code for finding in verdict.findings}


def test_an_optional_scenario_of_a_reference_decides_nothing(builder: CaseBuilder) -> None:
    builder.demands.clear()
    builder.demand("starvation", required=False)
    builder.demand("stall")
    builder.pair("stall")
    starvation(builder, 2000, 800, Script(during={"hold": [EJECTED]}))
    assert judge(builder.finish()).verdict is Outcome.PASS


def test_what_other_scenarios_say_is_told_beside_a_reference_that_failed_in_one(builder: CaseBuilder) -> None:
    builder.demand("crawl")
    starvation(builder, 2000, 800, Script(during={"hold": [EJECTED]}))
    builder.run("crawl", Script(figures={"hogs.work": 2_000_000}))
    builder.run("crawl", role=Role.BASELINE)
    builder.run("crawl", role=Role.REFERENCE)
    summary = judge(builder.finish()).benefit.summary
    assert summary.startswith("better than old.bpf.c in hogs.work")
    assert summary.endswith("not measured: the baseline old.bpf.c failed in starvation (runnable task stall)")


def test_what_is_better_than_something_bad_is_not_attested(builder: CaseBuilder) -> None:
    starvation(builder, 2000, 800, Script(figures={"plain.gap.p99": 90_000}))
    case = builder.finish()
    verdict = judge(case)
    write_verdict(case.path, verdict)
    desk = Desk(lambda case, runs: pytest.fail(), lambda boot: pytest.fail(), print, 1, threading.Event())
    assert verdict.benefit.outcome == "better"
    with pytest.raises(Refused) as caught:
        attest(case.path, desk, self_signed=True)
    assert caught.value.code == "other-baseline"


def test_a_candidate_against_itself_is_not_distinguishable(builder: CaseBuilder) -> None:
    starvation(builder, 2000, 800, Script(figures={"plain.gap.p99": 2000}))
    assert judge(builder.finish()).benefit.outcome == "not distinguishable"


def test_a_reference_that_did_not_run_leaves_figures_unmeasured(builder: CaseBuilder) -> None:
    builder.pair("starvation")
    verdict = judge(builder.finish())
    assert (verdict.verdict, verdict.benefit.outcome) == (Outcome.PASS, "not measured")


def test_live_rounds_keep_their_order_with_three_of_each(tmp_path: Path) -> None:
    builder = CaseBuilder(tmp_path / "case", clock="live")
    builder.baseline = OTHER
    builder.demand("starvation", "live")
    for round_ in range(5):
        for role, value in ((Role.CANDIDATE, 100.0), (Role.BASELINE, 900.0), (Role.REFERENCE, 500.0)):
            script = Script(figures={"plain.gap.p99": value + round_}, accelerator="kvm")
            builder.run("starvation", script, role=role, clock=Clock.LIVE)
    assert p99(judge(builder.finish())) == (102, 502, "better")


def test_a_hostile_name_of_a_baseline_is_harmless(builder: CaseBuilder) -> None:
    builder.baseline = OTHER.model_copy(update={"name": "\x1b[31m##[error]\u202e" + "x" * 300})
    starvation(builder, 2000, 800, Script())
    text = render(judge(builder.finish()), "text")
    assert "\x1b" not in text
    assert "##[" not in text


def test_a_case_from_before_there_were_references_is_one_against_eevdf(tmp_path: Path) -> None:
    builder = CaseBuilder(tmp_path / "case")
    builder.demand("starvation")
    builder.pair("starvation")
    case = builder.finish()
    raw = json.loads((case.path / "case.json").read_text())
    del raw["baseline"]
    (case.path / "case.json").write_bytes(canonical_json(raw))
    assert judge(Case.open(case.path)).baseline == BaselineFacts()
