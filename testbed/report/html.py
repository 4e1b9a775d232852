# SPDX-License-Identifier: Apache-2.0
"""One page that explains a verdict: findings with pictures, figures beside the baseline, what was judged and how.

The page needs nothing but itself: no script, no resource from anywhere. Its policy forbids both, and allows one style
sheet by its hash, so that even text that came out of its place could do nothing.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import TypeVar

from testbed import timeline as timelines
from testbed.case import CONSOLE_FILE, STREAM_FILE, Case, Event, RunEvidence, printable
from testbed.errors import UsageError
from testbed.judge import catalogue, pairs
from testbed.judge.benefit import NS_PER_UNIT, is_latency, resolution
from testbed.lint.texts import PREFIX
from testbed.report import draw, plots, timeline
from testbed.report.document import PrintedVerdict
from testbed.report.escape import harmless, lines
from testbed.report.markup import LINE_END, Markup, joined, style, tag
from testbed.report.text import WORDS
from testbed.scenario import Scenario
from testbed.spec import Clock, Role
from testbed.status import Status
from testbed.timeline import Focus, Timeline
from testbed.verdict import EvidenceRef, Finding, RunResult, ScenarioResult

_K = TypeVar("_K")

RUNNER = 1
"""The runner is the guest's init."""

MAX_FINDINGS = 50
MAX_PICTURES = 6
MAX_PLOTS = 30
AROUND = 3
"""Lines of a file that are shown before and after the one that counts."""

_PAGE = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;padding:1.5rem;max-width:66rem;"
    "background:#fff;color:#1f2328}"
    "h1{font-size:1.7rem;line-height:1.25;margin:.3rem 0 1rem}h2{margin:2.5rem 0 .6rem;font-size:1.3rem}"
    "h3{margin:0 0 .4rem;font-size:1.1rem}"
    "article{border:1px solid #d1d9e0;border-left:.35rem solid #59636e;border-radius:.4rem;padding:1rem;margin:1rem 0}"
    "article.fail{border-left-color:#c0392b}article.pass{border-left-color:#0072b2}"
    "table{border-collapse:collapse;width:100%;font-size:.92rem}caption{text-align:left;color:#59636e;padding:.2rem 0}"
    "th,td{text-align:left;vertical-align:top;padding:.3rem .7rem .3rem 0;border-bottom:1px solid #d1d9e0}"
    ".n{text-align:right;font-variant-numeric:tabular-nums}td,dd{overflow-wrap:anywhere}td.place{min-width:12rem}"
    "pre,code{font:13px/1.45 ui-monospace,monospace}"
    "pre{overflow-x:auto;background:#f3f5f7;padding:.6rem;margin:.4rem 0;border-radius:.3rem;white-space:pre-wrap;"
    "overflow-wrap:anywhere}"
    "mark{background:#fbe3de;color:inherit}"
    "dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1rem;margin:.6rem 0}"
    "dt{color:#59636e}dd{margin:0}figure{margin:1rem 0}figcaption,.quiet{color:#59636e;font-size:.92rem}"
    ".badge{display:inline-block;font-weight:700;padding:.15rem .7rem;border-radius:1rem;border:2px solid currentColor}"
    ".badge.fail{color:#c0392b}.badge.pass{color:#0072b2}summary{cursor:pointer}"
    "@media (prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}"
    "article,th,td{border-color:#30363d}article{border-left-color:#9198a1}article.fail{border-left-color:#ff8f7a}"
    "article.pass{border-left-color:#56b4e9}pre{background:#1c2129}mark{background:#4a1d17}"
    "dt,caption,figcaption,.quiet{color:#9198a1}.badge.fail{color:#ff8f7a}.badge.pass{color:#56b4e9}}"
    "@media print{body{max-width:none}details{display:block}}"
)
_KINDS = {Status.FAIL: "fail", Status.PASS: "pass"}


def render(verdict: PrintedVerdict, case: Case) -> str:
    """The page.

    Args:
        verdict: of this case; it may be one by another policy than the case's own.
        case: the evidence.
    """
    return _Page(verdict, case).text()


