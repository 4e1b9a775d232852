# SPDX-License-Identifier: Apache-2.0
"""What the writers for other programs (Markdown, annotations, JUnit, SARIF) write about: one or several candidates."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from testbed.errors import ExitCode
from testbed.report.document import PrintedVerdict
from testbed.verdict import Finding, Outcome

_INSIDE = "candidate/"
_NO_SOURCE = ("candidate/artifact.json", "candidate/build.log")


@dataclass(frozen=True)
class Subject:
    """One candidate, and what was said of it.

    Attributes:
        path: the candidate as its repository names it; empty for a program, whose source nobody knows here.
        verdict: the answer; None if there is none.
        trouble: why there is none.
        change: compared with the base branch, in a word; empty if nothing was compared.
        policy: policy as it was asked for, a name or a file.
        kernel: kernel as it was asked for; empty: the image's own.
    """

    path: str
    verdict: PrintedVerdict | None
    trouble: str = ""
    change: str = ""
    policy: str = ""
    kernel: str = ""

    @property
    def name(self) -> str:
        """How people call it."""
        return f"{self._candidate} on {self.kernel}" if self.kernel else self._candidate

    @property
    def _candidate(self) -> str:
        return self.path or (self.verdict.candidate.name if self.verdict is not None else "")

    @property
    def outcome(self) -> Outcome:
        """The verdict's word; what has no verdict is inconclusive."""
        return self.verdict.verdict if self.verdict is not None else Outcome.INCONCLUSIVE

    @property
    def title(self) -> str:
        """What decided."""
        return self.verdict.title if self.verdict is not None else self.trouble

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found, worst first."""
        return self.verdict.findings if self.verdict is not None else ()

    @property
    def command(self) -> str:
        """A command for a shell that asks the same question again."""
        asked = ["--policy", self._policy, *(["--kernel", self.kernel] if self.kernel else [])]
        if self.verdict is None:
            words = ["testbed", "run", self.path]
        elif self.verdict.candidate.kind == "program":
            candidate = self.verdict.candidate
            return shlex.join(
                ["testbed", "run", *asked, "--", candidate.name, *candidate.options],
            )
        else:
            words = ["testbed", "run", self._candidate]
        return shlex.join([*words, *asked])

    @property
    def _policy(self) -> str:
        return self.policy or (self.verdict.policy.name if self.verdict is not None else "default")


def place(subject: Subject, finding: Finding | None) -> tuple[str, int]:
    """File and line (from 1) in the repository that a finding points to: a source line, else the candidate's first.

    The file is empty where the candidate has no source.
    """
    if not subject.path:
        return "", 1
    for ref in finding.evidence if finding is not None else ():
        inside = PurePosixPath(ref.file.removeprefix(_INSIDE))
        if (
            ref.line is None
            or not ref.file.startswith(_INSIDE)
            or ref.file in _NO_SOURCE
            or inside.is_absolute()
            or ".." in inside.parts
        ):
            continue
        return posixpath.normpath(posixpath.join(posixpath.dirname(subject.path), str(inside))), ref.line
    return subject.path, 1


def roll_up(outcomes: Sequence[Outcome]) -> Outcome:
    """Any reject rejects, else any inconclusive is inconclusive; nothing at all is inconclusive, since nothing ran."""
    if Outcome.REJECT in outcomes:
        return Outcome.REJECT
    return Outcome.INCONCLUSIVE if Outcome.INCONCLUSIVE in outcomes or not outcomes else Outcome.PASS


def exit_code(subjects: Sequence[Subject]) -> ExitCode:
    """The exit code that says the same as all subjects together."""
    return roll_up([subject.outcome for subject in subjects]).exit_code
