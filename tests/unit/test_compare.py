# SPDX-License-Identifier: Apache-2.0
"""Two cases against each other: only what is equal is compared, and what is told is as sure as it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from testbed.case import Case, write_model
from testbed.cli import main
from testbed.compare import Compared, Comparison, compare_baseline, compare_cases
from testbed.errors import ExitCode, UsageError
from testbed.judge import noise
from testbed.report import compare as writers
from testbed.spec import Clock, Role
from testbed.verdict import BaselineFacts
from tests.unit.case_builder import CaseBuilder, Script, rewrite
from tests.unit.noise_table import TABLE as NOISE

Figures = Callable[[int], dict[str, float]]

HOSTILE = 'a\x1b]0;owned\x07\x1b[31m<script>alert(1)</script>&"\u202e##[error].bpf.c'


@pytest.fixture(autouse=True)
def _noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "load", lambda: NOISE)


@pytest.fixture
def cases(tmp_path: Path) -> Callable[..., Case]:
    def make(name: str, figures: Figures = lambda seed: {}, *, seeds: int = 1, scenario: str = "starvation") -> Case:
        builder = CaseBuilder(tmp_path / name)
        builder.demand(scenario)
        for seed in range(seeds):
            builder.run(scenario, Script(figures=figures(seed)), seed=seed)
            builder.run(scenario, role=Role.BASELINE, seed=seed)
        return builder.finish()

    return make


def figure(comparison: Comparison, name: str) -> Compared:
    return next(one for one in comparison.figures if one.name == name)


def respec(case: Case, **changes: object) -> Case:
    """The case with other values in every run's spec."""
    for run in case.runs:
        path = case.path / run.name / "spec.json"
        rewrite(path, {**json.loads(path.read_text()), **changes})
    return Case.open(case.path)


# --- a case with its own baseline ----------------------------------------------------------------------------


@pytest.fixture
def against(tmp_path: Path) -> Callable[..., Case]:
    """Ten seeds of a candidate, EEVDF and a reference, which has `passed` of them."""

    def make(baseline: BaselineFacts, passed: int = 10) -> Case:
        builder = CaseBuilder(tmp_path / "new")
        builder.baseline = baseline
        builder.demand("starvation")
        for seed in range(10):
            for role, gap in ((Role.CANDIDATE, 300.0), (Role.BASELINE, 60.0), (Role.REFERENCE, 900.0)):
                lost = role is Role.REFERENCE and seed >= passed
                script = Script(figures={"plain.gap.p50": gap}, lost_in="hold" if lost else "")
                builder.run("starvation", script, role=role, seed=seed)
        return builder.finish()

    return make


OLD = BaselineFacts(kind="object", name="old.bpf.o", sha256="d" * 64)


def test_one_case_is_compared_with_what_its_baseline_was(against: Callable[..., Case]) -> None:
    comparison = compare_baseline(against(OLD))
    gap = figure(comparison, "plain.gap.p50")
    assert (comparison.second.candidate, comparison.second.sha256) == ("old.bpf.o", "d" * 64)
    assert (gap.first, gap.second, gap.ratio, gap.judgement, gap.basis) == (300, 900, 0.333333, "better", "tested")
    assert "old.bpf.o" in writers.svg(comparison)


def test_one_case_without_another_baseline_is_compared_with_eevdf(against: Callable[..., Case]) -> None:
    comparison = compare_baseline(against(BaselineFacts()))
    gap = figure(comparison, "plain.gap.p50")
    assert (gap.first, gap.second, gap.judgement) == (300, 60, "worse")
    assert "second  EEVDF, case new" in writers.render(comparison, "text")


def test_seeds_in_which_the_baseline_failed_are_left_out_and_told(against: Callable[..., Case]) -> None:
    comparison = compare_baseline(against(OLD, passed=7))
    assert figure(comparison, "plain.gap.p50").pairs == 7
    (left,) = comparison.not_compared
    assert left.reason == "the baseline has 7 of 10 seeds that passed"
    assert left.hint.startswith("run both again, with the same `--baseline`: `testbed run CANDIDATE")


def test_a_baseline_that_always_failed_is_an_error_that_names_it(against: Callable[..., Case]) -> None:
    with pytest.raises(UsageError) as caught:
        compare_baseline(against(OLD, passed=0))
    assert caught.value.message == (
        "the candidate and its baseline have no runs in common: starvation [sim]: "
        "the baseline has no run of it that passed"
    )


