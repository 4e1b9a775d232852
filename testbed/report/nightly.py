# SPDX-License-Identifier: Apache-2.0
"""A night in every format: text for people, JSON, Markdown, one HTML page with plots, and an issue per regression."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from testbed.case import canonical_json
from testbed.corpus import Result
from testbed.errors import ExitCode
from testbed.nightly.document import Change, Document, Kind, NightFacts, label
from testbed.report import html, trends
from testbed.report.escape import code, defused, fence, harmless, lines
from testbed.report.markup import Markup, tag
from testbed.report.trends import Series

FORMATS = ("text", "json", "markdown", "html")
MAX_SHOWN = 100
"""Changes and names that are listed; all are in the JSON document."""

_NOT_PLAIN = re.compile(r"[^A-Za-z0-9 .,:=_-]")
"""A title is plain text at one place and Markdown at another."""
_WORDS = {
    ExitCode.PASS: "nothing is worse",
    ExitCode.REJECT: "something is worse than it was",
    ExitCode.INCONCLUSIVE: "nothing is worse, and something did not run",
    ExitCode.INTERRUPTED: "interrupted",
}


def render(document: Document, name: str) -> str:
    """The document in one of the formats."""
    match name:
        case "json":
            return canonical_json(document.model_dump(mode="json", by_alias=True)).decode("ascii")
        case "markdown":
            return "\n".join(_markdown(document)) + "\n"
        case "html":
            return html.shell(_title(document), list(_page(document)))
        case _:
            return defused("\n".join(_text(document)) + "\n")


def issue(change: Change, document: Document) -> str:
    """An issue about one regression, in Markdown.

    The first line is its title. The last one names the regression, so that a workflow that finds an open issue with the
    same words in it can add to that one.
    """
    facts = document.nights[-1]
    rows = [
        ("scheduler", code(change.name)),
        ("asked", code(f"{change.kind}, policy {change.policy}{_place(change)}")),
        ("before", f"{code(change.before)}, {_since(change)}"),
        ("now", f"{code(change.now)}, night {document.night}"),
        ("image", code(change.image[:16])),
        *([("kernel", code(change.kernel))] if change.kernel else []),
        ("testbed", f"{code(facts.testbed)}, rules {facts.judge}"),
        ("cause", code(change.cause) if change.cause else "not looked for"),
        ("evidence", code(change.case) if change.case else "none"),
    ]
    title = _NOT_PLAIN.sub("_", f"nightly: {change.name}: {change.what} is worse")
    body = [f"# {title}", "", "| | |", "|---|---|"]
    body += [f"| {name} | {words} |" for name, words in rows]
    answer = next((one for one in document.answers if one.row.case == change.case and change.case), None)
    if answer is not None and answer.row.reason:
        body += ["", "What was said:", "", *fence(lines(answer.row.reason))]
    return "\n".join([*body, "", f"<!-- testbed-nightly {change.key} -->", ""])


def _title(document: Document) -> str:
    return f"night {document.night}: {_WORDS[ExitCode(document.exit_code)]}"


def _place(change: Change) -> str:
    place = f" on {change.machine}" if change.machine else ""
    place += f" on kernel {change.kernel}" if change.kernel else ""
    return f"{place}, orders of events from {change.first_seed} on" if change.first_seed else place


def _since(change: Change) -> str:
    return f"night {change.since}" if change.since is not None else "this night, under the usual orders of events"


def _line(change: Change) -> str:
    told = f"{change.kind} {change.name}{_place(change)}: {change.what}: "
    told += f"{change.before} ({_since(change)}) -> {change.now}"
    return harmless(f"{told}; cause: {change.cause}" if change.cause else told)


def _totals(document: Document) -> Iterator[tuple[str, str]]:
    facts = document.nights[-1]
    yield "catch rate", f"{_percent(facts.recall)}, named rightly {_percent(facts.named_share)}, {facts.missed} missed"
    yield "false alarms", str(facts.false_alarms)
    for word in document.asked.kernels:
        yield "kernel", f"{harmless(word)}: {_on_kernel(word, document)}"
    yield "flaky", f"{facts.flaky} (must be 0)"
    yield "lost guests", ", ".join(f"{name} {number}" for name, number in facts.lost.items()) or "0"
    yield "answers", f"{facts.answers}, {facts.unclear} unclear, {facts.not_reached} not reached"
    yield "latency", _times(facts.latency_ratio)
    yield "time", f"{facts.elapsed_s / 60:.1f} min of judging, {_times(facts.time_ratio)}"


def _on_kernel(word: str, document: Document) -> str:
    """What the corpus adds up to on a kernel beside the image's own."""
    rows = [one.row for one in document.answers if one.kernel == word and one.kind is Kind.CORPUS]
    count = Counter(row.result for row in rows)
    caught = count[Result.NAMED] + count[Result.OTHERWISE]
    told = f"{caught} of {caught + count[Result.MISSED]} bad ones rejected, {count[Result.FALSE_ALARM]} false alarms"
    return f"{told}, {count[Result.UNCLEAR]} unclear, {count[Result.NOT_RUN]} not run"


def _changes(document: Document) -> Iterator[tuple[str, list[Change]]]:
    for heading, worse in (("Worse", True), ("Better or other", False)):
        found = [one for one in document.changes if one.worse == worse]
        if found:
            yield f"{heading} ({len(found)})", found


