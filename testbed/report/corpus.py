# SPDX-License-Identifier: Apache-2.0
"""The corpus in every format: text for people, JSON, Markdown, and what README and the reference show of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from testbed.case import canonical_json
from testbed.corpus.document import ClassCounts, Document, Result, Row, Table, tables
from testbed.report.escape import defused, harmless

FORMATS = ("text", "json", "markdown")
_TROUBLE = (
    (Result.MISSED, "missed: bad, and they passed"),
    (Result.OTHERWISE, "named otherwise: rejected, and not for what they are"),
    (Result.FALSE_ALARM, "false alarms: good, and they were rejected"),
    (Result.UNCLEAR, "unclear: no verdict, or an inconclusive one"),
    (Result.NOT_RUN, "not run"),
)
_COLUMNS = ("bad", "named", "otherwise", "missed", "unclear", "not run")


def render(document: Document, name: str) -> str:
    """The document in one of the formats."""
    match name:
        case "json":
            return canonical_json(document.model_dump(mode="json", by_alias=True)).decode("ascii")
        case "markdown":
            return "\n".join([f"## {_title(document)}", "", *_body(document, _grid)]) + "\n"
        case _:
            return defused("\n".join([_title(document), "", *_body(document, _aligned)]) + "\n")


def page(documents: Sequence[Document]) -> str:
    """The page of the reference: the published documents, for each policy one, or one for bad and one for good."""
    head = """\
<!-- Generated from bpf/catch-rate/ by `python -m testbed.judge.docs --write`. -->

# Catch rate

Every scheduler of [the corpus](../../bpf/README.md), judged by `testbed corpus` and compared with what is known of it.

`tuned`: the checks' authors had seen it. `blind`: written from descriptions of failures by somebody who had seen
neither checks nor thresholds, frozen by hash, and nothing was tuned on it. `kernel`: the kernel's own
selftests of sched_ext, good and bad by what those tests expect. *Named* is a bad one that was rejected for what it is,
*otherwise* one that was rejected for something else, *missed* one that passed.
"""
    return "\n".join([head, *(line for one in documents for line in _section(one))])


def _section(document: Document) -> Iterator[str]:
    asked = document.asked
    by = ["clock `sim`"]
    by += [f"{asked.seeds} orders of events"] if asked.seeds else []
    by += [f"machines {', '.join(f'`{name}`' for name in asked.machines)}"] if asked.machines else []
    kinds = frozenset(row.good for row in document.rows)
    part = {frozenset([True]): ", good ones", frozenset([False]): ", bad ones"}.get(kinds, "")
    yield f"## By policy `{asked.policy}`{part}"
    yield ""
    yield f"{', '.join(by)}; testbed {document.testbed}, rules {document.judge}, image `{document.image.id[:16]}`;"
    yield f"{_minutes(document.elapsed_s)} of judging in all."
    yield ""
    yield from _body(document, _grid)
    yield ""


def summary(documents: Sequence[Document]) -> str:
    """The short table of README."""
    head = [
        "policy",
        "set",
        "bad ones",
        "rejected",
        "named rightly",
        "missed",
        "good ones",
        "passed",
        "false alarms",
        "not judged",
    ]
    by_policy: dict[str, list[Row]] = {}
    for document in documents:
        by_policy.setdefault(document.asked.policy, []).extend(document.rows)
    rows = [
        [
            f"`{policy}`",
            f"`{one.origin}`",
            str(one.named + one.otherwise + one.missed),
            f"{one.named + one.otherwise} ({_percent(one.recall)})",
            str(one.named),
            str(one.missed),
            str(one.passed + one.false_alarms),
            str(one.passed),
            str(one.false_alarms),
            str(one.unclear + one.not_run),
        ]
        for policy, judged in by_policy.items()
        for one in tables(judged)
    ]
    return "\n".join([*_grid([head, *rows]), ""])


def _title(document: Document) -> str:
    said = f"corpus by policy {document.asked.policy}"
    return f"{said}, interrupted" if document.interrupted else said


def _body(document: Document, grid: Callable[[Sequence[Sequence[str]]], list[str]]) -> Iterator[str]:
    yield from grid(_totals(document.tables))
    if any(table.classes for table in document.tables):
        yield ""
        yield from grid(_by_class(document.tables))
    for result, heading in _TROUBLE:
        rows = [row for row in document.rows if row.result is result]
        if not rows:
            continue
        yield ""
        yield f"{heading[0].upper()}{heading[1:]} ({len(rows)}):"
        yield ""
        yield from (f"- {_line(row)}" for row in rows)


def _totals(tables: Sequence[Table]) -> list[list[str]]:
    head = ["set", *_COLUMNS[:4], "good", "passed", "false alarms", "unclear", "not run"]
    head += ["recall", "precision", "named rightly"]
    return [
        head,
        *(
            [
                str(one.origin),
                *map(str, (one.bad, one.named, one.otherwise, one.missed, one.good, one.passed, one.false_alarms)),
                *map(str, (one.unclear, one.not_run)),
                *map(_percent, (one.recall, one.precision, one.named_share)),
            ]
            for one in tables
        ),
    ]


def _by_class(tables: Sequence[Table]) -> list[list[str]]:
    """A line for each class, a group of columns for each part of the corpus."""
    classes = list(dict.fromkeys(one.failure_class for table in tables for one in table.classes))
    head = ["class", *(f"{table.origin}: {word}" for table in tables for word in _COLUMNS)]
    lines = [head]
    for name in classes:
        cells = [name]
        for table in tables:
            cells += _cells(next((one for one in table.classes if one.failure_class == name), None))
        lines.append(cells)
    return lines


def _cells(counts: ClassCounts | None) -> list[str]:
    if counts is None:
        return ["–"] * len(_COLUMNS)
    numbers = (counts.bad, counts.named, counts.otherwise, counts.missed, counts.unclear, counts.not_run)
    return [str(number) if number else "·" for number in numbers]


def _line(row: Row) -> str:
    """One scheduler that was not as it should be."""
    what = [str(row.origin), row.failure_class or "good", f"policy {row.policy}"]
    what += [f"machine {row.machine}"] if row.machine else []
    what += [f"needs {row.needs}"] if row.needs else []
    said = f"`{harmless(row.name)}` ({', '.join(map(harmless, what))})"
    if row.expected and row.result in (Result.OTHERWISE, Result.MISSED):
        said += f": expected {' or '.join(row.expected)}"
    if row.codes:
        said += f"{',' if row.expected else ':'} got {', '.join(row.codes)}"
    return said + (f": {harmless(row.reason)}" if row.reason else "")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"


def _grid(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table for a terminal."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