def test_the_verb_takes_one_case(against: Callable[..., Case], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(against(OLD).path)]) == ExitCode.PASS
    assert "second  old.bpf.o, sha256 dddddddddddddddd, case new" in capsys.readouterr().out


# --- what is compared ----------------------------------------------------------------------------------------


def test_a_faster_and_slower_candidate_is_better_here_and_worse_there(cases: Callable[..., Case]) -> None:
    new = cases("new", lambda seed: {"plain.gap.p50": 30.0 + seed, "hogs.work": 700_000 - 1000 * seed}, seeds=10)
    old = cases("old", seeds=10)
    comparison = compare_cases(new, old)
    assert [(one.name, one.judgement, one.basis) for one in comparison.figures] == [
        ("plain.gap.p50", "better", "tested"),
        ("plain.gap.p99", "not distinguishable", "tested"),
        ("hogs.work", "worse", "tested"),
    ]
    gap = figure(comparison, "plain.gap.p50")
    assert (gap.first, gap.second, gap.pairs, gap.ratio) == (34.5, 60.0, 10, 0.575)
    assert (gap.low, gap.high, gap.confidence) == (round(31 / 60, 6), round(38 / 60, 6), 1 - 22 / 1024)
    assert gap.p == pytest.approx(3 * 2 / 1024)
    back = compare_cases(old, new)
    assert [one.judgement for one in back.figures] == ["worse", "not distinguishable", "better"]


def test_a_case_is_not_distinguishable_from_itself(cases: Callable[..., Case]) -> None:
    case = cases("one", seeds=10)
    comparison = compare_cases(case, case)
    assert {(one.judgement, one.ratio, one.p) for one in comparison.figures} == {("not distinguishable", 1.0, 1.0)}
    assert comparison.not_compared == ()


def test_a_difference_below_the_resolution_means_nothing(cases: Callable[..., Case]) -> None:
    comparison = compare_cases(cases("new", lambda seed: {"plain.gap.p50": 51.0}, seeds=10), cases("old", seeds=10))
    gap = figure(comparison, "plain.gap.p50")
    assert (gap.resolution, gap.judgement, gap.p) == (10.0, "not distinguishable", 1.0)


def test_seeds_that_disagree_by_chance_are_not_called_better(cases: Callable[..., Case]) -> None:
    new = cases("new", lambda seed: {"plain.gap.p50": 30.0 if seed < 8 else 90.0}, seeds=10)
    gap = figure(compare_cases(new, cases("old", seeds=10)), "plain.gap.p50")
    assert (gap.ratio, gap.judgement, gap.basis) == (0.5, "not distinguishable", "tested")
    assert gap.p == pytest.approx(3 * 112 / 1024)


@pytest.mark.parametrize(
    ("seeds", "share", "expected"),
    [
        (1, 0.95, ("not distinguishable", "one sample", 0.08)),
        (3, 0.95, ("worse", "few pairs", 0.03)),
        (10, 0.95, ("worse", "tested", 0.03)),
        (10, 0.98, ("not distinguishable", "tested", 0.03)),
        (10, 1 / 0.95, ("better", "tested", 0.03)),
    ],
)
def test_a_loss_of_five_percent_is_found_by_some_seeds_and_not_by_one(
    cases: Callable[..., Case], seeds: int, share: float, expected: tuple[str, str, float]
) -> None:
    new = cases("new", lambda seed: {"hogs.work": 1_000_000 * share}, seeds=seeds)
    work = figure(compare_cases(new, cases("old", seeds=seeds)), "hogs.work")
    assert (work.judgement, work.basis, work.floor) == expected


def test_few_pairs_are_called_few_and_must_agree(cases: Callable[..., Case]) -> None:
    old = cases("old", seeds=5)
    agreeing = figure(compare_cases(cases("a", lambda seed: {"plain.gap.p50": 30.0}, seeds=5), old), "plain.gap.p50")
    assert (agreeing.judgement, agreeing.basis, agreeing.confidence) == ("better", "few pairs", 0.9375)
    mixed = cases("b", lambda seed: {"plain.gap.p50": 30.0 if seed else 90.0}, seeds=5)
    assert figure(compare_cases(mixed, old), "plain.gap.p50").judgement == "not distinguishable"


