# SPDX-License-Identifier: Apache-2.0
"""The terminal: one line per scenario, findings with cause and hint, the case's path last.

Everything that comes from a guest, a compiler or a candidate is untrusted: control characters and escape sequences are
taken out, nothing is read as rich's markup, and no line is a command of a CI runner's. Colour decorates and never
carries meaning alone.
"""

from __future__ import annotations

import io
import os
import textwrap
from collections import deque
from collections.abc import Iterable
from typing import TextIO

from rich.console import Console
from rich.text import Text

from testbed.judge.modes import MODES
from testbed.lint.texts import PREFIX
from testbed.report.document import PrintedVerdict
from testbed.report.escape import cut, defused, harmless
from testbed.report.events import Heartbeat, StageEnded, StageLine, StageStarted, VerdictReached
from testbed.stats import needed_samples
from testbed.status import Status
from testbed.verdict import Figure, Finding, Outcome, ScenarioResult

STYLES = {
    Status.FAIL: "bold red",
    Status.ERROR: "bold yellow",
    Status.MISS: "yellow",
    Status.PASS: "green",
    Status.DONE: "green",
    Status.SKIP: "dim",
}
WORDS = {Outcome.PASS: "pass", Outcome.REJECT: "rejected", Outcome.INCONCLUSIVE: "inconclusive"}
TAIL = 10
LONGEST_BASELINE = 24