def shell(title: str, parts: Sequence[Markup]) -> str:
    """A page of these parts that needs nothing but itself."""
    css = _PAGE + draw.STYLE
    allowed = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'sha256-{allowed}'; base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        style(css),
    )
    body = tag("body", tag("main", *(joined(LINE_END, part) for part in parts), LINE_END))
    return f"<!doctype html>\n{tag('html', head, LINE_END, body, lang='en')}\n"


def picture(run: RunEvidence, event: Event | None = None) -> Markup:
    """The timeline of one run as a file of its own.

    Raises:
        UsageError: the run has no trace.
    """
    found = timelines.read(run.stream)
    if found is None:
        raise UsageError(
            f"no trace was recorded in `{run.name}`", hint="only runs of images with the recorder have one"
        )
    focus = timelines.focus(found, run, event)
    return timeline.render(timeline.whole(found, focus, _Names(found, run)), alone=True)


def failing_run(case: Case, findings: Sequence[Finding]) -> tuple[RunEvidence, Event | None] | None:
    """The run that a verdict's worst finding points to, and where; else the case's first run of the candidate."""
    runs = {run.name: run for run in case.runs}
    for finding in findings:
        place = _place(runs, finding)
        if place is not None and finding.status in (Status.FAIL, Status.ERROR):
            return place
    first = next((run for run in case.runs if run.spec.role is Role.CANDIDATE), None)
    return (first, None) if first is not None else None


def _place(runs: dict[str, RunEvidence], finding: Finding) -> tuple[RunEvidence, Event | None] | None:
    """The first run of a finding's evidence, with the event that it points to, if it points to one."""
    found: RunEvidence | None = None
    for ref in finding.evidence:
        name, _, file = ref.file.rpartition("/")
        run = runs.get(name)
        if run is None or (found is not None and run is not found):
            continue
        found = run
        if file == STREAM_FILE:
            event = next((one for one in run.stream.events if one.line == ref.line), None)
            if event is not None:
                return run, event
    return (found, None) if found is not None else None


@dataclass(frozen=True)
class _Names:
    """How tasks are called: by the guest's name for them, and by the load that they are."""

    timeline: Timeline
    run: RunEvidence

    @cached_property
    def _loads(self) -> dict[int, str]:
        tasks = self.run.stream.of("task")
        several = {event.text("load") for event in tasks if event.integer("task") > 0}
        return {
            event.integer("pid"): printable(event.text("load"), 40)
            + (f" {event.integer('task')}" if event.text("load") in several else "")
            for event in tasks
        }

    def __call__(self, pid: int) -> str:
        task = self.timeline.task(pid)
        load = "the testbed's runner" if pid == RUNNER else self._loads.get(pid)
        return f"{task.name} ({load})" if load else task.name


