# SPDX-License-Identifier: Apache-2.0
"""Writers over one verdict, and the event stream."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.build.diagnostics import Diagnostic
from testbed.errors import UsageError
from testbed.judge import judge, noise
from testbed.lint.engine import Lint
from testbed.lint.texts import RULES
from testbed.report import (
    ADAPTER,
    Heartbeat,
    JsonLines,
    StageEnded,
    StageLine,
    StageStarted,
    TextProgress,
    error_document,
    event_line,
    harmless,
    parse_format,
    parse_formats,
    render,
    want_colour,
)
from testbed.status import Status
from testbed.verdict import Verdict
from tests.unit.case_builder import CaseBuilder, Script
from tests.unit.noise_table import TABLE


@pytest.fixture(scope="module")
def rejected(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    builder = CaseBuilder(tmp_path_factory.mktemp("report") / "case")
    builder.demand("starvation")
    builder.demand("stall", "live", required=False)
    builder.pair("starvation", Script(figures={"polite.gap.max": 1_500_000, "plain.gap.p99": 9000}))
    return judge(builder.finish())


def test_the_text_says_it_all(rejected: Verdict) -> None:
    text = render(rejected, "text", case_dir="/tmp/x/case", elapsed_s=12.34)
    head = text[: text.index("  judged:")]
    assert (
        head
        == """\
FAIL  starvation [sim]: canary starved
MISS  stall [live] (optional): only the clock `sim` was asked for

FAIL canary-starved: canary starved in starvation (sim, confirmed)
  the worst wait of `polite` was 1500.0 ms; the baseline's was 2.0 ms, allowed are 500.0 ms or 10
    times the baseline
  --> runs/001/stream:58  measure name=gap load=polite task=0 cpu=-1 unit=us stat=max value=15000...
  --> runs/000/stream:55  measure name=gap load=polite task=0 cpu=-1 unit=us stat=max value=2000....
  cause: new or waking tasks go behind a queue that never gets empty (LIFO, strict priority, endless
    slice)
  hint: let waking tasks in by age: FIFO, or vtime with the wake-up clamped to now minus one slice

rejected: canary starved in starvation
  safety: fail: canary starved in starvation (decided by `sim`)
  benefit: no figure was measured on both sides
