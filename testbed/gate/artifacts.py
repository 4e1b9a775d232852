# SPDX-License-Identifier: Apache-2.0
"""What a gate hands on about candidates that did not pass: a page, a picture and the smallest failing run of each.

All together stays below a bound. What tells most comes first: verdicts, then pages, pictures, and runs; of a kind the
small ones. What does not fit is left out, and named.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from testbed import minimize
from testbed.case import VERDICT_FILE, Case, canonical_json, need_empty
from testbed.errors import Interrupted, TestbedError
from testbed.gate.document import Document, Entry
from testbed.report import html
from testbed.report.document import printed
from testbed.report.escape import code
from testbed.spec import Model
from testbed.verdict import Outcome, Verdict

MAX_BYTES = 20 << 20
INDEX_FILE = "index.json"
SUMMARY_FILE = "summary.md"
PAGE, PICTURE, REPRO = "report.html", "timeline.svg", "minimal-case.tar.gz"
_ORDER = (VERDICT_FILE, PAGE, PICTURE, REPRO)
_INDEX_BYTES = 1 << 20
"""Of the bound, for the index and the summary."""

Shrink = Callable[[minimize.Target], object]


class File(Model):
    """One file, below the directory."""

    candidate: str
    name: str
    bytes: int


class LeftOut(Model):
    """What is not there, and why."""

    candidate: str
    what: str
    why: str


class Index(Model):
    """`index.json`."""

    limit: int
    files: tuple[File, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class _Part:
    entry: Entry
    name: str
    data: bytes

    @property
    def path(self) -> str:
        return f"{Path(self.entry.case).name}/{self.name}"


def check(target: Path) -> None:
    """Find before the work that what comes of it has no place.

    Raises:
        UsageError: `target` holds something.
    """
    need_empty(target, "--artifacts")


def collect(
    document: Document, directory: Path, target: Path, *, limit: int = MAX_BYTES, shrink: Shrink | None = None
) -> Index:
    """Write what there is about the candidates that did not pass into a new directory.

    Args:
        document: the gate's.
        directory: of the gate, with the cases.
        target: new or empty.
        limit: bytes of all files together.
        shrink: makes the smallest failing run of a target, in its place; None: only those that are there already.

    Raises:
        UsageError: `target` holds something.
        HostError: it can't be written.
    """
    check(target)
    lacking: list[LeftOut] = []
    parts = [
        part
        for entry in document.candidates
        if entry.case and entry.outcome in (Outcome.REJECT, Outcome.INCONCLUSIVE)
        for part in _parts(entry, entry.verdict, directory / entry.case, shrink, lacking)
    ]
    parts.sort(key=lambda part: (_ORDER.index(part.name), len(part.data), part.path))
    files: list[File] = []
    room = limit - _INDEX_BYTES
    for part in parts:
        if len(part.data) > room:
            why = f"{len(part.data) >> 10} KiB, and {limit >> 10} KiB are the bound for all"
            lacking.append(LeftOut(candidate=part.entry.path, what=part.name, why=why))
            continue
        room -= len(part.data)
        place = target / part.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(part.data)
        files.append(File(candidate=part.entry.path, name=part.path, bytes=len(part.data)))
    index = Index(limit=limit, files=tuple(files), left_out=tuple(lacking))
    target.mkdir(parents=True, exist_ok=True)
    (target / INDEX_FILE).write_bytes(canonical_json(index.model_dump(mode="json")))
    (target / SUMMARY_FILE).write_text(summary(index), encoding="utf-8")
    return index


def _parts(
    entry: Entry, verdict: Verdict | None, place: Path, shrink: Shrink | None, lacking: list[LeftOut]
) -> Iterator[_Part]:
    def lacks(what: str, error: TestbedError) -> None:
        lacking.append(LeftOut(candidate=entry.path, what=what, why=error.message))

    try:
        case = Case.open(place)
    except (TestbedError, OSError) as error:
        why = error.message if isinstance(error, TestbedError) else str(error.strerror)
        lacking.append(LeftOut(candidate=entry.path, what=PAGE, why=why))
        return
    if verdict is None:
        return
    yield _Part(entry, VERDICT_FILE, canonical_json(verdict.model_dump(mode="json", by_alias=True)))
    try:
        shown = printed(verdict, case_dir=entry.case, elapsed_s=entry.elapsed_s)
        yield _Part(entry, PAGE, html.render(shown, case).encode("utf-8"))
        if (found := html.failing_run(case, verdict.findings)) is not None:
            yield _Part(entry, PICTURE, html.picture(*found).encode("utf-8"))
    except TestbedError as error:
        lacks(PICTURE, error)
    if entry.outcome is not Outcome.REJECT or not case.runs:
        return
    try:
        target = minimize.find(place)
        if shrink is not None and minimize.known(target) is None:
            shrink(target)
        if (target.place / minimize.RESULT_FILE).is_file():
            yield _Part(entry, REPRO, _packed(target.place, f"{place.name}-minimal"))
    except Interrupted:
        raise
    except TestbedError as error:
        lacks(REPRO, error)


def _packed(directory: Path, name: str) -> bytes:
    """A case as one file, the same bytes each time."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in sorted(directory.rglob("*")):
            if path.is_symlink() or not path.is_file():
                continue
            member = tarfile.TarInfo(f"{name}/{path.relative_to(directory).as_posix()}")
            member.size, member.mode = path.stat().st_size, 0o644
            with path.open("rb") as source:
                archive.addfile(member, source)
    return packed.getvalue()


def summary(index: Index) -> str:
    """The job summary's part about it."""
    if not index.files and not index.left_out:
        return ""
    told: dict[str, list[str]] = {}
    for file in index.files:
        told.setdefault(file.candidate, []).append(code(file.name))
    lines = ["### In the artifact", ""]
    lines += [f"- {code(candidate)}: {', '.join(names)}" for candidate, names in sorted(told.items())]
    lines += [f"- left out: {code(one.what)} of {code(one.candidate)}: {code(one.why)}" for one in index.left_out]
    return "\n".join(lines) + "\n"
