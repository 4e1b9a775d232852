# SPDX-License-Identifier: Apache-2.0
"""`testbed corpus`: headers that lie, who belongs to it, what a verdict means, and how it adds up."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from testbed import cases, judge
from testbed.cli import main
from testbed.corpus import (
    CLASSES,
    Asked,
    Document,
    Origin,
    Result,
    Row,
    Session,
    Settings,
    members,
    tasks,
    usual_folder,
)
from testbed.corpus import document as documents
from testbed.corpus.document import conclude, judged
from testbed.corpus.header import KEYS, Header, parse
from testbed.corpus.session import beyond, policy_for
from testbed.errors import ExitCode, HostError, Interrupted, ScenarioError, UsageError
from testbed.image import Image
from testbed.judge.catalogue import ALL
from testbed.report import corpus as report
from testbed.trial import Request
from testbed.trial import Result as Held
from testbed.verdict import ImageFacts, Outcome, Verdict
from tests.unit.case_builder import CaseBuilder, Script
from tests.unit.live_bench import fake_image

LINES = [
    "// SPDX-License-Identifier: GPL-2.0-only",
    "/*",
    " * loses: forgets tasks.",
    " *",
    " * Failure mode: it forgets: some tasks never run.",
    " *",
    " * class: lost-task",
    " * expect: reject runnable-task-stall,task-starved",
    " */",
    "int x;",
]
FINE = "\n".join(LINES)
CODES = " runnable-task-stall,task-starved"
GOOD = "\n".join([*LINES[:2], " * fair: is.", " *", " * expect: pass", " */"])
IMAGE = ImageFacts(id="i" * 64, recipe="r" * 64)


def bad(text: str = FINE) -> Header:
    return parse(text, "loses.bpf.c", name="loses", good=False)


def row(name: str, result: Result, *, origin: Origin = Origin.TUNED, good: bool = False, **more: object) -> Row:
    filled = {"name": name, "origin": origin, "good": good, "policy": "quick", "result": result, **more}
    return Row.model_validate({"failure_class": "" if good else "lost-task", **filled})


def document(*rows: Row, interrupted: bool = False) -> Document:
    return conclude(rows, Asked(policy="quick"), IMAGE, 1, "0", interrupted=interrupted)


# --- headers -------------------------------------------------------------------------------------------------


def test_a_header_says_what_must_become_of_it() -> None:
    assert bad() == Header("loses", Outcome.REJECT, "lost-task", ("runnable-task-stall", "task-starved"))
    assert parse(GOOD, "fair.bpf.c", name="fair", good=True) == Header("fair", Outcome.PASS)


def test_a_header_may_ask_for_more_than_the_policy() -> None:
    more = FINE.replace(" */", " * policy: full\n * needs: 4 CPUs, heavy forking\n * scenario: hackbench\n */", 1)
    header = bad(more)
    assert (header.policy, header.scenario, header.seeds) == ("full", "hackbench", None)
    assert header.machine is not None
    assert (header.machine[0], header.machine[1].cpus) == ("4-cpus", 4)
    header = bad(FINE.replace(" */", " * needs: two-llcs | two-nodes\n * seeds: 30 of first-look\n */", 1))
    assert (header.scenario, header.seeds) == ("first-look", 30)
    assert header.machine is not None
    assert header.machine[0] == "two-llcs"
    assert bad(FINE.replace(" */", " * needs: 40 s of run time\n */", 1)).machine is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (LINES[0], "", "loses.bpf.c:1: expected `// SPDX-License-Identifier: GPL-2.0-only`"),
        ("/*\n", "int y;\n/*\n", "loses.bpf.c:2: expected the header"),
        (" */\n", "", "loses.bpf.c:2: the header does not end"),
        (" * loses: ", " * wins: ", "loses.bpf.c:3: the header must begin with ` * loses: `"),
        (" * Failure mode: ", " * ", "loses.bpf.c:3: the header has no ` * Failure mode: `"),
        (" * class: lost-task\n", "", "loses.bpf.c:8: the header has no `class:` line"),
        ("class: lost-task", "class: lost-tusk", "loses.bpf.c:7: there is no failure class `lost-tusk`"),
        ("class: lost-task", "kind: lost-task", "loses.bpf.c:7: unknown key `kind`"),
        (LINES[7] + "\n", "", "loses.bpf.c:8: the header has no `expect:` line"),
        ("reject runnable", "refuse runnable", "loses.bpf.c:8: `expect: refuse runnable-task-stall"),
        ("task-starved", "task-bored", "loses.bpf.c:8: there is no finding code `task-bored`"),
        ("task-starved", "runnable-task-stall", "loses.bpf.c:8: `runnable-task-stall` is named twice"),
        (LINES[7], " * expect: pass", "loses.bpf.c:8: `expect: pass` in the folder of the bad ones"),
        (" */", " * class: slice\n */", "loses.bpf.c:9: a second `class:`; the first is in line 7"),
        (" */", " * seeds: many of stall\n */", "loses.bpf.c:9: `seeds: many of stall`: expected `N of SCENARIO`"),
        (" */", " * scenario: stalls\n */", "loses.bpf.c:9: there is no scenario `stalls`"),
        (" */", " * seeds: 3 of stall\n * scenario: stall\n */", "loses.bpf.c:10: `seeds:` names the scenario"),
        (" */", " * policy: fast\n */", "loses.bpf.c:9: there is no policy `fast`"),
        (" */", " * lint: lint-nonsense\n */", "loses.bpf.c:9: there is no rule of the lint `lint-nonsense`"),
    ],
)
def test_a_header_that_lies_is_refused_with_its_line(old: str, new: str, message: str) -> None:
    assert old in FINE
    with pytest.raises(UsageError) as refused:
        bad(FINE.replace(old, new, 1))
    assert refused.value.message.startswith(message)


def test_a_good_one_has_no_codes_and_is_not_among_the_bad_ones() -> None:
    with pytest.raises(UsageError, match=r"fair\.bpf\.c:5: `expect: reject` in the folder of the good ones"):
        parse(GOOD.replace("pass", "reject crawl"), "fair.bpf.c", name="fair", good=True)
    with pytest.raises(UsageError, match="a scheduler that must pass has no codes"):
        parse(GOOD.replace("pass", "pass crawl"), "fair.bpf.c", name="fair", good=True)


def test_a_fault_is_named_by_the_codes_of_its_header_or_of_its_class() -> None:
    assert bad().named_rightly(["task-starved", "crawl"])
    assert not bad().named_rightly(["canary-starved"])
    any_code = bad(FINE.replace(CODES, ""))
    assert any_code.named_rightly(["canary-starved"])
    assert not any_code.named_rightly(["compile-error"])
    late = bad(FINE.replace(CODES, "").replace("lost-task", "late"))
    assert late.named_rightly(["scheduler-error"])


def test_the_classes_are_those_of_the_readme_with_codes_that_exist() -> None:
    text = (usual_folder() / "README.md").read_text()
    for name, one in CLASSES.items():
        assert f"| `{name}` | {one.meaning} |" in text
        assert one.codes <= set(ALL)
    table = text.partition("## Classes")[2]
    assert table.count("\n| `") == len(CLASSES)
    assert all(f"`{key}:`" in text for key in KEYS)


# --- members -------------------------------------------------------------------------------------------------


def corpus(folder: Path) -> Path:
    for name in ("good", "bad", "blind/good", "blind/bad"):
        (folder / name).mkdir(parents=True)
    (folder / "good/fair.bpf.c").write_text(GOOD)
    (folder / "bad/loses.bpf.c").write_text(FINE)
    (folder / "blind/bad/unseen.bpf.c").write_text(FINE.replace("loses", "unseen").replace(CODES, ""))
    freeze(folder)
    return folder


def freeze(folder: Path) -> None:
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  ./{file.relative_to(folder / 'blind')}\n"
        for file in sorted((folder / "blind").rglob("*.c"))
    ]
    (folder / "blind/SHA256SUMS").write_text("".join(lines))


def test_everybody_is_found_and_knows_where_it_comes_from(tmp_path: Path) -> None:
    found = members(corpus(tmp_path))
    assert [(one.name, one.origin, one.good) for one in found] == [
        ("fair", Origin.TUNED, True),
        ("loses", Origin.TUNED, False),
        ("unseen", Origin.BLIND, False),
    ]


def test_our_own_corpus_can_be_read() -> None:
    found = members(usual_folder())
    tuned = [one for one in found if one.origin is Origin.TUNED]
    assert sum(not one.good for one in tuned) >= 40
    assert sum(one.good for one in tuned) >= 17
    assert {one.header.failure_class for one in tuned if not one.good} == set(CLASSES)


def test_programs_and_selftests_are_listed_and_an_entry_is_one_of_them(tmp_path: Path) -> None:
    folder = corpus(tmp_path)
    listed = folder / "programs.yaml"
    entries = [
        "{run: scx_fine -x 1, expect: pass, why: w}",
        "{selftest: minimal, expect: pass, why: w}",
        "{selftest: bogus, expect: reject, class: runtime-error, codes: [scheduler-error], why: w}",
    ]
    start = "schema: testbed.programs/1\nprograms:\n"
    listed.write_text(start + "".join(f"  - {one}\n" for one in entries))
    found = {one.name: (one.origin, one.good, one.words, one.selftest) for one in members(folder)}
    assert found["scx_fine -x 1"] == (Origin.TUNED, True, ("scx_fine", "-x", "1"), "")
    assert found["minimal"] == (Origin.KERNEL, True, (), "minimal.bpf.c")
    assert found["bogus"] == (Origin.KERNEL, False, (), "bogus.bpf.c")
    for wrong in ("{expect: pass, why: w}", "{run: scx_fine, selftest: minimal, expect: pass, why: w}"):
        listed.write_text(f"{start}  - {wrong}\n")
        with pytest.raises(UsageError, match="expected one of `run` and `selftest`"):
            members(folder)


def test_a_blind_file_that_was_touched_added_or_removed_is_refused(tmp_path: Path) -> None:
    folder = corpus(tmp_path)
    file = folder / "blind/bad/unseen.bpf.c"
    file.write_text(file.read_text() + "\n")
    with pytest.raises(UsageError, match=r"unseen\.bpf\.c:1: this is not the file that was frozen"):
        members(folder)
    file.unlink()
    with pytest.raises(UsageError, match=r"SHA256SUMS:1: `bad/unseen\.bpf\.c` is not there"):
        members(folder)
    freeze(folder)
    (folder / "blind/good/late.bpf.c").write_text(GOOD.replace("fair", "late"))
    with pytest.raises(UsageError, match=r"late\.bpf\.c:1: not in `SHA256SUMS`"):
        members(folder)


def test_two_of_a_name_are_refused(tmp_path: Path) -> None:
    folder = corpus(tmp_path)
    (folder / "good/loses.bpf.c").write_text(GOOD.replace("fair", "loses"))
    with pytest.raises(UsageError, match="two schedulers of the corpus are called `loses`"):
        members(folder)


def test_an_empty_folder_is_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no corpus"):
        members(tmp_path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{run: scx_x, expect: reject, class: lost, why: w}", "programs.yaml:3: `class`: there is no `lost`"),
        ("{run: scx_x, expect: reject, why: w}", "programs.yaml:3: `class`: there is no ``"),
        ("{run: scx_x, expect: pass, codes: [c], why: w}", "programs.yaml:3: `codes`: there is no `c`"),
        ("{run: scx_x, expect: pass, because: w}", "programs.yaml:3: unknown key `because`"),
    ],
)
def test_a_list_of_programs_that_lies_is_refused(tmp_path: Path, entry: str, message: str) -> None:
    (tmp_path / "programs.yaml").write_text(f"schema: testbed.programs/1\nprograms:\n  - {entry}\n")
    with pytest.raises(ScenarioError) as refused:
        members(tmp_path)
    assert message in refused.value.message


# --- what is asked -------------------------------------------------------------------------------------------


def test_one_scenario_raises_the_policy_and_a_larger_policy_is_not_run() -> None:
    full = Header("x", Outcome.REJECT, policy="full")
    hack = Header("x", Outcome.REJECT, scenario="hackbench")
    look = Header("x", Outcome.REJECT, scenario="first-look")
    assert policy_for("quick", look) == policy_for("quick", full) == "quick"
    assert policy_for("quick", hack) == policy_for("default", look) == "default"
    assert policy_for("mine.yaml", hack) == "mine.yaml"
    assert beyond("quick", full) == "beyond policy `quick`: its header asks for `full`"
    assert beyond("full", full) == beyond("mine.yaml", full) == beyond("quick", hack) == ""


def test_each_runs_on_every_machine_but_who_needs_one_of_its_own(tmp_path: Path) -> None:
    folder = corpus(tmp_path)
    file = folder / "bad/loses.bpf.c"
    file.write_text(FINE.replace(" */", " * needs: two-llcs\n */", 1))
    found = tasks(members(folder), Settings(policy="quick", machines=("two", "four")))
    assert [(one.member.name, one.machine_name) for one in found] == [
        ("fair", "two"),
        ("fair", "four"),
        ("loses", "two-llcs"),
        ("unseen", "two"),
        ("unseen", "four"),
    ]
    with pytest.raises(UsageError, match="no scheduler of the corpus has `nobody` in it"):
        tasks(members(folder), Settings(only=("nobody",)))


def test_a_dry_run_checks_headers_and_judges_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(corpus(tmp_path))
    assert main(["corpus", folder, "--dry-run", "--policy", "quick", "--bad"]) == ExitCode.PASS
    assert capsys.readouterr().out == (
        "tuned  lost-task      loses                        quick\n"
        "blind  lost-task      unseen                       quick\n"
    )
    assert main(["corpus", folder, "--dry-run", "--format", "sarif"]) == ExitCode.USAGE
    assert "the corpus has no format `sarif`" in capsys.readouterr().err


# --- judging -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Verdict]:
    """One of each kind; the rejected one starved a canary."""

    def made(script: Script | None, *more: str) -> Verdict:
        builder = CaseBuilder(tmp_path_factory.mktemp("corpus") / "case")
        for name in ("starvation", *more):
            builder.demand(name)
        builder.pair("starvation", script or Script())
        return judge.judge(builder.finish())

    return {
        "pass": made(None),
        "reject": made(Script(figures={"polite.gap.max": 1_500_000})),
        "unclear": made(None, "stall"),
    }


@dataclass
class Bench:
    """A corpus judged by a stand-in that knows the answers; an exception is raised."""

    folder: Path
    out: Path
    image: Image
    answers: dict[str, Verdict | Exception]
    asked: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def hold(self, *only: str, run: bool = True) -> dict[str, Row]:
        settings = Settings(policy="quick", only=only, judge=run)
        found = tasks(members(self.folder), settings)
        document = Session(found, settings, self.out, self.image, self.trial, lambda _: None, self.stop).run()
        assert document == documents.read(self.out)
        assert document.interrupted == self.stop.is_set()
        return {one.name: one for one in document.rows}

    def trial(self, request: Request) -> Held:
        assert isinstance(request.candidate, str) and request.out is not None and request.clock == "sim"
        name = Path(request.candidate).name.partition(".")[0]
        self.asked.append(name)
        request.out.mkdir()
        answer = self.answers[name]
        if isinstance(answer, Interrupted):
            self.stop.set()
        if isinstance(answer, Exception):
            raise answer
        judge.write_verdict(request.out, answer)
        return Held(answer, request.out, 1.5)


@pytest.fixture
def bench(tmp_path: Path, verdicts: dict[str, Verdict]) -> Bench:
    answers: dict[str, Verdict | Exception] = {"fair": verdicts["pass"]}
    answers |= {"loses": verdicts["reject"], "unseen": verdicts["reject"]}
    return Bench(corpus(tmp_path / "bpf"), tmp_path / "out", fake_image(tmp_path / "image"), answers)


def test_what_is_there_is_read_and_what_changed_is_judged_again(bench: Bench) -> None:
    rows = bench.hold()
    assert {name: one.result for name, one in rows.items()} == {
        "fair": Result.PASSED,
        "loses": Result.OTHERWISE,
        "unseen": Result.NAMED,
    }
    assert rows["loses"].codes == ("canary-starved",)
    assert rows["loses"].elapsed_s == 1.5
    assert bench.hold("fair") == {"fair": rows["fair"]}
    assert bench.hold(run=False) == rows
    assert bench.hold() == rows
    assert bench.asked == ["fair", "loses", "unseen"]
    file = bench.folder / "bad/loses.bpf.c"
    file.write_text(FINE.replace("int x", "int y"))
    assert bench.hold(run=False)["loses"].result is Result.NOT_RUN
    again = bench.hold()
    assert bench.asked == ["fair", "loses", "unseen", "loses"]
    assert again["loses"].case != rows["loses"].case


def test_an_interrupted_corpus_goes_on_where_it_was(bench: Bench) -> None:
    answer, bench.answers["loses"] = bench.answers["loses"], Interrupted("interrupted")
    rows = bench.hold()
    assert [one.result for one in rows.values()] == [Result.PASSED, Result.NOT_RUN, Result.NOT_RUN]
    bench.answers["loses"] = answer
    bench.stop.clear()
    assert [one.result for one in bench.hold().values()] == [Result.PASSED, Result.OTHERWISE, Result.NAMED]
    assert bench.asked == ["fair", "loses", "loses", "unseen"]


def test_who_was_unclear_is_asked_again(bench: Bench, verdicts: dict[str, Verdict]) -> None:
    bench.answers |= {"loses": verdicts["unclear"], "unseen": HostError("no space")}
    rows = bench.hold()
    assert rows["loses"].result is rows["unseen"].result is Result.UNCLEAR
    assert rows["loses"].reason == verdicts["unclear"].title
    assert rows["unseen"].reason == "no space"
    bench.hold()
    assert bench.asked == ["fair", "loses", "unseen", "loses", "unseen"]


def test_who_passes_the_one_scenario_that_was_to_run_is_a_miss(bench: Bench, verdicts: dict[str, Verdict]) -> None:
    file = bench.folder / "bad/loses.bpf.c"
    file.write_text(FINE.replace(" */", " * scenario: starvation\n */", 1))
    bench.answers["loses"] = verdicts["unclear"]  # `starvation` passed, `stall` did not run
    rows = bench.hold()
    assert (rows["loses"].result, rows["loses"].verdict) == (Result.MISSED, Outcome.PASS)
    assert bench.hold() == rows
    assert bench.asked == ["fair", "loses", "unseen"]


def test_who_needs_a_larger_policy_is_not_run_and_says_so(bench: Bench) -> None:
    file = bench.folder / "bad/loses.bpf.c"
    file.write_text(FINE.replace(" */", " * policy: full\n */", 1))
    row = bench.hold()["loses"]
    assert (row.result, row.reason) == (Result.NOT_RUN, "beyond policy `quick`: its header asks for `full`")
    assert bench.asked == ["fair", "unseen"]


def test_what_is_not_installed_is_not_run_where_it_need_not_be(bench: Bench) -> None:
    entry = "expect: pass, why: w"
    (bench.folder / "programs.yaml").write_text(
        "schema: testbed.programs/1\nprograms:\n"
        f"  - {{run: no_such_program_a, {entry}, optional: true}}\n  - {{run: no_such_program_b, {entry}}}\n"
    )
    rows = bench.hold()
    assert rows["no_such_program_a"].result is Result.NOT_RUN
    assert rows["no_such_program_b"].result is Result.UNCLEAR
    assert "no program `no_such_program_b`" in rows["no_such_program_b"].reason


def test_a_directory_with_something_else_in_it_is_refused(bench: Bench) -> None:
    bench.out.mkdir()
    (bench.out / "letters").touch()
    with pytest.raises(UsageError, match="exists and holds no corpus"):
        bench.hold()


def test_two_do_not_share_a_directory(bench: Bench) -> None:
    with cases.exclusive(bench.out, "corpus"), pytest.raises(UsageError, match="another corpus is at work in"):
        bench.hold()


# --- what it adds up to --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("good", "verdict", "named", "result"),
    [
        (True, Outcome.PASS, False, Result.PASSED),
        (True, Outcome.REJECT, False, Result.FALSE_ALARM),
        (True, Outcome.INCONCLUSIVE, False, Result.UNCLEAR),
        (False, Outcome.REJECT, True, Result.NAMED),
        (False, Outcome.REJECT, False, Result.OTHERWISE),
        (False, Outcome.PASS, False, Result.MISSED),
        (False, Outcome.INCONCLUSIVE, True, Result.UNCLEAR),
    ],
)
def test_what_a_verdict_means(good: bool, verdict: Outcome, named: bool, result: Result) -> None:
    assert judged(good, verdict, named=named) is result


def test_recall_and_precision_are_of_what_was_judged() -> None:
    found = document(
        row("a", Result.NAMED),
        row("b", Result.OTHERWISE),
        row("c", Result.MISSED),
        row("d", Result.UNCLEAR),
        row("e", Result.NOT_RUN),
        row("f", Result.PASSED, good=True),
        row("g", Result.FALSE_ALARM, good=True),
        row("h", Result.MISSED, origin=Origin.BLIND),
    )
    tuned, blind = found.tables
    assert (tuned.bad, tuned.named, tuned.otherwise, tuned.missed, tuned.unclear, tuned.not_run) == (5, 1, 1, 1, 1, 1)
    assert (tuned.good, tuned.passed, tuned.false_alarms) == (2, 1, 1)
    assert (tuned.recall, tuned.precision, tuned.named_share) == (0.667, 0.667, 0.5)
    assert (blind.recall, blind.precision, blind.named_share) == (0.0, None, None)
    assert [one.failure_class for one in tuned.classes] == ["lost-task"]


@pytest.mark.parametrize(
    ("results", "interrupted", "code"),
    [
        ([Result.NAMED, Result.NOT_RUN], False, ExitCode.PASS),
        ([Result.NAMED, Result.UNCLEAR], False, ExitCode.INCONCLUSIVE),
        ([Result.MISSED, Result.UNCLEAR], False, ExitCode.REJECT),
        ([Result.OTHERWISE], False, ExitCode.REJECT),
        ([Result.FALSE_ALARM], False, ExitCode.REJECT),
        ([Result.NAMED], True, ExitCode.INTERRUPTED),
    ],
)
def test_the_exit_code(results: list[Result], interrupted: bool, code: ExitCode) -> None:
    rows = [row(str(index), one) for index, one in enumerate(results)]
    assert document(*rows, interrupted=interrupted).exit_code == code


def test_a_document_whose_tables_were_changed_is_refused(tmp_path: Path) -> None:
    file = tmp_path / documents.FILE
    text = report.render(document(row("a", Result.NAMED), row("b", Result.MISSED)), "json")
    file.write_text(text)
    assert documents.read(tmp_path) == documents.read(file)
    file.write_text(text.replace('"recall": 0.5', '"recall": 1.0'))
    with pytest.raises(UsageError, match="its tables are not what its rows add up to"):
        documents.read(file)
    file.write_text("{}")
    with pytest.raises(UsageError, match="is no document of the corpus: asked: field required"):
        documents.read(file)


def test_the_text_names_every_miss() -> None:
    found = document(
        row("a", Result.NAMED),
        row("b", Result.MISSED, expected=("crawl",), needs="a night"),
        row("c", Result.FALSE_ALARM, good=True, codes=("crawl",), machine="two-llcs"),
        row("d", Result.OTHERWISE, origin=Origin.BLIND, expected=("crawl",), codes=("task-starved",)),
        row("e", Result.UNCLEAR, reason="no \x1b[31mguest"),
    )
    assert (
        report.render(found, "text")
        == """\