"""
    )
    assert text.endswith("\n  took: 12.3 s\ncase: /tmp/x/case\n")
    assert "\x1b" not in text


def test_advice_of_the_lint_is_a_line_each_and_decides_nothing(rejected: Verdict) -> None:
    rule = RULES["lint-newest-first"]
    where = Diagnostic("warning", "the order falls with time", "x.bpf.c", 2, 5, 3)
    advice = Lint(rule, where, {"x.bpf.c": "int a;\n    bad;\n"}, own=True).finding()
    assert advice.status is Status.DONE
    text = render(rejected.model_copy(update={"findings": (*rejected.findings, advice)}), "text")
    assert (
        "\nlint (advice, decides nothing):\n"
        "  x.bpf.c:2:5: warning: the order falls with time [lint-newest-first]\n\nrejected: " in text
    )
    assert rule.fix not in text


def test_figures_stand_beside_the_baselines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "load", lambda: TABLE)
    builder = CaseBuilder(tmp_path / "case")
    builder.demand("starvation")
    builder.pair("starvation")
    text = render(judge(builder.finish()), "text")
    line = "starvation: plain.gap.p99           800           800  us      not distinguishable within 10.0%, simulated"
    assert line in text
    assert "\npass: no fault found\n" in text


def test_json_is_one_document(rejected: Verdict) -> None:
    document = json.loads(render(rejected, "json", case_dir="/c", elapsed_s=2))
    assert document["schema"] == "testbed.verdict/1"
    assert document["exit_code"] == 1
    assert document["case_dir"] == "/c"
    assert "case_dir" not in json.loads(render(rejected, "json"))


def test_colour_only_decorates(rejected: Verdict) -> None:
    coloured = render(rejected, "text", colour=True)
    assert "\x1b[" in coloured
    assert "".join(harmless(line) + "\n" for line in coloured.splitlines()) == render(rejected, "text")


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert want_colour(Terminal())
    assert not want_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not want_colour(Terminal())


@given(st.text())
def test_untrusted_text_does_nothing_to_a_terminal(text: str) -> None:
    assert harmless(text).isprintable()


def test_markup_and_escapes_of_a_candidate_stay_text(tmp_path: Path) -> None:
    builder = CaseBuilder(tmp_path / "case")
    builder.demand("stall")
    extra = {
        "e": "starving",
        "pid": 9,
        "tid": 9,
        "comm": "[red]\x1b[31m:x:",
        "cpu": 0,
        "waited_ms": 5100,
        "after_ms": 9,
    }
    builder.pair("stall", Script(during={"hold": [extra]}))
    text = render(judge(builder.finish()), "text", colour=True)
    assert "[red]:x:" in text
    assert "\x1b[31m:" not in text


def test_events_are_read_back() -> None:
    events: list[StageStarted | StageLine | Heartbeat | StageEnded] = [
        StageStarted(stage="stall sim", title="stall [sim]"),
        StageLine(stage="stall sim", text="\x1b[2J"),
        Heartbeat(stage="stall sim", elapsed_s=1.5, text="3.2 s"),
        StageEnded(stage="stall sim", title="stall [sim]", status=Status.PASS, elapsed_s=4),
    ]
    stream = io.StringIO()
    listener = JsonLines(stream)
    for event in events:
        listener(event)
    lines = stream.getvalue().splitlines()
    assert [ADAPTER.validate_json(line) for line in lines] == events
    assert all(line.isascii() and "\x1b" not in line for line in lines)


def test_the_last_event_is_the_verdict(rejected: Verdict) -> None:
    line = render(rejected, "jsonl", case_dir="/c", elapsed_s=1)
    assert line.count("\n") == 1
    event = ADAPTER.validate_json(line)
    assert event_line(event) == line


def test_progress_is_quiet_on_success_and_loud_on_failure() -> None:
    stream = io.StringIO()
    show = TextProgress(stream, colour=False)
    for status in (Status.PASS, Status.FAIL):
        show(StageStarted(stage="a", title="stall [sim]"))
        for number in range(15):
            show(StageLine(stage="a", text=f"line {number}"))
        show(StageEnded(stage="a", title="stall [sim]", status=status, elapsed_s=1.25, summary="why"))
    assert stream.getvalue() == "PASS  stall [sim] (1.2 s): why\nFAIL  stall [sim] (1.2 s): why\n" + "".join(
        f"    line {number}\n" for number in range(5, 15)
    )


def test_a_window_of_lines_is_drawn_and_taken_away() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    show = TextProgress(stream, colour=False)
    show(StageStarted(stage="a", title="t"))
    show(StageLine(stage="a", text="hello"))
    show(StageEnded(stage="a", title="t", status=Status.PASS, elapsed_s=1))
    assert stream.getvalue() == "  hello\n\x1b[1A\x1b[JPASS  t (1.0 s)\n"


def test_formats_are_parsed() -> None:
    assert parse_format("json=out.json").path == Path("out.json")
    assert [one.name for one in parse_formats([])] == ["text"]
    with pytest.raises(UsageError, match="there is no format `jsn`") as caught:
        parse_format("jsn")
    assert caught.value.hint == "did you mean `json`?"
    with pytest.raises(UsageError, match="only one format can go to stdout"):
        parse_formats(["json", "text"])
    with pytest.raises(UsageError, match="names no file"):
        parse_format("json=")


def test_an_error_has_a_document_too() -> None:
    assert error_document(UsageError("no such file", hint="look")) == {
        "schema": "testbed.error/1",
        "exit_code": 2,
        "addressee": "you",
        "message": "no such file",
        "hint": "look",
    }