def test_live_runs_are_tested_as_two_groups_without_pairs(tmp_path: Path) -> None:
    made: list[Case] = []
    for name, usual in (("new", 30.0), ("old", 60.0)):
        builder = CaseBuilder(tmp_path / name, clock="live")
        builder.demand("starvation", "live")
        for round_ in range(5):
            script = Script(figures={"plain.gap.p50": usual + round_}, accelerator="kvm")
            builder.run("starvation", script, clock=Clock.LIVE, seed=0)
            builder.run("starvation", Script(accelerator="kvm"), role=Role.BASELINE, clock=Clock.LIVE, seed=0)
        made.append(builder.finish())
    gap = figure(compare_cases(*made), "plain.gap.p50")
    assert (gap.judgement, gap.basis, gap.pairs, gap.low) == ("better", "tested", 5, None)
    assert gap.p == pytest.approx(3 * 2 / 252)


# --- what is not ---------------------------------------------------------------------------------------------


def test_seeds_of_one_side_only_are_left_out_and_told(cases: Callable[..., Case]) -> None:
    comparison = compare_cases(cases("new", seeds=2), cases("old", seeds=7))
    assert {one.pairs for one in comparison.figures} == {2}
    (left,) = comparison.not_compared
    assert left.reason == "the first case has 2 of 7 seeds that passed"
    assert left.hint == ("judge the first candidate again: `testbed run CANDIDATE --clock sim -k starvation --seeds 7`")


def test_a_run_that_failed_gives_no_figure(cases: Callable[..., Case], tmp_path: Path) -> None:
    builder = CaseBuilder(tmp_path / "bad")
    builder.demand("starvation")
    builder.pair("starvation", Script(lost_in="hold", ended="watchdog"), seed=0)
    with pytest.raises(UsageError) as caught:
        compare_cases(cases("good"), builder.finish())
    assert caught.value.message == (
        "the cases have no runs in common: starvation [sim]: the second case has no run of it that passed"
    )
    assert caught.value.hint == (
        "judge the second candidate again: `testbed run CANDIDATE --clock sim -k starvation --seeds 1`"
    )


@pytest.mark.parametrize(
    ("changes", "reason", "advice"),
    [
        ({"image": "j"}, "the image differs", "run both with the same image"),
        (
            {"topology": {"cpus": 2, "memory_mb": 768}},
            "the machine differs",
            "give both the same one by --topology",
        ),
        (
            {"parallel_quantum": 5000},
            "the clock's rate or quantum differs",
            "run both with the same version of the testbed",
        ),
    ],
)
def test_runs_under_other_conditions_are_not_compared(
    cases: Callable[..., Case], changes: dict[str, object], reason: str, advice: str
) -> None:
    with pytest.raises(UsageError) as caught:
        compare_cases(cases("new"), respec(cases("old"), **changes))
    assert caught.value.message == f"the cases have no runs in common: starvation [sim]: {reason}"
    assert caught.value.hint == f"{advice}: `testbed run CANDIDATE --clock sim -k starvation --seeds 1`"


def test_a_scenario_that_was_rewritten_is_another_one(cases: Callable[..., Case]) -> None:
    old = cases("old")
    path = old.path / "scenarios/starvation.yaml"
    path.write_text(path.read_text().replace("plain.gap.p99, better: lower", "plain.gap.p99, better: higher"))
    with pytest.raises(UsageError, match="the scenario's text differs"):
        compare_cases(cases("new"), Case.open(old.path))


def test_scenarios_without_figures_have_nothing_to_compare(cases: Callable[..., Case]) -> None:
    with pytest.raises(UsageError, match="the cases have no figure to compare"):
        compare_cases(cases("new", scenario="affinity"), cases("old", scenario="affinity"))


# --- how it is told ------------------------------------------------------------------------------------------

TABLE = """\
first   sut.bpf.c, sha256 aaaaaaaaaaaaaaaa, case new
second  sut.bpf.c, sha256 aaaaaaaaaaaaaaaa, case old

figure                       first  second  unit          pairs  ratio  floor  interval  p  judgement
starvation: plain.gap.p50       30      60  us                1    0.5  10.0%  -         -  better (one sample)
starvation: plain.gap.p99      800     800  us                1      1  10.0%  -         -  \
not distinguishable (one sample)
starvation: hogs.work      3.5e+05   5e+05  iterations/s      1    0.7   8.0%  -         -  worse (one sample)

first against second: better in starvation: plain.gap.p50; worse in starvation: hogs.work
One deterministic run is one sample: need --seeds 5 or more on both sides for an interval, --seeds 7
    for a test of all figures.
floor: differences up to it are chance with so many seeds, see docs/reference/noise.md.
not compared: starvation [sim]: the first case has 1 of 2 seeds that passed
  hint: judge the first candidate again: `testbed run CANDIDATE --clock sim -k starvation --seeds 2`
"""


