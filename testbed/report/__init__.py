# SPDX-License-Identifier: Apache-2.0
"""Writers over one Verdict model, behind `--format FORMAT[=FILE]`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from testbed.case import Case, canonical_json
from testbed.errors import UsageError
from testbed.report import github, html, junit, markdown, sarif, text
from testbed.report.document import PrintedVerdict, dump, error_document, printed, schema, schema_text
from testbed.report.escape import defused, harmless
from testbed.report.events import (
    ADAPTER,
    Event,
    Heartbeat,
    Listener,
    StageEnded,
    StageLine,
    StageStarted,
    VerdictReached,
)
from testbed.report.subject import Subject
from testbed.report.text import TextProgress, want_colour
from testbed.verdict import Verdict
from testbed.yamlfile import did_you_mean

WRITERS: dict[str, Callable[[Sequence[Subject]], str]] = {
    "markdown": markdown.render,
    "github": github.render,
    "junit": junit.render,
    "sarif": sarif.render,
}
"""Formats for other programs; they can tell of several candidates at once."""

FORMATS = ("text", "json", "jsonl", "html", *WRITERS)


@dataclass(frozen=True)
class Format:
    """One `--format`: what, and into which file; None is stdout."""

    name: str
    path: Path | None = None


def parse_format(word: str) -> Format:
    """Read `text`, `json=verdict.json` and so on."""
    name, equals, path = word.partition("=")
    if name not in FORMATS:
        raise UsageError(f"there is no format `{name}`", hint=did_you_mean(name, FORMATS))
    if equals and not path:
        raise UsageError(f"`--format {word}` names no file", hint=f"--format {name}=FILE")
    return Format(name, Path(path) if path else None)


def parse_formats(words: list[str]) -> tuple[Format, ...]:
    """All `--format`s; at most one may go to stdout, and `text` goes there if none is given."""
    formats = tuple(parse_format(word) for word in words) or (Format("text"),)
    if sum(one.path is None for one in formats) > 1:
        raise UsageError("only one format can go to stdout", hint="--format json=FILE")
    return formats


def render(
    verdict: Verdict,
    name: str,
    *,
    case_dir: str | None = None,
    elapsed_s: float | None = None,
    colour: bool = False,
    width: int = 100,
    path: str = "",
    policy: str = "",
    kernel: str = "",
) -> str:
    """A verdict in one of the formats.

    Args:
        case_dir: where its case lies; `html` reads the evidence there.
        path: the candidate as the user named it, for formats that point into a repository.
        policy: the policy as the user named it.
        kernel: the kernel as the user named it; empty: the image's own.
    """
    document = printed(verdict, case_dir=case_dir, elapsed_s=elapsed_s)
    match name:
        case "text":
            return text.render(document, colour=colour, width=width)
        case "json":
            return canonical_json(dump(document)).decode("ascii")
        case "jsonl":
            return event_line(VerdictReached(verdict=document))
        case "html" if case_dir is not None:
            return html.render(document, Case.open(Path(case_dir)))
        case _ if name in WRITERS:
            named = path or ("" if verdict.candidate.kind == "program" else verdict.candidate.name)
            return WRITERS[name]([Subject(named, document, policy=policy, kernel=kernel)])
        case _:
            raise UsageError(f"there is no format `{name}`", hint=did_you_mean(name, FORMATS))


def event_line(event: StageStarted | StageLine | StageEnded | Heartbeat | VerdictReached) -> str:
    """An event as one line of JSON."""
    if isinstance(event, VerdictReached):
        values: object = {"event": event.event, "verdict": dump(event.verdict)}
    else:
        values = event.model_dump(mode="json")
    return json.dumps(values, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n"


class JsonLines:
    """A listener that writes the event stream, a line each, as it happens."""

    def __init__(self, stream: TextIO) -> None:
        """Write to `stream`."""
        self._stream = stream

    def __call__(self, event: StageStarted | StageLine | StageEnded | Heartbeat | VerdictReached) -> None:
        """Write one event."""
        self._stream.write(event_line(event))
        self._stream.flush()


__all__ = [
    "ADAPTER",
    "FORMATS",
    "WRITERS",
    "Event",
    "Format",
    "Heartbeat",
    "JsonLines",
    "Listener",
    "PrintedVerdict",
    "StageEnded",
    "StageLine",
    "StageStarted",
    "Subject",
    "TextProgress",
    "VerdictReached",
    "defused",
    "error_document",
    "event_line",
    "harmless",
    "parse_format",
    "parse_formats",
    "printed",
    "render",
    "schema",
    "schema_text",
    "want_colour",
]