class _Page:
    """The parts of one page; each is `Markup`, made of tags."""

    def __init__(self, verdict: PrintedVerdict, case: Case) -> None:
        self.verdict = verdict
        self.case = case
        self.runs = {run.name: run for run in case.runs}
        self.drawn: dict[tuple[str, Focus | None], str] = {}

    @cached_property
    def scenarios(self) -> dict[str, Scenario]:
        return self.case.scenarios()

    @cached_property
    def sources(self) -> dict[str, str]:
        return self.case.sources()

    def text(self) -> str:
        title = f"{WORDS[self.verdict.verdict]}: {self.verdict.candidate.name}"
        parts = [
            self._head(),
            *self._findings(),
            *self._advice(),
            self._scenarios(),
            *self._benefit(),
            self._not_checked(),
            self._inputs(),
        ]
        return shell(title, parts)

    # --- the answer --------------------------------------------------------------------------------------

    def _head(self) -> Markup:
        verdict = self.verdict
        kind = {"pass": "pass", "reject": "fail"}.get(verdict.verdict, "")
        kernel = f"kernel {verdict.kernel.release}, " if verdict.kernel is not None else ""
        complete = "" if verdict.complete else "Something that the policy requires did not run."
        return tag(
            "header",
            tag("span", WORDS[verdict.verdict], class_=f"badge {kind}"),
            tag("h1", verdict.title),
            _terms(
                ("safety", f"{verdict.safety.outcome}: {verdict.safety.summary}"),
                ("benefit", f"{verdict.benefit.outcome}: {verdict.benefit.summary}"),
                ("judged", f"{verdict.candidate.name}, sha256 {verdict.candidate.sha256[:16]}"),
                ("under", f"{kernel}policy {verdict.policy.name}, verdict {verdict.id}"),
                ("controls", ", ".join(str(one) for one in verdict.controls)),
                ("complete", complete),
            ),
        )

    # --- findings ----------------------------------------------------------------------------------------

    def _findings(self) -> Iterator[Markup]:
        shown = [one for one in self.verdict.findings if not _is_advice(one)]
        if shown:
            yield tag("h2", "What was found")
        for index, finding in enumerate(shown[:MAX_FINDINGS]):
            yield self._finding(finding, index)
        if len(shown) > MAX_FINDINGS:
            yield tag("p", f"{len(shown) - MAX_FINDINGS} more findings are in verdict.json.")

    def _finding(self, finding: Finding, index: int) -> Markup:
        marks = [str(finding.status), finding.code, *([str(finding.clock)] if finding.clock else [])]
        if finding.status is Status.FAIL and finding.scenario:
            marks.append("confirmed by a second run" if finding.confirmed else "seen once")
        entry = catalogue.ALL.get(finding.code)
        told = lines(finding.message)
        return tag(
            "article",
            tag("h3", finding.title),
            tag("p", " · ".join(marks), class_="quiet"),
            _block(told) if len(told) > 1 else tag("p", *map(_prose, told)),
            *([tag("p", _prose(entry.meaning))] if entry is not None else []),
            *self._picture(finding, f"finding-{index}"),
            *([self._evidence(finding.evidence)] if finding.evidence else []),
            _terms(("cause", finding.cause), ("hint", finding.hint)),
            *self._again(finding),
            *([_explained(entry)] if entry is not None else []),
            class_=_KINDS.get(finding.status),
        )

    def _picture(self, finding: Finding, name: str) -> Iterator[Markup]:
        """Who ran where around the failure: the whole wait, and its beginning from near by."""
        place = _place(self.runs, finding)
        if place is None or finding.status not in (Status.FAIL, Status.ERROR):
            return
        run, event = place
        found = timelines.read(run.stream)
        if found is None:
            yield tag(
                "p", "No trace was recorded in this run, so there is no picture of who ran where.", class_="quiet"
            )
            return
        focus = timelines.focus(found, run, event)
        known = self.drawn.get((run.name, focus))
        if known is not None:
            yield tag("p", "Its picture is ", tag("a", "the one above", href=f"#{known}"), ".")
            return
        if len(self.drawn) >= MAX_PICTURES:
            yield tag("p", f"`testbed report {run.name} --timeline FILE.svg` draws who ran where.", class_="quiet")
            return
        self.drawn[run.name, focus] = name
        names = _Names(found, run)
        whole = timeline.whole(found, focus, names, f"{name}-whole")
        near = timeline.beginning(found, focus, names, f"{name}-near")
        lost = f" The recorder had no room for {found.lost} earlier records." if found.lost else ""
        for scene in (whole, near):
            if scene is not None:
                yield tag(
                    "figure",
                    timeline.render(scene),
                    tag("figcaption", tag("details", tag("summary", "in words"), timeline.description(scene) + lost)),
                    id=name if scene is whole else None,
                )

    def _evidence(self, refs: Sequence[EvidenceRef]) -> Markup:
        rows = []
        for ref in refs:
            place = f"{ref.file}:{ref.line}" if ref.line else ref.file
            excerpt = self._excerpt(ref)
            rows.append(
                tag("tr", tag("td", tag("code", place), class_="place"), tag("td", excerpt or tag("code", ref.text))),
            )
        return tag("table", _heads("evidence", "what it says"), *rows)

    def _excerpt(self, ref: EvidenceRef) -> Markup | None:
        """The lines around a place, from what was read with the case: a verdict's paths are never opened."""
        if ref.line is None:
            return None
        name, _, file = ref.file.rpartition("/")
        if name in self.runs and file == CONSOLE_FILE:
            content = [printable(line) for line in self.runs[name].console.lines]
        elif (inside := ref.file.removeprefix("candidate/")) in self.sources and inside != ref.file:
            content = self.sources[inside].split("\n")
        else:
            return None
        first = max(0, ref.line - 1 - AROUND)
        shown = content[first : ref.line + AROUND]
        if not first <= ref.line - 1 < first + len(shown):
            return None
        parts = []
        for number, line in enumerate(lines("\n".join(shown)), start=first + 1):
            words = f"{number:5}  {line}"
            parts.append(joined(tag("mark", words) if number == ref.line else words, LINE_END))
        return tag("pre", *parts)

    def _again(self, finding: Finding) -> Iterator[Markup]:
        """How to see it again, where that is possible."""
        place = _place(self.runs, finding)
        if place is None or place[0].clock is not Clock.SIM:
            return
        run, event = place
        where = self.verdict.case_dir or self.case.path.name
        number = run.spec.repeats if run.spec.repeats is not None else run.spec.number
        words = [shlex.join(["testbed", "replay", f"{where}/runs/{number:03d}"])]
        if event is not None and run.stream.of("hello"):
            words.append(
                shlex.join(["testbed", "replay", f"{where}/runs/{number:03d}", "--until", f"{event.t / 1e9:.6f}s"])
            )
        yield tag("p", "To see it again, to the bit, or to stop there with a debugger:")
        yield _block([harmless(one) for one in words])

    def _advice(self) -> Iterator[Markup]:
        advice = [one for one in self.verdict.findings if _is_advice(one)]
        if not advice:
            return
        yield tag("h2", "Advice")
        yield tag("p", "From the lint; it decides nothing.")
        for finding in advice[:MAX_FINDINGS]:
            entry = catalogue.ALL.get(finding.code)
            yield tag(
                "article",
                tag("h3", finding.title),
                tag("p", finding.code, class_="quiet"),
                _block(lines(finding.message)),
                _terms(("hint", finding.hint)),
                *([_explained(entry)] if entry is not None else []),
            )

    # --- scenarios ---------------------------------------------------------------------------------------

    def _scenarios(self) -> Markup:
        rows = []
        for result in self.verdict.scenarios:
            known = self.scenarios.get(result.name)
            runs = [run for run in result.runs if run.repeats is None]
            machines = ", ".join(dict.fromkeys(str(run.topology) for run in runs))
            seeds = len({run.seed for run in runs})
            again = len(result.runs) - len(runs)
            count = f"{len(runs)}" + (f" + {again} again" if again else "")
            rows.append(
                tag(
                    "tr",
                    tag("td", str(result.status)),
                    tag("td", result.name, *_small(known.title if known else "")),
                    tag("td", f"{result.clock}{'' if result.required else ', optional'}"),
                    tag("td", machines),
                    tag("td", f"{count}, {seeds} {'seed' if seeds == 1 else 'seeds'}" if runs else ""),
                    tag("td", _prose(result.reason)),
                )
            )
        head = _heads("status", "scenario", "clock", "machine", "runs", "reason")
        return tag(
            "section",
            tag("h2", "What it was put through"),
            tag("table", head, *rows),
        )

    # --- figures -----------------------------------------------------------------------------------------

    def _benefit(self) -> Iterator[Markup]:
        benefit = self.verdict.benefit
        yield tag("h2", "Beside EEVDF")
        yield tag("p", f"{benefit.outcome}: {benefit.summary}.")
        figures = benefit.figures
        if any(figure.ratio for figure in figures):
            yield tag("figure", plots.ratios("ratios", "how many times as good as EEVDF", figures))
        if figures:
            rows = [
                tag(
                    "tr",
                    tag("td", f"{figure.scenario}: {figure.name}"),
                    tag("td", draw.number(figure.candidate), class_="n"),
                    tag("td", draw.number(figure.baseline), class_="n"),
                    tag("td", figure.unit),
                    tag("td", draw.number(figure.resolution) if figure.resolution else "", class_="n"),
                    tag("td", f"{figure.samples} / {figure.baseline_samples}", class_="n"),
                    tag("td", figure.judgement + (", simulated" if figure.clock is Clock.SIM else "")),
                )
                for figure in figures
            ]
            numbers = ("candidate", "EEVDF", "resolution", "samples")
            head = _heads("figure", "candidate", "EEVDF", "unit", "resolution", "samples", "judgement", numbers=numbers)
            yield tag("table", head, *rows)
        drawn = 0
        for index, result in enumerate(self.verdict.scenarios):
            for picture in (
                *self._latency(result, index),
                *self._fairness(result, index),
                *self._cpu_time(result, index),
            ):
                if drawn < MAX_PLOTS:
                    yield tag("figure", picture)
                drawn += 1
        if drawn > MAX_PLOTS:
            yield tag("p", f"{drawn - MAX_PLOTS} more plots are left out here.")

    def _latency(self, result: ScenarioResult, index: int) -> Iterator[Markup]:
        values: dict[str, tuple[list[float], list[float]]] = {}
        finest: dict[str, float] = {}
        for run in result.runs:
            if run.repeats is not None or run.role is Role.CONTROL:
                continue
            for one in run.measurements:
                if is_latency(one.unit) and _split(one.name)[1]:
                    sides = values.setdefault(one.name, ([], []))
                    sides[run.role is Role.BASELINE].append(one.value * NS_PER_UNIT[one.unit])
                    finest[one.name] = self._resolution(run, one.unit)
        rows = [
            plots.Both(name, candidate, baseline, finest[name])
            for name, (candidate, baseline) in values.items()
            if candidate and any((*candidate, *baseline))
        ]
        if rows:
            rows.sort(key=lambda row: _order(row.name))
            yield plots.latency(f"latency-{index}", f"waiting times in {result.name} [{result.clock}]", rows)

    def _resolution(self, run: RunResult, unit: str) -> float:
        evidence = self.runs.get(run.run)
        return resolution(evidence.spec, unit) * NS_PER_UNIT[unit] if evidence is not None else 0.0

    def _fairness(self, result: ScenarioResult, index: int) -> Iterator[Markup]:
        """What equal tasks did, in the first run of the candidate and in its baseline."""
        scenario = self.scenarios.get(result.name)
        first = next((run for run in result.runs if run.role is Role.CANDIDATE and run.repeats is None), None)
        evidence = self.runs.get(first.run) if first is not None else None
        if scenario is None or evidence is None:
            return
        baseline = pairs(self.case.runs).get(evidence.spec.number)
        for place, (load, start) in enumerate(scenario.loads().items()):
            work = _work(evidence, load) if start.tasks_are_equal else {}
            if len(work) < 2:
                continue
            other = _work(baseline, load) if baseline is not None else {}
            sides = [_normal(work), _normal(other)]
            rows = [plots.Share(f"task {task}", *(side.get(task) for side in sides)) for task in sorted(work)]
            title = f"work of the equal tasks of {load} in {result.name} [{result.clock}]"
            yield plots.shares(f"work-{index}-{place}", title, rows, equal=1 / len(work))

    def _cpu_time(self, result: ScenarioResult, index: int) -> Iterator[Markup]:
        """Who got the CPUs, and how much of their time nobody had although somebody waited."""
        sides: tuple[dict[str, list[float]], dict[str, list[float]]] = ({}, {})
        for run in result.runs:
            if run.repeats is None and run.role is not Role.CONTROL:
                for one in run.measurements:
                    sides[run.role is Role.BASELINE].setdefault(one.name, []).append(one.value)
        middle = [{name: median(values) for name, values in side.items()} for side in sides]
        loads = [_normal({name: value for name, value in side.items() if name.endswith(".cputime")}) for side in middle]
        rows = [plots.Share(name, *(side.get(name) for side in loads)) for name in loads[0]]
        if len(rows) > 1:
            yield plots.shares(f"cputime-{index}", f"CPU time by load in {result.name} [{result.clock}]", rows)
        wasted = [name for name in middle[0] if name.endswith(".wasted")]
        if wasted:
            rows = [plots.Share(name, *(side.get(name) for side in middle)) for name in wasted]
            title = f"CPUs idle while a task waited in {result.name} [{result.clock}]"
            yield plots.shares(f"wasted-{index}", title, rows)

    # --- the rest ----------------------------------------------------------------------------------------

    def _not_checked(self) -> Markup:
        rows = [
            tag("tr", tag("td", tag("code", one.code)), tag("td", _prose(one.reason)), tag("td", _prose(one.how)))
            for one in self.verdict.not_checked
        ]
        head = _heads("code", "what is not known", "how to find out")
        return tag("section", tag("h2", "What this says nothing about"), tag("table", head, *rows))

    def _inputs(self) -> Markup:
        verdict = self.verdict
        candidate, tool = verdict.candidate, verdict.tool
        rows: list[tuple[str, str, str]] = [("candidate", candidate.name, candidate.sha256)]
        for name, known in (
            ("source", candidate.source_sha256),
            ("object", candidate.object_sha256),
            ("program", candidate.program_sha256),
        ):
            if known:
                rows.append((f"candidate's {name}", "", known))
        rows += [(f"library {name}", "", known) for name, known in candidate.libraries.items()]
        if candidate.options:
            rows.append(("options", shlex.join(candidate.options), ""))
        rows.append(("policy", verdict.policy.name, verdict.policy.sha256))
        if verdict.kernel is not None:
            rows.append(("kernel", f"{verdict.kernel.release}, {verdict.kernel.version}", verdict.kernel.sha256))
        if verdict.image is not None:
            rows.append(("image", verdict.image.recipe, verdict.image.id))
        rows += [("QEMU", tool.qemu, tool.qemu_sha256), ("guest's runner", "", tool.runner_sha256)]
        if tool.schbench is not None:
            rows.append((f"schbench ({tool.schbench.origin})", tool.schbench.name, tool.schbench.sha256))
        if tool.workload is not None:
            rows.append(("workload", tool.workload.name, tool.workload.sha256))
        rows += [
            ("testbed", f"{tool.testbed}, judging rules {tool.judge}, clang {tool.clang}", ""),
            ("verdict", f"exit code {verdict.exit_code}", verdict.id),
        ]
        head = _heads("input", "which", "hash")
        return tag(
            "section",
            tag("h2", "What was judged, and by what"),
            tag("table", head, *(_row(*row) for row in rows)),
            tag("p", "The same inputs give the same verdict on any machine.", class_="quiet"),
        )