corpus by policy quick

set    bad  named  otherwise  missed  good  passed  false alarms  unclear  not run   recall  precision  named rightly
tuned    3      1          0       1     1       0             1        1        0   50.0 %     50.0 %        100.0 %
blind    1      0          1       0     0       0             0        0        0  100.0 %    100.0 %          0.0 %

class      tuned: bad  tuned: named  tuned: otherwise  tuned: missed  tuned: unclear  tuned: not run  \
blind: bad  blind: named  blind: otherwise  blind: missed  blind: unclear  blind: not run
lost-task           3             1                 ·              1               1               ·  \
         1             ·                 1              ·               ·               ·

Missed: bad, and they passed (1):

- `b` (tuned, lost-task, policy quick, needs a night): expected crawl

Named otherwise: rejected, and not for what they are (1):

- `d` (blind, lost-task, policy quick): expected crawl, got task-starved

False alarms: good, and they were rejected (1):

- `c` (tuned, good, policy quick, machine two-llcs): got crawl

Unclear: no verdict, or an inconclusive one (1):

- `e` (tuned, lost-task, policy quick): no guest
"""
    )
    assert json.loads(report.render(found, "json"))["schema"] == "testbed.corpus/1"
    assert "| tuned | 3 | 1 | 0 | 1 |" in report.render(found, "markdown")
    assert "| `quick` | `blind` | 1 | 1 (100.0 %) | 0 | 0 | 0 | 0 | 0 | 0 |" in report.summary([found])


def test_what_was_judged_apart_is_counted_together_in_the_short_table_only() -> None:
    bad = document(row("a", Result.NAMED), row("b", Result.MISSED), row("c", Result.NOT_RUN))
    good = document(row("d", Result.PASSED, good=True), row("e", Result.UNCLEAR, good=True))
    assert "| `quick` | `tuned` | 2 | 1 (50.0 %) | 1 | 1 | 1 | 1 | 0 | 2 |" in report.summary([bad, good])
    assert good.tables[0].precision is None
    assert "class" not in report.render(good, "text")
    page = report.page([bad, good, document(*bad.rows, *good.rows)])
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        "## By policy `quick`, bad ones",
        "## By policy `quick`, good ones",
        "## By policy `quick`",
    ]