def test_the_table_says_everything(cases: Callable[..., Case]) -> None:
    new = cases("new", lambda seed: {"plain.gap.p50": 30.0, "hogs.work": 700_000})
    assert writers.render(compare_cases(new, cases("old", seeds=2)), "text") == TABLE


def test_json_is_the_whole_comparison(cases: Callable[..., Case]) -> None:
    comparison = compare_cases(cases("new", seeds=6), cases("old", seeds=6))
    document = json.loads(writers.render(comparison, "json"))
    assert document["schema"] == "testbed.compare/1"
    assert Comparison.model_validate(document) == comparison


def test_hostile_names_do_nothing_to_a_terminal_or_a_browser(cases: Callable[..., Case]) -> None:
    case = cases("new")
    assert case.artifact is not None
    candidate = case.artifact.candidate.model_copy(update={"name": HOSTILE})
    write_model(case.path / "candidate/artifact.json", case.artifact.model_copy(update={"candidate": candidate}))
    comparison = compare_cases(Case.open(case.path), cases("old"))
    printed = writers.render(comparison, "text")
    name = 'a<script>alert(1)</script>&"## [error].bpf.c'
    assert printed.splitlines()[0] == f"first   {name}, sha256 aaaaaaaaaaaaaaaa, case new"
    picture = writers.svg(comparison)
    assert "<script" not in picture
    assert "a&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in picture
    assert "\x1b" not in printed + picture
    assert {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(picture).iter()} == {
        "svg",
        "title",
        "desc",
        "style",
        "rect",
        "text",
        "line",
        "circle",
    }


def test_the_picture_shows_each_ratio_at_its_place(cases: Callable[..., Case]) -> None:
    new = cases("new", lambda seed: {"plain.gap.p50": 30.0 + seed, "hogs.work": 1_000_000}, seeds=10)
    root = ElementTree.fromstring(writers.svg(compare_cases(new, cases("old", seeds=10))))
    dots = [element for element in root.iter() if element.tag.endswith("circle")]
    middle = writers.LABEL_PX + writers.PLOT_PX / 2
    assert [float(dot.attrib["cx"]) < middle for dot in dots] == [True, False, False]
    assert [float(dot.attrib["cx"]) for dot in dots[1:]] == [middle, middle]
    assert not [value for element in root.iter() for key, value in element.attrib.items() if key.endswith("href")]


def test_the_verb_prints_and_draws_and_ends_with_0(
    cases: Callable[..., Case], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new, old = cases("new", lambda seed: {"plain.gap.p50": 90.0}), cases("old")
    picture = tmp_path / "ratios.svg"
    assert main(["compare", str(new.path), str(old.path), "--svg", str(picture), "--format", "json"]) == ExitCode.PASS
    document = json.loads(capsys.readouterr().out)
    assert [one["judgement"] for one in document["figures"]] == ["worse", "not distinguishable", "not distinguishable"]
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")


def test_the_verb_says_what_can_not_be_compared(
    cases: Callable[..., Case], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(cases("new").path), str(respec(cases("old"), image="j").path)]) == ExitCode.USAGE
    assert capsys.readouterr().err == (
        "error: the cases have no runs in common: starvation [sim]: the image differs\n"
        "hint: run both with the same image: `testbed run CANDIDATE --clock sim -k starvation --seeds 1`\n"
    )
    assert main(["compare", str(tmp_path / "nowhere"), str(tmp_path / "new")]) == ExitCode.USAGE
    assert capsys.readouterr().err.startswith(f"error: `{tmp_path / 'nowhere'}` is no case")
    new, picture = str(tmp_path / "new"), str(tmp_path / "no/such/ratios.svg")
    assert main(["compare", new, new, "--svg", picture]) == ExitCode.USAGE
    assert capsys.readouterr() == ("", f"error: `--svg {picture}` can't be written: no such file or directory\n")
