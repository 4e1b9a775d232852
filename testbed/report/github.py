# SPDX-License-Identifier: Apache-2.0
"""Workflow commands for GitHub's runner: what was found, at file and line of the pull request."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from testbed.report.escape import bounded, harmless, lines
from testbed.report.markdown import body
from testbed.report.subject import Subject, place
from testbed.report.text import WORDS
from testbed.status import Status
from testbed.verdict import Outcome

#: So many of each kind are shown per step; the rest is dropped silently by GitHub, so it is counted here.
MAX_PER_KIND = 10
#: Bytes of an annotation that are kept.
MAX_BYTES = 4096
MAX_TITLE = 250

Kind = Literal["error", "warning", "notice"]
KINDS: dict[Status, Kind] = {Status.FAIL: "error", Status.ERROR: "warning", Status.DONE: "notice"}
ORDER: tuple[Kind, ...] = ("error", "warning", "notice")


@dataclass(frozen=True)
class Annotation:
    """One remark; the file is empty if it has no place."""

    kind: Kind
    title: str
    message: str
    file: str = ""
    line: int = 1

    def command(self) -> str:
        """As the runner reads it."""
        properties = {"title": bounded(harmless(self.title), MAX_TITLE)}
        if self.file:
            properties = {"file": harmless(self.file), "line": str(self.line), **properties}
        shown = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
        return f"::{self.kind} {shown}::{_data(bounded(self.message, MAX_BYTES))}\n"


def render(subjects: Sequence[Subject]) -> str:
    """All remarks, worst first, with GitHub's limits kept: what is over them is told in the last one of its kind."""
    by_kind: dict[Kind, list[Annotation]] = defaultdict(list)
    for subject in subjects:
        for annotation in _annotations(subject):
            by_kind[annotation.kind].append(annotation)
    return "".join(annotation.command() for kind in ORDER for annotation in _limited(by_kind[kind]))


def _limited(found: list[Annotation]) -> list[Annotation]:
    if len(found) <= MAX_PER_KIND:
        return found
    kept = found[: MAX_PER_KIND - 1]
    rest = len(found) - len(kept)
    return [*kept, Annotation(found[0].kind, f"{rest} more", f"{rest} more are told in the summary of this job")]


def _annotations(subject: Subject) -> Iterator[Annotation]:
    if subject.outcome is not Outcome.PASS and not any(one.status is Status.FAIL for one in subject.findings):
        # Nothing else says in red why the step fails.
        file, line = place(subject, None)
        title = f"{WORDS[subject.outcome]}: {subject.name}"
        yield Annotation("error", title, "\n".join(lines(subject.title)), file, line)
    for finding in subject.findings:
        kind = KINDS.get(finding.status)
        if kind is not None:
            file, line = place(subject, finding)
            yield Annotation(kind, f"{finding.code}: {finding.title}", "\n".join(body(finding)), file, line)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
