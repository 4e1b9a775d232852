# SPDX-License-Identifier: Apache-2.0
"""Findings about a source: files that it does not get, and what the compiler says of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from testbed.build.compiler import Compiled
from testbed.build.diagnostics import Diagnostic, counted, render
from testbed.build.hints import Names, hint_for, misused_macro, old_name
from testbed.sources import Refusal, SourceTree, printable
from testbed.status import Status
from testbed.verdict import EvidenceRef, Finding

MAX_ERRORS = 10
LOG = "build.log"


def _pointed(
    tree: SourceTree, code: str, title: str, found: Diagnostic, cause: str, hint: str, status: Status = Status.FAIL
) -> Finding:
    """A finding that points at a line of the source, else at the build log."""
    return Finding(
        code=code,
        status=status,
        title=title,
        message=render(found, tree.texts),
        evidence=(_evidence(tree, found),),
        cause=cause,
        hint=hint,
    )


def _evidence(tree: SourceTree, found: Diagnostic) -> EvidenceRef:
    lines = tree.texts.get(found.file, "").split("\n")
    if found.file in tree.files and 1 <= found.line <= len(lines):
        text = printable(lines[found.line - 1].strip(), 400)
        return EvidenceRef(file=f"candidate/{found.file}", line=found.line, text=text)
    return EvidenceRef(file=f"candidate/{LOG}", text=f"{found.place}: {found.message}"[:400])


def refused(tree: SourceTree, refusal: Refusal) -> Finding:
    """The finding about a file that a candidate does not get."""
    place = Diagnostic("error", refusal.message, refusal.file, refusal.line, refusal.column, refusal.length)
    return _pointed(
        tree, "include-refused", "asks for a file that a candidate does not get", place,
        "a candidate is its source and the `.h` and `.c` files below its folder, so that it means the "
        "same everywhere",
        refusal.hint,
    )  # fmt: skip


def compile_findings(tree: SourceTree, compiled: Compiled, names: Names) -> Iterator[Finding]:
    """Findings about what the compiler said; none if it made an object of the candidate's own files."""
    if compiled.gave_up:
        yield _limit(tree, compiled.gave_up)
        return
    for path in compiled.outside[:1]:
        place = Diagnostic("error", f"the compiler read `{printable(path, 200)}`", tree.main)
        yield _pointed(
            tree, "include-refused", "asks for a file that a candidate does not get", place,
            "the file is neither below the candidate's folder nor a header of the kernel or of libbpf",
            "include files of the candidate's folder only",
        )  # fmt: skip
    errors = [each for each in compiled.diagnostics if each.severity == "error"]
    soft = {(refusal.file, refusal.line): refusal for refusal in tree.refusals if not refusal.hard}
    told: set[tuple[str, int]] = set()
    groups: dict[str, list[Diagnostic]] = {}
    skipped = ""
    for error in errors:
        refusal = soft.get((error.file, error.line))
        if refusal is not None:
            if (error.file, error.line) not in told:
                told.add((error.file, error.line))
                yield refused(tree, refusal)
            continue
        if skipped and f"undeclared identifier '{skipped}'" in error.message:
            continue  # a wrongly used macro is reported as an unknown name, too
        skipped = misused_macro(error)
        groups.setdefault(error.message, []).append(error)
    for message, same in list(groups.items())[:MAX_ERRORS]:
        yield _compile_error(tree, message, same, len(errors), names)
    if compiled.data is None and not errors:
        yield _pointed(
            tree, "compile-error", "does not compile", Diagnostic("error", "clang made no object", tree.main),
            "clang failed without a message", "candidate/build.log has everything that was said",
        )  # fmt: skip


def _compile_error(tree: SourceTree, message: str, same: list[Diagnostic], total: int, names: Names) -> Finding:
    """One finding for one message, wherever it stands."""
    first = min(same, key=lambda error: error.file not in tree.files)  # the candidate's own line, if there is one
    notes = tuple(note.message for note in first.notes)
    files = frozenset(name.rsplit("/", 1)[-1] for name in tree.files)
    if old_name(message):
        first = replace(first, notes=())
    hint = hint_for(message, notes, names, files)
    if not hint and not any("common.bpf.h" in text or "bpf_helpers.h" in text for text in tree.texts.values()):
        hint = "`SEC`, `BPF_STRUCT_OPS`, `u64` and the rest come with `#include <scx/common.bpf.h>`"
    hint = hint or f"the notes and candidate/{LOG} say more"
    cause = f"clang stopped at {counted(total, 'error')}"
    if len(same) > 1:
        cause += f", {len(same)} of them like this one"
    finding = _pointed(tree, "compile-error", f"does not compile: {message}", first, cause, hint)
    evidence = dict.fromkeys([*finding.evidence, *(_evidence(tree, error) for error in same)])
    return finding.model_copy(update={"evidence": tuple(evidence)[:MAX_ERRORS]})


def _limit(tree: SourceTree, what: str) -> Finding:
    host = what == "time"
    return _pointed(
        tree, "compile-limit", f"compiling met a limit: {what}",
        Diagnostic("error", f"clang was ended, the limit: {what}", tree.main),
        "the machine was too slow" if host else "no scheduler needs so much to be compiled",
        "run it again on a less busy machine" if host else "look for macros that expand without end",
        Status.ERROR if host else Status.FAIL,
    )  # fmt: skip