def want_colour(stream: TextIO) -> bool:
    """Whether a stream is a terminal and nobody said NO_COLOR (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def console(stream: TextIO, *, colour: bool, width: int = 100) -> Console:
    """A rich console that only decorates: no markup, no emoji, no guessing."""
    return Console(
        file=stream,
        force_terminal=colour,
        no_color=not colour,
        color_system="standard" if colour else None,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=True,
        width=width,
        legacy_windows=False,
    )


def render(verdict: PrintedVerdict, *, colour: bool = False, width: int = 100) -> str:
    """A verdict as text."""
    stream = io.StringIO()
    out = console(stream, colour=colour, width=width)
    for line in _lines(verdict, width):
        out.print(line)
    return defused(stream.getvalue())


def _lines(verdict: PrintedVerdict, width: int) -> Iterable[Text]:
    for result in verdict.scenarios:
        if result.status is not Status.SKIP:
            yield scenario_line(result)
    advice = [finding for finding in verdict.findings if _is_advice(finding)]
    for finding in verdict.findings:
        if finding not in advice:
            yield Text("")
            yield from _finding(finding, width)
    if advice:
        yield Text("")
        yield from _advice(advice)
    yield Text("")
    if verdict.benefit.figures:
        yield from _figures(verdict.benefit.figures, cut(harmless(verdict.baseline.name), LONGEST_BASELINE))
        yield Text("")
    style = {"pass": "bold green", "reject": "bold red"}.get(verdict.verdict, "bold yellow")
    yield Text.assemble((WORDS[verdict.verdict], style), f": {harmless(verdict.title)}")
    yield from _labelled("safety", f"{verdict.safety.outcome}: {verdict.safety.summary}", width)
    yield from _labelled("benefit", verdict.benefit.summary, width)
    candidate = verdict.candidate
    yield from _labelled("judged", f"{candidate.name}, sha256 {candidate.sha256[:16]}", width)
    if (baseline := verdict.baseline).kind != "eevdf":
        told = " ".join((baseline.name, *baseline.options))
        yield from _labelled("against", f"{told}, sha256 {baseline.sha256[:16]} (safety: EEVDF)", width)
        if baseline.note:
            yield from _labelled("", baseline.note, width)
    where = f"kernel {verdict.kernel.release}, " if verdict.kernel else ""
    yield from _labelled("under", f"{where}policy {verdict.policy.name}, verdict {verdict.id}", width)
    if verdict.controls:
        yield from _labelled("controls", ", ".join(str(one) for one in verdict.controls), width)
    if (schbench := verdict.tool.schbench) is not None:
        whose = "our own" if schbench.origin == "image" else f"{schbench.name}, as given"
        yield from _labelled("schbench", f"{whose}, sha256 {schbench.sha256[:16]}", width)
    if (own := verdict.tool.workload) is not None:
        yield from _labelled("workload", f"{own.name}, sha256 {own.sha256[:16]}", width)
    if not verdict.complete:
        yield from _labelled("complete", "no: something that the policy requires did not run", width)
    modes = sum(one.mode is not None for one in verdict.not_checked)
    codes = list(dict.fromkeys(one.code for one in verdict.not_checked if one.mode is None))
    codes += [f"and {modes} of {len(MODES)} known failure modes"] if modes else []
    if codes:
        yield from _labelled("unknown", f"not checked: {', '.join(codes)} (reasons in verdict.json)", width)
    if verdict.elapsed_s is not None:
        yield from _labelled("took", f"{verdict.elapsed_s:.1f} s", width)
    if verdict.case_dir is not None:
        yield Text(f"case: {harmless(verdict.case_dir)}")


def scenario_line(result: ScenarioResult) -> Text:
    """One scenario in a line."""
    optional = "" if result.required else " (optional)"
    line = Text.assemble(
        (f"{result.status:5}", STYLES[result.status]), f" {harmless(result.name)} [{result.clock}]{optional}"
    )
    if result.reason and result.status is not Status.PASS:
        line.append(f": {harmless(result.reason)}")
    return line


def _is_advice(finding: Finding) -> bool:
    """Whether it comes from the lint and decides nothing."""
    return finding.code.startswith(PREFIX) and finding.status is Status.DONE


def _advice(findings: Iterable[Finding]) -> Iterable[Text]:
    """A line each; `testbed lint` draws them with their source lines."""
    yield Text("lint (advice, decides nothing):")
    for finding in findings:
        first, _, _ = finding.message.partition("\n")
        yield Text(f"  {harmless(first)} [{finding.code}]")


def _finding(finding: Finding, width: int) -> Iterable[Text]:
    marks = [str(finding.clock)] if finding.clock else []
    if finding.status is Status.FAIL and finding.scenario:  # what the build stage finds needs no repetition
        marks.append("confirmed" if finding.confirmed else "seen once")
    shown = f" ({', '.join(marks)})" if marks else ""
    yield Text.assemble(
        (str(finding.status), STYLES[finding.status]), f" {finding.code}: {harmless(finding.title)}{shown}"
    )
    if "\n" in finding.message:
        # Drawn by hand, e.g. a source line with its underline: never wrapped.
        for part in finding.message.split("\n"):
            yield Text(f"  {harmless(part)}".rstrip())
    else:
        yield from _labelled("", finding.message, width)
    for ref in finding.evidence:
        place = f"{ref.file}:{ref.line}" if ref.line else ref.file
        yield Text(cut(f"  --> {harmless(place)}" + (f"  {harmless(ref.text)}" if ref.text else ""), width))
    yield from _labelled("cause", finding.cause, width)
    yield from _labelled("hint", finding.hint, width)


def _figures(figures: Iterable[Figure], baseline: str) -> Iterable[Text]:
    shown = list(figures)
    name_width = max(len(f"{figure.scenario}: {figure.name}") for figure in shown)
    other_width = max(12, len(baseline))
    yield Text(f"{'figure':{name_width}}  {'candidate':>12}  {baseline:>{other_width}}  unit")
    for figure in shown:
        name = harmless(f"{figure.scenario}: {figure.name}")
        simulated = ", simulated" if figure.clock == "sim" else ""
        within = f" within {figure.floor:.1%}" if figure.judgement == "not distinguishable" else ""
        yield Text(
            f"{name:{name_width}}  {_number(figure.candidate):>12}  {_number(figure.baseline):>{other_width}}  "
            f"{harmless(figure.unit):6}  {_judged(figure)}{within}{simulated}"
        )


def _judged(figure: Figure) -> str:
    """The judgement; of what was not measured, why."""
    if figure.judgement != "not measured":
        return figure.judgement
    needed, there = needed_samples(figure.name), min(figure.samples, figure.baseline_samples)
    if figure.candidate is None or figure.baseline is None or not there:
        return "not measured (no sample)"
    return (
        f"not measured ({there} of {needed} samples)"
        if there < needed
        else "not measured (too few runs, or samples of one)"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"


def _labelled(label: str, text: str, width: int) -> Iterable[Text]:
    first = f"  {label}: " if label else "  "
    following = " " * 4
    for line in textwrap.wrap(
        first + harmless(text), max(40, width), subsequent_indent=following, break_on_hyphens=False
    ):
        yield Text(line)


def _quiet(text: str) -> str:
    """Untrusted text for a log: nothing to a terminal, and nothing to a CI runner."""
    return defused(harmless(text))


class TextProgress:
    """A listener that is quiet on success and loud on failure.

    One line when a stage ends. While stages go on, a terminal shows the last ten lines of their output below, and takes
    them away again; where a stage fails, its last lines stay.
    """

    def __init__(self, stream: TextIO, *, colour: bool | None = None, verbose: bool = False) -> None:
        """Print to `stream`; `verbose` prints every line as it comes."""
        self._colour = want_colour(stream) if colour is None else colour
        self._window = stream.isatty() and not verbose and os.environ.get("TERM") != "dumb"
        self._stream = stream
        self._out = console(stream, colour=self._colour)
        self._verbose = verbose
        self._tails: dict[str, deque[str]] = {}
        self._shown = 0

    def __call__(self, event: StageStarted | StageLine | StageEnded | Heartbeat | VerdictReached) -> None:
        """Show an event."""
        match event:
            case StageStarted():
                self._tails[event.stage] = deque(maxlen=TAIL)
            case StageLine():
                line = _quiet(event.text)
                self._tails.setdefault(event.stage, deque(maxlen=TAIL)).append(line)
                if self._verbose:
                    self._out.print(Text(f"  {_quiet(event.stage)} | {line}"))
                self._draw()
            case Heartbeat():
                if event.text:
                    self._tails.setdefault(event.stage, deque(maxlen=TAIL))
                self._draw()
            case StageEnded():
                self._clear()
                self._ended(event)
                self._draw()
            case VerdictReached():
                self._clear()

    def _ended(self, event: StageEnded) -> None:
        line = Text.assemble(
            (f"{event.status:5}", STYLES[event.status]), f" {_quiet(event.title)} ({event.elapsed_s:.1f} s)"
        )
        if event.summary:
            line.append(f": {_quiet(event.summary)}")
        self._out.print(line)
        tail = self._tails.pop(event.stage, deque())
        if event.status in (Status.FAIL, Status.ERROR) and not self._verbose:
            for text in tail:
                self._out.print(Text(f"    {text}", style="dim"))

    def _draw(self) -> None:
        if not self._window:
            return
        self._clear()
        lines = [text for tail in self._tails.values() for text in tail][-TAIL:]
        for text in lines:
            self._stream.write(f"  {text[:110]}\n")
        self._shown = len(lines)
        self._stream.flush()

    def _clear(self) -> None:
        if self._shown:
            # Up so many lines, and erase from there to the end of the screen.
            self._stream.write(f"\x1b[{self._shown}A\x1b[J")
            self._shown = 0