def _text(document: Document) -> Iterator[str]:
    yield _title(document)
    yield from (f"{f'{name}:':14}{words}" for name, words in _totals(document))
    if len(document.nights) == 1:
        yield "the first night: there is nothing to compare with"
    for heading, found in _changes(document):
        yield from ("", f"{heading}:", *(f"- {_line(one)}" for one in found[:MAX_SHOWN]), *_more(found))
    for heading, names in _lists(document):
        yield from ("", f"{heading}:", *(f"- {harmless(one)}" for one in names[:MAX_SHOWN]), *_more(names))


def _markdown(document: Document) -> Iterator[str]:
    yield f"## {_title(document)}"
    yield from ("", "| | |", "|---|---|", *(f"| {name} | {words} |" for name, words in _totals(document)))
    for heading, found in _changes(document):
        yield from ("", f"### {heading}", "", *(f"- {code(_line(one))}" for one in found[:MAX_SHOWN]), *_more(found))
    for heading, names in _lists(document):
        yield from ("", f"### {heading}", "", *(f"- {code(one)}" for one in names[:MAX_SHOWN]), *_more(names))


def _lists(document: Document) -> Iterator[tuple[str, Sequence[str]]]:
    if document.not_reached:
        yield f"Not reached, the night was too short ({len(document.not_reached)})", document.not_reached
    unclear = [f"{label(one)}: {one.row.reason}" for one in document.answers if one.row.result is Result.UNCLEAR]
    if unclear:
        yield f"Unclear ({len(unclear)})", unclear


def _more(found: Sequence[object]) -> list[str]:
    return [f"- and {len(found) - MAX_SHOWN} more, see the JSON document"] if len(found) > MAX_SHOWN else []


def _page(document: Document) -> Iterator[Markup]:
    kind = {ExitCode.PASS: "pass", ExitCode.REJECT: "fail"}.get(ExitCode(document.exit_code), "")
    yield tag(
        "header",
        tag("span", f"exit {document.exit_code}", class_=f"badge {kind}"),
        tag("h1", _title(document)),
        tag(
            "dl",
            *(tag(which, words) for pair in _totals(document) for which, words in zip(("dt", "dd"), pair, strict=True)),
        ),
    )
    for heading, found in _changes(document):
        yield tag("h2", heading)
        yield _table(found[:MAX_SHOWN])
        yield from (tag("p", one, class_="quiet") for one in _more(found))
    yield tag("h2", "From night to night")
    for picture in _plots(document.nights):
        yield tag("figure", picture)
    for heading, names in _lists(document):
        yield tag("h2", heading)
        yield tag("ul", *(tag("li", one) for one in names[:MAX_SHOWN]), *(tag("li", one) for one in _more(names)))
    yield tag("h2", "Asked")
    asked = document.asked
    told = [f"policy {asked.policy}", f"{asked.seeds} new orders of events", f"testbed {asked.testbed}"]
    told += [f"rules {asked.judge}", *(f"machine {one}" for one in asked.machines)]
    told += [f"image {one[:16]}" for one in asked.images]
    told += [f"kernel {one}" for one in asked.kernels]
    yield tag("p", ", ".join(told))


def _table(found: Sequence[Change]) -> Markup:
    heads = ("scheduler", "before", "now", "cause", "evidence")
    return tag(
        "table",
        tag("tr", *(tag("th", name, scope="col") for name in heads)),
        *(
            tag(
                "tr",
                tag("td", f"{one.kind}: {one.name}{_place(one)}", tag("div", one.what, class_="quiet")),
                tag("td", f"{one.before} ({_since(one)})"),
                tag("td", one.now),
                tag("td", one.cause),
                tag("td", one.case),
            )
            for one in found
        ),
    )


def _plots(nights: Sequence[NightFacts]) -> Iterator[Markup]:
    numbers = [one.night for one in nights]
    rates = [Series("rejected", [one.recall for one in nights]), Series("named", [one.named_share for one in nights])]
    yield trends.lines("rates", "Bad ones: rejected, and of these named rightly", numbers, rates, lambda x: f"{x:.0%}")
    trouble = [
        Series("false alarms", [one.false_alarms for one in nights]),
        Series("flaky", [one.flaky for one in nights]),
        Series("lost guests", [sum(one.lost.values()) for one in nights]),
    ]
    yield trends.lines("trouble", "What should be 0", numbers, trouble, lambda x: f"{x:g}")
    latency = [Series("all of them", _chained([one.latency_ratio for one in nights]))]
    yield trends.lines("latency", "Waiting times, first night = 1", numbers, latency, lambda x: f"{x:.3g}")
    time = [Series("the same ones", _chained([one.time_ratio for one in nights]))]
    yield trends.lines("time", "Time of the host, first night = 1", numbers, time, lambda x: f"{x:.3g}")


def _chained(ratios: Sequence[float | None]) -> list[float | None]:
    """From ratios to the night before to ratios to the first one; who has none had nothing in common with another."""
    found: list[float | None] = []
    level = 1.0
    for place, ratio in enumerate(ratios):
        level *= ratio or 1.0
        found.append(level if ratio is not None or place == 0 else None)
    return found


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _times(ratio: float | None) -> str:
    return "nothing to compare with" if ratio is None else f"{ratio:.3g} times what it was"
