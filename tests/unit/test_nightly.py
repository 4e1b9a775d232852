# SPDX-License-Identifier: Apache-2.0
"""`testbed nightly` with a stand-in for the guests: what is asked, what is told from night to night, what can break."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import jsonschema
import pytest

from testbed import judge
from testbed.cli import main
from testbed.cli import nightly as verb
from testbed.corpus import Header, Member, Origin, Result, members
from testbed.errors import ExitCode, Interrupted, UsageError
from testbed.image import Image
from testbed.nightly import Document, History, Kind, Session, Settings, bisect, installed
from testbed.nightly.bisect import Point
from testbed.report import nightly as report
from testbed.report.escape import code
from testbed.status import Status
from testbed.trial import Request
from testbed.trial import Result as Held
from testbed.verdict import Finding, Outcome, Verdict
from tests.unit.case_builder import CaseBuilder, Script
from tests.unit.live_bench import fake_image
from tests.unit.test_corpus_verb import FINE, GOOD
from tests.unit.test_corpus_verb import corpus as small_corpus

QUICK = Settings(policy="quick", seeds=0)
Judge = Callable[[Request, Image], Verdict]


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Verdict]:
    """One that passes, a slower one, a rejected one (it starved a canary), one that says nothing."""

    def made(script: Script, *more: str) -> Verdict:
        builder = CaseBuilder(tmp_path_factory.mktemp("nightly") / "case")
        for name in ("starvation", *more):
            builder.demand(name)
        builder.pair("starvation", script)
        return judge.judge(builder.finish())

    return {
        "pass": made(Script()),
        "slow": made(Script(figures={"plain.gap.p50": 90_000})),
        "reject": made(Script(figures={"polite.gap.max": 1_500_000})),
        "unclear": made(Script(), "stall"),
    }


@dataclass
class Bench:
    """Nights on a corpus of three: `fair` is good, `loses` and `unseen` are bad."""

    place: Path
    answer: Judge
    image: Image
    others: tuple[Image, ...] = ()
    cached: tuple[Image, ...] = ()
    kernels: dict[str, Image] = field(default_factory=dict)
    programs: tuple[Member, ...] = ()
    settings: Settings = QUICK
    asked: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    now: str = "2026-11-24 02:17:00"

    def night(self) -> Document:
        self.stop.clear()
        self.asked.clear()
        with History.open(self.place / "history.sqlite") as history:
            return Session(
                members(self.place / "bpf"),
                self.programs,
                self.settings,
                self.place / "out",
                history,
                (self.image, *self.others),
                lambda image: lambda request: self._hold(request, image),
                lambda _: None,
                self.now,
                self.stop,
                lambda: self.cached,
                self.kernels,
            ).run()

    def _hold(self, request: Request, image: Image) -> Held:
        assert request.out is not None and request.clock == "sim"
        word = request.candidate if isinstance(request.candidate, str) else request.candidate[0]
        self.asked.append(f"{Path(word).name.partition('.')[0]}@{request.first_seed}")
        request.out.mkdir()
        verdict = self.answer(request, image)
        judge.write_verdict(request.out, verdict)
        return Held(verdict, request.out, 2.0)


@pytest.fixture
def bench(tmp_path: Path, verdicts: dict[str, Verdict]) -> Bench:
    small_corpus(tmp_path / "bpf")
    (tmp_path / "bpf/bad/loses.bpf.c").write_text(FINE.replace(" runnable-task-stall,task-starved", ""))
    return Bench(tmp_path, usual(verdicts), fake_image(tmp_path / "image"))


def usual(verdicts: dict[str, Verdict], **other: str) -> Judge:
    """Good ones pass and bad ones are rejected, but for those that are named."""

    def answer(request: Request, image: Image) -> Verdict:
        word = request.candidate if isinstance(request.candidate, str) else request.candidate[0]
        name = Path(word).name.partition(".")[0]
        return verdicts[other.get(name, "reject" if name in ("loses", "unseen") else "pass")]

    return answer


def another(image: Image, place: Path, letter: str) -> Image:
    """An image with another id."""
    return Image(place, image.manifest.model_copy(update={"id": letter * 64}))


def changes(document: Document) -> list[tuple[str, str, bool, str, str]]:
    return [(one.name, one.what, one.worse, one.before, one.now) for one in document.changes]


# --- from night to night -------------------------------------------------------------------------------------


def test_two_nights_alike_have_nothing_to_say(bench: Bench) -> None:
    first = bench.night()
    assert (first.night, first.exit_code, first.changes, len(first.answers)) == (1, ExitCode.PASS, (), 3)
    assert first.tables[0].recall == 1.0
    second = bench.night()
    assert bench.asked == ["fair@0", "loses@0", "unseen@0"], "a night asks again, whatever the last one said"
    assert (second.night, second.exit_code, second.changes) == (2, ExitCode.PASS, ())
    assert [one.night for one in second.nights] == [1, 2]
    assert (second.nights[1].latency_ratio, second.nights[1].time_ratio) == (1.0, 1.0)
    assert second.nights[1].recall == 1.0


def test_a_clock_that_jumps_changes_no_order(bench: Bench, verdicts: dict[str, Verdict]) -> None:
    bench.night()
    bench.now = "1970-01-01 00:00:00"  # a machine whose battery is empty
    bench.answer = usual(verdicts, fair="reject")
    second = bench.night()
    assert (second.night, [one.night for one in second.nights]) == (2, [1, 2])
    assert {one.since for one in second.changes} == {1}
    bench.now = "2099-01-01 00:00:00"
    third = bench.night()
    assert third.night == 3
    assert [one.began[:4] for one in third.nights] == ["2026", "1970", "2099"]


def test_a_planted_regression_is_found_and_bisected(bench: Bench, verdicts: dict[str, Verdict]) -> None:
    bench.night()
    (bench.place / "bpf/good/fair.bpf.c").write_text(f"{GOOD}\nint slower;\n")
    bench.answer = usual(verdicts, fair="reject")
    second = bench.night()
    assert second.exit_code == ExitCode.REJECT
    assert changes(second) == [("fair", "verdict", True, "passed", "false alarm (canary-starved)")]
    change = second.changes[0]
    before, now = second.answers[0].row.sha256, change.cause
    assert change.since == 1
    assert now.startswith("the candidate, ") and f"→ {before[:12]}: all else that is recorded is as it was" in now
    assert (bench.place / "out" / change.case / "verdict.json").is_file(), "the evidence of a regression is kept"
    others = [one.row.case for one in second.answers if one.row.name != "fair"]
    assert not any((bench.place / "out" / case).exists() for case in others), "that of the others is not"
    assert bench.night().exit_code == ExitCode.PASS, "it is told once"


def test_a_miss_and_a_better_verdict(bench: Bench, verdicts: dict[str, Verdict]) -> None:
    bench.answer = usual(verdicts, loses="pass")
    bench.night()
    bench.image = another(bench.image, bench.place / "image", "7")
    bench.answer = usual(verdicts, unseen="pass")
    second = bench.night()
    assert changes(second) == [
        ("unseen", "verdict", True, "named (canary-starved)", "missed"),
        ("loses", "verdict", False, "missed", "named (canary-starved)"),
    ]
    assert second.changes[0].cause.startswith("the image, 111111111111 → 777777777777: all else")
    assert second.nights[1].missed == 1


def test_where_two_things_changed_the_earlier_ones_are_asked_again(bench: Bench, verdicts: dict[str, Verdict]) -> None:
    bench.night()
    old, new = bench.image, another(bench.image, bench.place / "image", "7")
    (bench.place / "bpf/good/fair.bpf.c").write_text(f"{GOOD}\nint slower;\n")
    good, bad = usual(verdicts), usual(verdicts, fair="reject")
    bench.image, bench.cached = new, (old,)
    bench.answer = lambda request, image: (bad if image.id == new.id else good)(request, image)
    (change,) = bench.night().changes
    assert bench.asked == ["fair@0", "loses@0", "unseen@0", "fair@0", "fair@0"]
    assert change.cause == "the image, 111111111111 → 777777777777: found by judging both (3 of 3 versions are there)"


def test_the_same_question_has_one_answer(bench: Bench, verdicts: dict[str, Verdict]) -> None:
    bench.night()
    bench.answer = usual(verdicts, fair="reject")
    second = bench.night()
    assert ("flaky", True) in {(one.what, one.worse) for one in second.changes}
    assert second.nights[1].flaky == 1
    finding = Finding(
        code="run-diverged", status=Status.ERROR, title="t", message="m", cause="c", hint="h", scenario="starvation"
    )
    diverged = verdicts["pass"].model_copy(update={"findings": (finding,)})
    bench.answer = lambda request, image: diverged
    third = bench.night()
    assert third.nights[2].flaky >= 1
    assert third.exit_code == ExitCode.REJECT


def test_figures_too_repeat_under_sim(bench: Bench, verdicts: dict[str, Verdict]) -> None:
    bench.night()
    bench.answer = usual(verdicts, fair="slow")
    (flaky,) = (one for one in bench.night().changes if one.what == "flaky")
    assert (flaky.name, flaky.now) == (
        "fair",
        "passed with other figures, and nothing that is recorded had changed",
    )


def test_everybody_is_run_from_nothing_in_turn(bench: Bench, verdicts: dict[str, Verdict]) -> None:
    fresh: list[str] = []
    good = usual(verdicts)

    def answer(request: Request, image: Image) -> Verdict:
        fresh.extend([] if request.cache else [Path(str(request.candidate)).name])
        return good(request, image)

    bench.answer = answer
    for _ in range(10):
        bench.night()
    assert sorted(fresh) == ["fair.bpf.c", "loses.bpf.c", "unseen.bpf.c"]


def test_a_wait_that_grew_beyond_chance_is_a_regression(bench: Bench, verdicts: dict[str, Verdict]) -> None:
    bench.night()
    (bench.place / "bpf/good/fair.bpf.c").write_text(f"{GOOD}\nint slower;\n")
    bench.answer = usual(verdicts, fair="slow")
    second = bench.night()
    slower = [one for one in second.changes if one.what == "latency"]
    assert slower and slower[0].worse and slower[0].before.startswith("starvation: plain.gap.p50: ")
    assert second.exit_code == ExitCode.REJECT
    assert second.nights[1].latency_ratio is not None and second.nights[1].latency_ratio > 1
    (bench.place / "bpf/good/fair.bpf.c").write_text(GOOD)
    bench.answer = usual(verdicts)
    assert all(not one.worse for one in bench.night().changes)


def test_new_orders_of_events_each_night_and_those_that_failed_first(
    bench: Bench, verdicts: dict[str, Verdict]
) -> None:
    bench.settings = Settings(policy="quick", seeds=3)
    good, bad = usual(verdicts), usual(verdicts, fair="reject")
    bench.answer = lambda request, image: (bad if request.first_seed == 1000 else good)(request, image)
    first = bench.night()
    assert bench.asked == ["fair@0", "loses@0", "unseen@0", "fair@1000", "loses@1000", "unseen@1000"]
    assert changes(first) == [("fair", "verdict", True, "passed", "false alarm (canary-starved)")]
    assert first.changes[0].cause == "the orders of events, from 1000 on"
    assert first.tables[0].false_alarms == 0, "the catch rate is that of the usual orders"
    second = bench.night()
    assert bench.asked[:2] == ["fair@1000", "fair@0"]
    assert bench.asked[-3:] == ["fair@2000", "loses@2000", "unseen@2000"]
    again = second.answers[0]
    assert (again.kind, again.row.result, again.row.seeds) == (Kind.AGAIN, Result.FALSE_ALARM, 3)
    assert [one.worse for one in second.changes] == [False], "what failed still does, tonight's orders are well"


def test_machines_other_images_and_installed_schedulers(bench: Bench, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "scx_mine"
    program.parent.mkdir()
    for name in ("scx_mine", "scx_known", "other"):
        (program.parent / name).write_bytes(Path("/bin/true").read_bytes())
        (program.parent / name).chmod(0o755)
    (program.parent / "scx_text").write_text("no program")
    known = Member(Header("scx_known", Outcome.PASS), Origin.TUNED, words=("scx_known", "-f"))
    bench.programs = installed([program.parent, tmp_path / "nowhere"], [known])
    assert [one.words for one in bench.programs] == [(str(program),)]
    bench.others = (another(bench.image, bench.place / "image", "7"),)
    bench.settings = Settings(policy="quick", seeds=1, machines=("two",), only=("fair", "scx_"))
    document = bench.night()
    assert bench.asked == [
        *("fair@0", "fair@0", "scx_mine@0", "scx_mine@0"),
        *("fair@1000", "scx_mine@1000"),
        *("fair@0", "fair@0", "scx_mine@0", "scx_mine@0"),
    ]
    assert [one.row.machine for one in document.answers if one.kind is Kind.CORPUS] == ["", "two", "", "two"]
    assert document.tables[0].good == 2, "installed ones and other images are in no catch rate"
    assert bench.night().changes == ()


def test_another_kernel_is_compared_by_its_word_whatever_image_it_is_in(
    bench: Bench, verdicts: dict[str, Verdict]
) -> None:
    bench.kernels = {"debian:7.2": another(bench.image, bench.place / "image", "7")}
    first = bench.night()
    assert (first.asked.kernels, first.asked.images[1:]) == (("debian:7.2",), ("7" * 64,))
    assert [one.row.name for one in first.answers if one.kernel == "debian:7.2"] == ["fair", "loses", "unseen"]
    assert "kernel:       debian:7.2: 2 of 2 bad ones rejected, 0 false alarms" in report.render(first, "text")
    assert sum(table.good for table in first.tables) == 1, "another kernel is in no catch rate"

    newer = another(bench.image, bench.place / "image", "8")
    bench.kernels = {"debian:7.2": newer}
    usually = usual(verdicts)
    bench.answer = lambda request, image: verdicts["pass"] if image.id == newer.id else usually(request, image)
    second = bench.night()
    assert [(one.name, one.kernel, one.worse, one.since) for one in second.changes] == [
        ("loses", "debian:7.2", True, 1),
        ("unseen", "debian:7.2", True, 1),
    ]
    told = report.issue(second.changes[0], second)
    assert f"| kernel | {code('debian:7.2')} |" in told
    assert bench.night().changes == ()


def test_new_orders_of_an_installed_scheduler_are_compared_with_its_usual_ones(
    bench: Bench, verdicts: dict[str, Verdict]
) -> None:
    bench.programs = (Member(Header("scx_mine", Outcome.PASS), Origin.TUNED, words=("/bin/true",), optional=True),)
    bench.settings = Settings(policy="quick", seeds=1, only=("fair", "scx_mine"))
    good, bad = usual(verdicts), usual(verdicts, true="reject")
    bench.answer = lambda request, image: (bad if request.first_seed else good)(request, image)
    assert [(one.name, one.kind, one.worse) for one in bench.night().changes] == [("scx_mine", Kind.FRESH, True)]
    bench.night()
    assert bench.asked[0] == "true@1000", "what failed once is asked first, an installed one too"


# --- too short, killed, damaged ------------------------------------------------------------------------------


def test_a_night_that_is_too_short_says_what_it_did_not_reach(bench: Bench, verdicts: dict[str, Verdict]) -> None:
    bench.settings = Settings(policy="quick", seeds=1, budget_s=0.3)

    def slow(request: Request, image: Image) -> Verdict:
        bench.stop.wait(30)
        return verdicts["unclear"]

    bench.answer = slow
    document = bench.night()
    assert not document.interrupted
    assert document.exit_code == ExitCode.INCONCLUSIVE
    assert len(document.not_reached) == 6
    assert document.not_reached[0] == "corpus: fair, by quick"
    assert document.not_reached[3] == "fresh: fair, by quick, orders 1000 to 1000"
    assert "Not reached, the night was too short (6):" in report.render(document, "text")
    bench.answer, bench.settings = usual(verdicts), Settings(policy="quick", seeds=0)
    second = bench.night()
    assert (second.night, second.exit_code, second.changes) == (2, ExitCode.PASS, ())


def test_a_killed_night_goes_on_where_it_was(bench: Bench, verdicts: dict[str, Verdict]) -> None:
    bench.night()
    good = usual(verdicts)

    def killed(request: Request, image: Image) -> Verdict:
        if "loses" in str(request.candidate):
            raise KeyboardInterrupt
        return good(request, image)

    bench.answer = killed
    with pytest.raises(KeyboardInterrupt):
        bench.night()
    assert bench.asked == ["fair@0", "loses@0"]
    bench.answer = usual(verdicts, unseen="pass")
    document = bench.night()
    assert bench.asked == ["loses@0", "unseen@0"]
    assert document.night == 2
    assert [one.name for one in document.changes if one.what == "verdict"] == ["unseen"]
    bench.answer = good
    assert bench.night().night == 3


def test_an_interrupted_night_goes_on_and_another_question_is_another_night(
    bench: Bench, verdicts: dict[str, Verdict]
) -> None:
    def interrupted(request: Request, image: Image) -> Verdict:
        bench.stop.set()
        raise Interrupted("interrupted")

    bench.answer = interrupted
    first = bench.night()
    assert (first.interrupted, first.exit_code) == (True, ExitCode.INTERRUPTED)
    bench.answer = usual(verdicts)
    assert bench.night().night == 1
    bench.answer = interrupted
    assert bench.night().night == 2
    bench.answer, bench.settings = usual(verdicts), Settings(policy="quick", seeds=1)
    assert bench.night().night == 3


def test_a_history_that_is_damaged_or_of_another_version_is_refused(bench: Bench) -> None:
    bench.night()
    file = bench.place / "history.sqlite"
    whole = file.read_bytes()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 9")
    with pytest.raises(UsageError, match=r"is of version 9, this testbed reads version 1"):
        bench.night()
    file.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(UsageError, match="or it is damaged"):
        bench.night()
    file.write_text("these are not the nights that you are looking for" * 20)
    with pytest.raises(UsageError, match="is no history of nights, or it is damaged"):
        bench.night()
    file.unlink()
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(UsageError, match="is another program's database"):
        bench.night()
    file.write_bytes(whole)
    with sqlite3.connect(file) as connection:
        connection.execute("""UPDATE answers SET answer = '{"kind": "corpus"}'""")
    with pytest.raises(UsageError, match="or it is damaged"):
        bench.night()


# --- who did it ----------------------------------------------------------------------------------------------


def test_the_bisection_asks_only_what_is_there() -> None:
    points = bisect.path(["c1", "c2", "c3"], ["i1", "i2"])
    assert points == [Point("c1", "i1"), Point("c1", "i2"), Point("c2", "i2"), Point("c3", "i2")]
    asked: list[Point] = []

    def bad(point: Point) -> bool:
        asked.append(point)
        return point.candidate in ("c2", "c3")

    assert bisect.search(points, lambda _: True, bad).startswith(
        "the candidate, c1 → c2: found by judging both (4 of 4"
    )
    assert asked == [points[0], points[1], points[2]]
    lost = bisect.search(points, lambda point: point.candidate == "c1", bad)
    assert lost.startswith("the candidate, c1 → c3: found by judging both (3 of 4")
    assert bisect.search(points, lambda _: False, bad).startswith("not known: ")
    assert bisect.search(points, lambda point: point == points[2], bad).startswith("earlier than candidate c2 on image")


def test_the_testbed_itself_may_have_done_it() -> None:
    points = bisect.path(["c1"], ["i1", "i2"])
    told = bisect.search(points, lambda _: True, lambda _: True, "rules 1 → 2")
    assert told == "the testbed: rules 1 → 2; the earlier candidate on the earlier image is as bad now"
    assert bisect.search(points[:1], lambda _: True, lambda _: True).startswith("the testbed: its policies")


# --- what is written -----------------------------------------------------------------------------------------


@pytest.fixture
def regressed(bench: Bench, verdicts: dict[str, Verdict]) -> Document:
    bench.night()
    bench.answer = usual(verdicts, fair="reject", loses="pass")
    return bench.night()


def test_every_format(regressed: Document) -> None:
    text = report.render(regressed, "text")
    assert text.startswith("night 2: something is worse than it was\ncatch rate:   50.0 %, named rightly 100.0 %")
    assert "corpus fair: verdict: passed (night 1) -> false alarm (canary-starved)" in text
    data = json.loads(report.render(regressed, "json"))
    schema = json.loads((Path(__file__).parents[2] / "docs/reference/nightly.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(data)
    assert Document.model_validate(data) == regressed
    assert "### Worse (4)" in report.render(regressed, "markdown")
    page = report.render(regressed, "html")
    assert page.count("<svg") == 4
    assert "default-src 'none'" in page.replace("&#x27;", "'")


def test_hostile_words_stay_words(regressed: Document) -> None:
    hostile = "x</td><script>alert(1)</script>\x1b[31m @someone `::set-output"
    change = regressed.changes[0].model_copy(update={"name": hostile, "case": "", "cause": hostile})
    document = regressed.model_copy(update={"changes": (change,), "not_reached": (hostile,)})
    for name in ("text", "markdown", "html"):
        shown = report.render(document, name)
        assert "\x1b" not in shown
        assert name == "text" or "<script" not in shown
    assert "<script" not in report.issue(change, document)


def test_an_issue_for_each_regression(regressed: Document, tmp_path: Path) -> None:
    file = tmp_path / "issue.md"
    (tmp_path / "issue-9.md").write_text("of an earlier night")
    verb._write_issues(file, regressed)
    worse = [one for one in regressed.changes if one.worse]
    files = sorted(path.name for path in tmp_path.glob("issue*"))
    assert files == ["issue-2.md", "issue-3.md", "issue-4.md", "issue.md"]
    assert f"<!-- testbed-nightly {worse[0].key} -->" in file.read_text()
    assert len({one.key for one in worse}) == 4
    verb._write_issues(file, regressed.model_copy(update={"changes": ()}))
    assert not list(tmp_path.glob("issue*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--budget", "soon"], "expected a duration such as 90min or 6h"),
        (["--format", "sarif"], "a night has no format `sarif`"),
        (["--seeds", "101"], "expected a whole number from 0 to 100"),
    ],
)
def test_usage(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nightly", *words]) == ExitCode.USAGE
    assert message in capsys.readouterr().err
