# SPDX-License-Identifier: Apache-2.0
"""The page that explains a verdict: what it holds, what it never holds, and pictures of who ran where."""

from __future__ import annotations

import base64
import hashlib
import re
import webbrowser
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree as Xml

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.case import Case
from testbed.cli import main
from testbed.errors import ExitCode, UsageError
from testbed.judge import judge, write_verdict
from testbed.report import draw, html, plots, printed, render
from testbed.report.markup import Markup, joined, style, tag
from testbed.spec import Clock, Role
from testbed.status import Status
from testbed.verdict import EvidenceRef, Figure, Finding, Measurement
from tests.unit.case_builder import CaseBuilder, Script
from tests.unit.test_report_writers import HOSTILE
from tests.unit.trace_builder import BASE, NAMES, STARVED, starvation, trace_events

GOLDEN = Path(__file__).parents[1] / "golden" / "report"
NOTICED = BASE + 740_000_000


def events(comm: str = "backup", **starving: Any) -> list[dict[str, Any]]:
    """What the runner says of a task that wakes up beside an idle CPU and does not run."""
    names = [(pid, comm if pid == STARVED else name, kthread) for pid, name, kthread in NAMES]
    fields = {"pid": STARVED, "tid": STARVED, "comm": comm, "kthread": False, "cpu": 1, "allowed": "0-1"}
    return [
        {"e": "task", "load": "far", "kind": "canary", "task": 0, "pid": STARVED, "comm": comm},
        {"e": "starving", **fields, "waited_ms": 700, "t": NOTICED, **starving},
        *trace_events(starvation(), names),
    ]


def build(path: Path, during: Sequence[dict[str, Any]], console: str = "one\ntwo\n") -> Case:
    builder = CaseBuilder(path)
    builder.demand("starvation")
    builder.demand("stall", "live", required=False)
    builder.pair("starvation", Script(during={"hold": during}, console=console, figures={"hogs.work.1": 900_000}))
    case = builder.finish()
    write_verdict(case.path, judge(case))
    return case


