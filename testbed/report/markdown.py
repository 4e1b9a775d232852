# SPDX-License-Identifier: Apache-2.0
"""Markdown for a job summary: a table of verdicts, every finding folded with cause and hint, how to ask again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from testbed.report.escape import code, fence, harmless, lines
from testbed.report.subject import Subject, roll_up
from testbed.report.text import WORDS
from testbed.status import Status
from testbed.verdict import Finding

#: GitHub drops a summary above 1 MiB as a whole.
MAX_BYTES = 900_000


def render(subjects: Sequence[Subject]) -> str:
    """The summary; what does not fit into `MAX_BYTES` is counted and left out."""
    head = [*_head(subjects), ""]
    parts = [*(("\n".join(_table(subjects)) + "\n\n",)), *("\n".join(one) + "\n" for one in _details(subjects))]
    text = "\n".join(head) + "\n"
    left_out = 0
    for part in parts:
        if left_out or len(text.encode("utf-8")) + len(part.encode("utf-8")) > MAX_BYTES:
            left_out += 1
        else:
            text += part
    return text + (f"\n{left_out} more parts are left out here; the JSON document has them.\n" if left_out else "")


def _head(subjects: Sequence[Subject]) -> Iterator[str]:
    outcomes = [subject.outcome for subject in subjects]
    yield f"## testbed: {WORDS[roll_up(outcomes)]}"
    if len(subjects) > 1:
        yield ""
        yield ", ".join(f"{outcomes.count(one)} {word}" for one, word in WORDS.items() if one in outcomes)


def _table(subjects: Sequence[Subject]) -> Iterator[str]:
    changes = any(subject.change for subject in subjects)
    yield f"| verdict | candidate | what decided | benefit |{' compared with the base |' if changes else ''}"
    yield f"|---|---|---|---|{'---|' if changes else ''}"
    for subject in subjects:
        benefit = subject.verdict.benefit.outcome if subject.verdict is not None else ""
        row = f"| **{WORDS[subject.outcome]}** | {code(subject.name)} | {code(subject.title)} | {benefit} |"
        yield row + (f" {code(subject.change) if subject.change else ''} |" if changes else "")


def _details(subjects: Sequence[Subject]) -> Iterator[list[str]]:
    """For each candidate in which something was found a heading, its findings, and the command."""
    for subject in subjects:
        told = [finding for finding in subject.findings if finding.status is not Status.SKIP]
        if not told and not subject.trouble:
            continue
        yield [f"### {code(subject.name)}", ""]
        if subject.trouble:
            yield [*fence(lines(subject.trouble)), ""]
        for finding in told:
            yield list(_finding(finding))
        yield ["To ask again:", "", *fence(_commands(subject), "sh")]


def _finding(finding: Finding) -> Iterator[str]:
    marks = [str(finding.clock)] if finding.clock else []
    if finding.status is Status.FAIL and finding.scenario:
        marks.append("confirmed" if finding.confirmed else "seen once")
    shown = f" ({', '.join(marks)})" if marks else ""
    yield f"<details><summary>{finding.status} {code(finding.code)} {code(finding.title)}{shown}</summary>"
    yield ""
    yield from fence(body(finding))
    yield ""
    yield "</details>"
    yield ""


def body(finding: Finding) -> list[str]:
    """A finding's message, evidence, cause and hint, as harmless lines."""
    refs = [
        f"--> {ref.file}{f':{ref.line}' if ref.line else ''}{f'  {ref.text}' if ref.text else ''}"
        for ref in finding.evidence
    ]
    told = [*(f"{label}: {text}" for label, text in (("cause", finding.cause), ("hint", finding.hint)) if text)]
    return [*lines(finding.message), *(line for part in (*refs, *told) for line in lines(part, limit=8))]


def _commands(subject: Subject) -> Iterator[str]:
    yield harmless(subject.command)
    if subject.verdict is not None and subject.verdict.findings:
        yield harmless(f"testbed explain {subject.verdict.findings[0].code}")
