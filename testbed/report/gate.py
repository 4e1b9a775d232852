# SPDX-License-Identifier: Apache-2.0
"""A gate's document in every format: text for people, JSON, and the writers that tell of several candidates."""

from __future__ import annotations

from testbed.case import canonical_json
from testbed.gate.document import Document, Entry, State
from testbed.report import WRITERS, text
from testbed.report.document import printed
from testbed.report.escape import code, defused, harmless
from testbed.status import Status
from testbed.verdict import Outcome

FORMATS = ("text", "json", *WRITERS)
_STATUS = {Outcome.PASS: Status.PASS, Outcome.REJECT: Status.FAIL, Outcome.INCONCLUSIVE: Status.ERROR}


def render(document: Document, name: str, *, colour: bool = False, width: int = 100) -> str:
    """The document in one of the formats."""
    match name:
        case "text":
            return _text(document, colour=colour, width=width)
        case "json":
            return canonical_json(document.model_dump(mode="json", by_alias=True)).decode("ascii")
        case "markdown":
            return _markdown(document)
        case _:
            return WRITERS[name](document.subjects)


def _text(document: Document, *, colour: bool, width: int) -> str:
    parts = []
    for entry in document.candidates:
        if entry.verdict is not None and entry.outcome is not Outcome.PASS:
            shown = printed(entry.verdict, case_dir=entry.case or None, elapsed_s=entry.elapsed_s)
            parts.append(defused(f"=== {harmless(entry.name)}\n"))
            parts.append(text.render(shown, colour=colour, width=width) + "\n")
    lines = [_line(entry) for entry in document.candidates if entry.state is not State.ELSEWHERE]
    lines += [f"gone  {harmless(path)}" for path in document.deleted]
    lines += [f"note: {harmless(note)}" for note in document.notes]
    last = harmless(document.title)  # of an interrupted gate it says so itself
    lines.append(last if document.interrupted else f"{text.WORDS[document.verdict]}: {last}")
    parts.append(defused("\n".join(lines) + "\n"))
    return "".join(parts)


def _line(entry: Entry) -> str:
    if entry.outcome is None:
        return f"----- {harmless(entry.name)}: unchanged{f', was {harmless(entry.was)}' if entry.was else ''}"
    said = entry.verdict.title if entry.verdict is not None else entry.trouble or "not judged"
    change = f" ({entry.change})" if entry.change is not None else ""
    return f"{_STATUS[entry.outcome]:5} {harmless(entry.name)}: {harmless(said)}{change}"


def _markdown(document: Document) -> str:
    """The summary of the candidates; its heading is the whole gate's, which can be another one (a missing shard)."""
    head = f"## testbed: {text.WORDS[document.verdict]}\n\n{code(document.title)}\n"
    notes = "".join(f"\n- {code(note)}" for note in document.notes) + ("\n" if document.notes else "")
    if not document.subjects:
        return head + notes
    return head + notes + "\n" + WRITERS["markdown"](document.subjects).partition("\n")[2].lstrip("\n")