@pytest.fixture(scope="module")
def starved(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return build(tmp_path_factory.mktemp("report") / "case", events())


def page(case: Case, *findings: Finding) -> str:
    verdict = printed(judge(case), case_dir="CASE", elapsed_s=None)
    if findings:
        verdict = verdict.model_copy(update={"findings": findings, "title": findings[0].title})
    return html.render(verdict, case)


def picture(case: Case) -> str:
    place = html.failing_run(case, judge(case).findings)
    assert place is not None
    return html.picture(*place)


class Tags(HTMLParser):
    """The tags of a page with their attributes, but for what is different in each page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(f"{tag} {sorted(name for name, _ in attrs)}")
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        self.found.append(f"/{tag}")

    def handle_comment(self, data: str) -> None:
        self.found.append("comment")

    def handle_decl(self, decl: str) -> None:
        self.found.append("declaration")

    def handle_pi(self, data: str) -> None:
        self.found.append("instruction")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def parsed(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    return tags


# --- whole documents -----------------------------------------------------------------------------------------


def test_the_page_is_what_it_was(starved: Case) -> None:
    # A verdict's id and a policy's hash change with every word of a policy.
    found = re.sub(r"\b[0-9a-f]{16}([0-9a-f]{48})?\b", "HASH", page(starved))
    assert found == (GOLDEN / "report.html").read_text()


def test_the_picture_is_what_it_was(starved: Case) -> None:
    assert picture(starved) == (GOLDEN / "timeline.svg").read_text()


def test_the_page_needs_nothing_but_itself(starved: Case) -> None:
    text = page(starved)
    tags = parsed(text)
    names = {one.split(" ")[0] for one in tags.found}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "image", "use", "a"}
    assert not any(name.startswith("on") or name in ("src", "style") for name, _ in tags.attributes)
    assert {value for name, value in tags.attributes if "://" in value} == {"http://www.w3.org/2000/svg"}
    assert "@import" not in text and set(re.findall(r"url\((.)", text)) == {"#"}


def test_the_policy_allows_the_one_style_sheet_and_nothing_else(starved: Case) -> None:
    text = page(starved)
    (css,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    (policy,) = [value for name, value in parsed(text).attributes if name == "content" and "default-src" in value]
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_every_picture_is_told_in_words(starved: Case) -> None:
    text = page(starved)
    pictures = [Xml.fromstring(one) for one in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]
    assert len(pictures) == 5  # the wait, its beginning, waiting times, fairness, wasted time
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    for one in pictures:
        named = one.attrib["aria-labelledby"].split()
        words = [next(part.text for part in one.iter() if part.attrib.get("id") == name) for name in named]
        assert len(words) == 2 and all(words)
    assert "CPU 1: idle 98 %; kworker/0:1[12] 2 %." in text


def test_the_page_says_what_somebody_needs(starved: Case) -> None:
    words = " ".join("".join(parsed(page(starved)).texts).split())
    for expected in (
        "rejected",
        "task starved in starvation",
        "confirmed by a second run",
        "runs/001/stream:",
        "testbed replay CASE/runs/001 --until 5.740000s",
        "testbed explain task-starved",
        "nobody waits long while others spin",
        "real-concurrency",
        "a" * 64,
        "2" * 64,
        "runnable, not running: 700 ms",
    ):
        assert expected in words


def test_a_picture_of_very_many_switches_stays_small_and_whole(tmp_path: Path) -> None:
    records = [[t * 10, t % 2, 301 + t // 2 % 7, 1, 301 + (t // 2 + 1) % 7] for t in range(12_000)]
    text = picture(build(tmp_path / "case", trace_events(records, NAMES)))
    assert len(text) < 300_000
    (queue,) = [one for one in Xml.fromstring(text).iter() if one.tag.endswith("polygon")]
    corners = [tuple(map(float, pair.split(","))) for pair in queue.attrib["points"].split(" ")]
    assert len(corners) > 4 and all(len(corner) == 2 for corner in corners)


def test_a_run_without_a_trace_has_a_page_all_the_same(tmp_path: Path) -> None:
    without = [one for one in events() if one["e"] != "trace"]
    case = build(tmp_path / "case", without)
    assert "No trace was recorded in this run" in page(case)
    with pytest.raises(UsageError, match="no trace was recorded in `runs/001`"):
        picture(case)


def test_the_lines_around_a_place_are_shown_but_no_file_of_the_verdicts_choice(starved: Case) -> None:
    refs = [
        EvidenceRef(file="runs/001/console.log", line=2, text="two"),
        EvidenceRef(file="../../../../etc/passwd", line=1, text="no excerpt"),
        EvidenceRef(file="candidate/../case.json", line=1, text="none either"),
        EvidenceRef(file="runs/001/console.log", line=99, text="beyond the end"),
    ]
    text = page(starved, finding("told").model_copy(update={"evidence": tuple(refs)}))
    assert "<pre>    1  one\n<mark>    2  two</mark>\n</pre>" in text
    for ref in refs[1:]:
        assert f"<code>{ref.text}</code>" in text
    assert "root:" not in text and "testbed.case/1" not in text


def test_what_the_oracle_measured_is_drawn_beside_the_baseline(starved: Case) -> None:
    verdict = printed(judge(starved), case_dir="CASE", elapsed_s=None)
    values = {Role.CANDIDATE: (3.0, 1.0, 0.9), Role.BASELINE: (1.0, 1.0, 0.01)}
    names = ("hogs.cputime", "near.cputime", "loaded.wasted")
    runs = [
        run.model_copy(
            update={
                "measurements": [
                    Measurement(name=name, unit="1", value=value, samples=1)
                    for name, value in zip(names, values[run.role], strict=True)
                ]
            }
        )
        for run in verdict.scenarios[0].runs
    ]
    scenario = verdict.scenarios[0].model_copy(update={"runs": tuple(runs)})
    text = html.render(verdict.model_copy(update={"scenarios": (scenario,)}), starved)
    assert "hogs.cputime: 75.0%, EEVDF 50.0%; near.cputime: 25.0%, EEVDF 50.0%." in text
    assert "CPUs idle while a task waited in starvation [sim]" in text
    assert "loaded.wasted: 90.0%, EEVDF 1.0%." in text


def test_several_seeds_are_a_range_around_their_median() -> None:
    rows = [plots.Both("near.gap.p50", [2e6, 8e6, 4e6], [1e6], resolution=10_000)]
    root = Xml.fromstring(plots.latency("x", "waiting times", rows))
    *_, circle = (one for one in root.iter() if one.tag.endswith("circle"))  # the first one is in the key
    (line,) = [one for one in root.iter() if one.attrib.get("class") == "good-line"]
    assert float(line.attrib["x1"]) < float(circle.attrib["cx"]) < float(line.attrib["x2"])
    assert root[1].text == "near.gap.p50: 4 ms, EEVDF 1 ms."


@pytest.mark.parametrize(
    ("better", "ratio", "words"),
    [("lower", 0.5, "×2"), ("lower", 1536.0, "÷1536"), ("higher", 1.28, "×1.28"), ("higher", 1.001, "the same")],
)
def test_a_ratio_says_how_many_times_better_or_worse(
    better: Literal["lower", "higher"], ratio: float, words: str
) -> None:
    figure = Figure(
        name="x.gap.p50",
        scenario="stall",
        clock=Clock.SIM,
        unit="us",
        better=better,
        candidate=ratio,
        baseline=1.0,
        samples=1,
        baseline_samples=1,
        ratio=ratio,
        resolution=0.1,
        judgement="better",
    )
    assert f">{words}, better<" in plots.ratios("x", "ratios", [figure])


@pytest.mark.parametrize(
    ("ns", "words"), [(0.0, "0 ns"), (10_000, "10 µs"), (999_999, "1 ms"), (728e6, "728 ms"), (2.5e9, "2.5 s")]
)
def test_a_duration_has_a_unit_that_suits_it(ns: float, words: str) -> None:
    assert draw.duration(ns) == words


def test_ticks_around_a_middle_are_as_far_to_the_left_as_to_the_right() -> None:
    axis = draw.Log([0.02, 3.0], 0, 100, around=1.0)
    places = [axis.x(value) for value in axis.ticks()]
    assert places == pytest.approx([100 - place for place in reversed(places)])
    assert axis.x(0) == 0 and axis.x(1e9) == 100


def test_equal_pictures_are_drawn_once(starved: Case) -> None:
    real = judge(starved).findings[0]
    text = page(starved, real, real.model_copy(update={"code": "canary-starved"}))
    assert text.count("the one above") == 1


# --- text of strangers ---------------------------------------------------------------------------------------


def finding(text: str, code: str = "task-starved") -> Finding:
    return Finding(
        code=code,
        status=Status.FAIL,
        title=text,
        scenario=text,
        message=text,
        evidence=(EvidenceRef(file=text, line=3, text=text[:400]),),
        cause=text,
        hint=text,
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_a_candidate_is_no_html(starved: Case, text: str) -> None:
    # Backticks and line ends are the two things that a message may say of its own looks.
    tame = re.sub(r"[^`\n]", "x", text)
    written, expected = (page(starved, finding(one)) for one in (text, tame))
    assert parsed(written).found == parsed(expected).found
    assert not any(char in written for char in "\x1b\x9b\x00\u202e\u2066")


def test_names_and_kernel_logs_are_no_html_and_no_svg(starved: Case, tmp_path: Path) -> None:
    tasks = list(enumerate(HOSTILE, start=400))
    turns = [[t * 20_000, 1, 400 + t, 1, 401 + t] for t in range(len(tasks) - 1)]
    told = [
        *({"e": "task", "load": text, "task": 0, "pid": pid, "comm": text} for pid, text in tasks),
        {"e": "starving", "tid": STARVED, "comm": HOSTILE[12], "allowed": HOSTILE[12], "waited_ms": 700, "t": NOTICED},
        *trace_events(sorted(starvation() + turns), [(pid, text, 0) for pid, text in [*tasks, (STARVED, HOSTILE[12])]]),
    ]
    case = build(tmp_path / "case", told, console="\n".join(HOSTILE))
    text = picture(case)
    Xml.fromstring(text)
    assert "&lt;img" in text
    found, tame = ({one.split(" ")[0] for one in parsed(page(one)).found} for one in (case, starved))
    assert found <= tame


@given(st.text(max_size=100))
def test_only_markup_is_not_escaped(text: str) -> None:
    written = tag("p", text, tag("b", text), title=text)
    assert parsed(written).found == ["p ['title']", "b []", "/b", "/p"]
    Xml.fromstring(written)


def test_markup_that_was_joined_with_text_is_text_again() -> None:
    assert joined(tag("b", "x") + "<i>") == "&lt;b&gt;x&lt;/b&gt;&lt;i&gt;"
    assert (
        tag("rect", width=1.0, height=2.5, fill_opacity=None, class_="x") == '<rect width="1" height="2.5" class="x"/>'
    )
    assert isinstance(tag("p"), Markup)
    with pytest.raises(ValueError, match="holds no tags"):
        style("</style>")


# --- the verb ------------------------------------------------------------------------------------------------


def test_the_verb_writes_a_page_into_the_case_and_opens_it(
    starved: Case, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def show(url: str) -> bool:
        opened.append(url)
        return True

    monkeypatch.setattr(webbrowser, "open", show)
    assert main(["report", str(starved.path), "--open"]) == ExitCode.PASS
    file = starved.path / "report.html"
    assert capsys.readouterr().out == f"{file}\n"
    assert opened == [file.as_uri()]
    assert file.read_text() == render(judge(starved), "html", case_dir=str(starved.path))


def test_without_a_browser_the_page_is_there(
    starved: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda _: False)
    file = tmp_path / "page.html"
    assert main(["report", str(starved.path), "--open", "--output", str(file)]) == ExitCode.INCONCLUSIVE
    assert "no browser was found" in capsys.readouterr().err
    assert file.is_file()


def test_the_verb_writes_a_picture_of_a_case_or_of_a_run(starved: Case, tmp_path: Path) -> None:
    for place in (starved.path, starved.path / "runs/001"):
        file = tmp_path / "picture.svg"
        assert main(["report", str(place), "--timeline", str(file)]) == ExitCode.PASS
        assert Xml.parse(file).getroot().tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["CASE/runs/000", "--timeline", "FILE"], "no trace was recorded in `runs/000`"),
        (["CASE/runs/001"], "a page is about a whole case"),
        (["CASE", "--timeline", "FILE", "--open"], "`--timeline` writes a picture and no page"),
        (["CASE", "--output", "/no/such/place"], "`--output /no/such/place` can't be written: no such file or dir"),
        (["nothing"], "`nothing` is no case"),
    ],
)
def test_a_wrong_report_is_a_usage_error(
    starved: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    known = {"CASE": str(starved.path), "FILE": str(tmp_path / "x.svg")}
    given_words = [re.sub("CASE|FILE", lambda found: known[found[0]], word) for word in words]
    assert main(["report", *given_words]) == ExitCode.USAGE
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_run_writes_the_page_too(starved: Case, tmp_path: Path) -> None:
    file = tmp_path / "x.html"
    assert main(["judge", str(starved.path), "--format", f"html={file}"]) == ExitCode.REJECT
    assert file.read_text().startswith("<!doctype html>\n")
