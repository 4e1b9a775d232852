# SPDX-License-Identifier: Apache-2.0
"""What figures are compared with in the place of EEVDF: another candidate, or the one of an earlier case.

EEVDF is run all the same: what is safe, and what excuses a candidate, stays a matter of it alone.
"""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from testbed import build, cases
from testbed.build import ARTIFACT, Artifact
from testbed.candidate import Candidate, read_candidate
from testbed.case import CASE_FILE, Case, DamagedCaseError, printable
from testbed.errors import UsageError
from testbed.verdict import BaselineFacts

EEVDF = "eevdf"
FOLDER = "baseline"
"""Of the case, with the content of `candidate/`."""
HINT = "a baseline is `eevdf`, a `.bpf.c` or `.bpf.o`, a program with its options in one word, or a case"


@dataclass(frozen=True)
class Named:
    """What `--baseline` means, one of the three.

    Attributes:
        file: a source or an object.
        program: a program with its options.
        case: directory of a case.
    """

    file: str = ""
    program: tuple[str, ...] = ()
    case: Path | None = None


def find(word: str) -> Named | None:
    """What a word means, None for EEVDF. A case comes before a file, and a file before a program.

    Raises:
        UsageError: it can't be meant.
    """
    if word.lower() == EEVDF:
        return None
    for place in (Path(word), cases.directory() / word):
        if word and (place / CASE_FILE).is_file():
            return Named(case=place)
    if word and Path(word).is_dir():
        raise UsageError(f"`--baseline {word}` is a directory and no case", hint="see `testbed cases list`")
    if word.endswith((".c", ".o")):
        return Named(file=word)
    try:
        words = tuple(shlex.split(word))
    except ValueError as error:
        raise UsageError(f"`--baseline {word}` is no command line: {str(error).lower()}", hint=HINT) from None
    if not words:
        raise UsageError("`--baseline` names nothing", hint=HINT)
    return Named(program=words)


def check(word: str) -> None:
    """Find what can be known to be wrong without an image.

    Raises:
        UsageError: there is no such thing, or its case has nothing that was built.
        DamagedCaseError: the case's candidate is not what it was.
    """
    named = find(word)
    if named is not None and named.file:
        _file(word, named.file)
    if named is not None and named.case is not None:
        _built(named.case)


def candidate_of(word: str, named: Named, *, examples: Path, examples_root: Path, schedulers: Path | None) -> Candidate:
    """A file or program as a candidate.

    Raises:
        UsageError: it is none.
    """
    if named.file:
        return _file(word, named.file)
    try:
        return read_candidate(named.program, examples=examples, examples_root=examples_root, schedulers=schedulers)
    except UsageError as error:
        raise _told(word, error) from error


def bring(case: Path, directory: Path) -> Artifact:
    """Copy what a case judged into an empty directory, every byte checked.

    Raises:
        UsageError: nothing was built.
        DamagedCaseError: it is not what it was.
    """
    artifact = _built(case)
    directory.mkdir(parents=True, exist_ok=True)
    for name in sorted(artifact.facts.files):
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(artifact.directory / name, target)
    shutil.copy(artifact.directory / ARTIFACT, directory / ARTIFACT)
    return build.load(directory)


def other_conditions(word: str, image: str, policy: str) -> str:
    """What a case was judged under that is not so now, in words for people; empty if nothing, or if it is no case.

    Raises:
        DamagedCaseError: the case can't be read.
    """
    named = find(word)
    if named is None or named.case is None:
        return ""
    earlier = Case.open(named.case)
    differ = []
    if earlier.facts.image is not None and earlier.facts.image.id != image:
        differ.append(f"image {printable(earlier.facts.image.id, 16)}")
    if (name := earlier.policy().name) != policy:
        differ.append(f"policy {printable(name, 100)}")
    if not differ:
        return ""
    which = f"of the case `{printable(named.case.resolve().name, 100)}`, judged under {' and '.join(differ)}"
    return f"{which}; run here under this verdict's"


def usable(word: str, artifact: Artifact) -> Artifact:
    """The artifact, if it may be attached.

    Raises:
        UsageError: it was refused by the build stage; says why.
    """
    if not artifact.ok:
        worst = min(artifact.findings, key=lambda finding: finding.status.rank)
        first = (worst.message.splitlines() or [""])[0]
        raise UsageError(
            f"`--baseline {word}` can't be attached: {worst.title}: {printable(first, 200)}",
            hint="mend it, or compare with another one; `testbed build` shows all that is wrong",
        )
    return artifact


def facts(artifact: Artifact, note: str = "") -> BaselineFacts:
    """The baseline as a verdict names it."""
    candidate = artifact.candidate
    return BaselineFacts(
        kind=candidate.kind,
        name=printable(candidate.name, 200),
        sha256=candidate.sha256,
        options=candidate.options,
        note=note,
    )


def words_for_dry_run(named: Named) -> tuple[str, ...]:
    """What the job of a run that is only rehearsed says of it."""
    if named.case is not None:
        return build.guest_command(_built(named.case))
    return ("program", Path(named.program[0]).name) if named.program else ("object", "candidate.bpf.o")


def _file(word: str, file: str) -> Candidate:
    try:
        return read_candidate(file)
    except UsageError as error:
        raise _told(word, error) from error


def _told(word: str, error: UsageError) -> UsageError:
    return UsageError(f"`--baseline {word}` can't be used: {error.message}", hint=error.hint or HINT)


def _built(case: Path) -> Artifact:
    """What a case judged, if all its files are what they were."""
    directory = case / "candidate"
    if not (directory / ARTIFACT).is_file():
        raise UsageError(f"the case `{case.name}` has no candidate that was built", hint="name another case")
    artifact = build.load(directory)
    if (name := build.altered(artifact)) is not None:
        raise DamagedCaseError(
            f"`candidate/{printable(name, 100)}` of the case `{case.name}` is not what it was",
            hint="a case is never edited; run its candidate again",
        )
    return usable(str(case), artifact)