def _work(run: RunEvidence, load: str) -> dict[int, float]:
    """How much each task of a load did in all windows together, by its index."""
    found: dict[int, float] = {}
    for event in run.stream.of("measure"):
        task = event.integer("task", -1)
        if event.text("load") == load and event.text("name") == "work" and event.text("window") and task >= 0:
            found[task] = found.get(task, 0.0) + max(0.0, event.number("value"))
    return found


def _normal(values: Mapping[_K, float]) -> dict[_K, float]:
    """Values as parts of their sum."""
    total = sum(values.values())
    return {key: value / total for key, value in values.items()} if total > 0 else {}


def _row(name: str, which: str, known: str) -> Markup:
    return tag("tr", tag("td", name), tag("td", which), tag("td", tag("code", known)))


def _small(words: str) -> list[Markup]:
    return [tag("div", words, class_="quiet")] if words else []


def _heads(*names: str, numbers: tuple[str, ...] = ()) -> Markup:
    return tag("tr", *(tag("th", name, scope="col", class_="n" if name in numbers else None) for name in names))


def _prose(text: str) -> Markup:
    """Words of ours, or of a guest: what stands between two backticks is code, and that is all."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return joined(text)
    return joined(*(tag("code", part) if index % 2 else part for index, part in enumerate(parts)))


def _is_advice(finding: Finding) -> bool:
    return finding.code.startswith(PREFIX) and finding.status is Status.DONE


def _block(content: Sequence[str]) -> Markup:
    return tag("pre", *(joined(line, LINE_END) for line in content))


def _terms(*pairs_: tuple[str, str]) -> Markup:
    found = [part for name, words in pairs_ if words for part in (tag("dt", name), tag("dd", _prose(words)))]
    return tag("dl", *found) if found else joined()


def _explained(entry: catalogue.Entry) -> Markup:
    """What `testbed explain` says."""
    return tag(
        "details",
        tag("summary", f"testbed explain {entry.code}"),
        _terms(
            ("meaning", entry.meaning),
            ("why it matters", entry.why),
            ("usual cause", entry.cause),
            ("smallest fix", entry.fix),
        ),
        _block(entry.example.split("\n")),
    )


_STATS = (".p50", ".p99", ".p99.9", ".max")


def _split(name: str) -> tuple[str, str]:
    """A figure's name without what was made of its samples, and that; empty where it is nothing of these."""
    stat = next((one for one in _STATS if name.endswith(one)), "")
    return name.removesuffix(stat), stat


def _order(name: str) -> tuple[str, int]:
    stem, stat = _split(name)
    return stem, _STATS.index(stat)
