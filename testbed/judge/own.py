# SPDX-License-Identifier: Apache-2.0
"""The user's own workload: it works beside EEVDF, it works beside the candidate, and its figures are no worse.

That it works is asked of each run; that no figure is worse by more than its file allows, of all pairs of runs together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from testbed.case import Event
from testbed.judge.view import View
from testbed.scenario.model import FigureSpec
from testbed.verdict import EvidenceRef, Figure, Finding

CUT_SHORT = "cut short"
"""How the runner says that a wait ended because the candidate has left, which other checks tell."""


def findings(view: View, baseline: View | None) -> Iterator[Finding]:
    """A workload that failed, never ended, or ended without saying what it was run for."""
    if view.scenario.needs.workload is None:
        return
    failed = failed_wait(view)
    if failed is not None:
        name, done = failed
        if CUT_SHORT in done.text("detail"):
            return
        works = baseline is not None and failed_wait(baseline) is None
        refs = [view.ref(done), *_said(view, name)]
        yield _found(view, f"`{name}`: {done.text('detail') or 'no reason given'}", refs, works=works)
        return
    if view.ejection is not None or view.run.stream.first("limit") is not None:
        return
    for spec in view.scenario.figures:
        if spec.read is None or spec.name in view.metrics or not _ran(view, spec.program):
            continue
        words = f"`{spec.name}`: {_wanted(spec)}"
        if lost := view.lost(f"exec:{spec.program}"):
            words += f"; {lost} bytes of its output were dropped, a program may print 512 KiB"
        works = baseline is not None and spec.name in baseline.metrics and not lost
        yield _found(view, words, [view.outcome_ref(), *_said(view, spec.program)], works=works)


def failed_wait(view: View) -> tuple[str, Event] | None:
    """The first program whose wait failed, and what is said of that."""
    for step, done in view.steps:
        index = step.integer("i", -1)
        if step.text("verb") == "wait" and done is not None and not done.flag("ok"):
            words = view.job.steps[index] if 0 <= index < len(view.job.steps) else ()
            return (words[1] if len(words) > 1 else "the workload"), done
    return None


def _ran(view: View, program: str) -> bool:
    """Whether the program was waited for, and that ended well."""
    return any(
        done is not None and done.flag("ok") and view.job.steps[step.integer("i")][:2] == ("wait", program)
        for step, done in view.steps
        if 0 <= step.integer("i", -1) < len(view.job.steps)
    )


def _wanted(spec: FigureSpec) -> str:
    """What was looked for in the output and is not there."""
    assert spec.read is not None
    if spec.read.regex is not None:
        return f"no line of the output matches {spec.read.regex} with a number"
    if spec.read.json_path is not None:
        return f"no JSON object in the output has a number at {spec.read.json_path}"
    return "its time is not known"


def _said(view: View, program: str) -> list[EvidenceRef]:
    """Where the program speaks, with its last words."""
    line = view.log_line(f"exec:{program}")
    last = next((one for one in reversed(view.log(f"exec:{program}")[-2000:].splitlines()) if one.strip()), "")
    return [view.stream_ref(line, last)] if line is not None else []


def _found(view: View, words: str, refs: Iterable[EvidenceRef], *, works: bool) -> Finding:
    """The candidate's fault where the same works beside EEVDF, else nobody's."""
    if view.has_candidate and works:
        return view.found("workload-failed", f"{words}; beside EEVDF it does", refs)
    return view.found("workload-broken", words + ("" if view.has_candidate else ", and no candidate is attached"), refs)


def worse(view: View, figures: Iterable[Figure]) -> Iterator[Finding]:
    """Figures that are worse than EEVDF's by more than the scenario allows.

    Args:
        view: one of the candidate's runs, in whose name it is said.
        figures: over all pairs of runs with EEVDF. Where one is called worse, noise does not explain it.
    """
    allowed = {spec.name: spec.allow_worse for spec in view.scenario.figures if spec.allow_worse is not None}
    for figure in figures:
        limit = allowed.get(figure.name)
        if limit is None or figure.judgement != "worse" or figure.candidate is None or figure.baseline is None:
            continue
        apart = figure.candidate - figure.baseline
        # A rate that falls to nothing is worse by all of it; a time that was nothing is worse by any amount.
        loss = abs(apart) / figure.baseline if figure.baseline else float("inf")
        if loss > limit:
            how = f"{loss:.1%}" if figure.baseline else "any share"
            yield view.found(
                "workload-worse",
                f"`{figure.name}` is {figure.candidate:.6g} {figure.unit}, the baseline's {figure.baseline:.6g} "
                f"{figure.unit} (medians): worse by {how}, allowed are {limit:.1%}; noise explains {figure.floor:.1%}",
                [view.outcome_ref(), *_said(view, figure.name.partition(".")[0])],
            )
