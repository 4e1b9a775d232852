# SPDX-License-Identifier: Apache-2.0
"""The source tree of a candidate: one `.bpf.c` and the files of its own folder that it includes.

Found by a scan of its directives that knows no conditions, so it may take more than the compiler will read. What it
does not take is not there when the compiler runs: the sandbox is the boundary, this scan only explains it. A refusal
is `hard` where it stands whatever the preprocessor makes of the line, and soft where a line that is never compiled
(`#ifdef LSP`) must not condemn a candidate; soft ones are told when the compiler misses the file.
"""

from __future__ import annotations

import bisect
import os
import posixpath
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from testbed.errors import UsageError

MAX_FILE = 1 << 20
MAX_TOTAL = 16 << 20
MAX_FILES = 512
MAX_REFUSALS = 20
SUFFIXES = (".h", ".c")
#: Names beside the sources in a case (docs/reference/case.md).
RESERVED = ("artifact.json", "build.log", "candidate.bpf.o")

#: Written in place of a `vmlinux.h` of the candidate's folder: the guest kernel's own types are the ones that count.
VMLINUX_STUB = b"""\
/* the testbed puts the types of the guest's kernel here */
#ifndef BPF_NO_KFUNC_PROTOTYPES
#define BPF_NO_KFUNC_PROTOTYPES /* scx/common.bpf.h declares them itself */
#endif
#include <vmlinux.h>
"""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that asks for something that a candidate does not get."""

    file: str
    line: int
    column: int
    length: int
    message: str
    hint: str
    hard: bool


@dataclass(frozen=True, slots=True)
class SourceTree:
    """Files by their path below the source's folder, and what was refused."""

    main: str
    files: Mapping[str, bytes]
    refusals: tuple[Refusal, ...] = ()

    @property
    def texts(self) -> dict[str, str]:
        """The files as text."""
        return {path: data.decode("utf-8", "replace") for path, data in self.files.items()}


def open_regular(path: Path, what: str) -> IO[bytes]:
    """Open a regular file; a pipe or a device is not even waited for.

    Raises:
        UsageError: it can't be read, or is no regular file.
    """
    shown = f"`{printable(str(path))}`"
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"no such file: {shown}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"can't read {shown}: {_reason(error)}") from None
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise UsageError(f"{shown} is {'a directory' if stat.S_ISDIR(mode) else 'no regular file'}, expected {what}")
    return open(handle, "rb")


def _reason(error: Exception) -> str:
    return (error.strerror or "").lower() if isinstance(error, OSError) else str(error)


def read_bounded(path: Path, limit: int, what: str) -> bytes:
    """Bytes of a regular file, never more than `limit`.

    Raises:
        UsageError: it can't be read, is no regular file, or is larger.
    """
    with open_regular(path, what) as file:
        try:
            data = file.read(limit + 1)
        except OSError as error:
            raise UsageError(f"can't read `{printable(str(path))}`: {_reason(error)}") from None
    if len(data) > limit:
        raise UsageError(f"`{printable(str(path))}` is larger than the {limit >> 10} KiB that {what} may have")
    return data


def printable(text: str, limit: int = 2000) -> str:
    """Untrusted text without control characters, terminal escapes and text that changes direction."""
    clean = _ESCAPE.sub("", text[: 4 * limit]).replace("\t", "    ")
    clean = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in clean)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTINUED = re.compile(r"(?:[^\n]*\\\r?\n)+[^\n]*")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?(?:\*/|\Z)|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
_DIRECTIVE = re.compile(
    r"^[ \t\f\v]*(?:#|%:)[ \t\f\v]*(include_next|include|import|embed)(?![\w$])[ \t\f\v]*([^\n]*)", re.MULTILINE
)
_DEFINE = re.compile(
    r"^[ \t\f\v]*(?:#|%:)[ \t\f\v]*define[ \t]+(\w+)[ \t]+(\"[^\"\n]*\"|<[^>\n]*>|\w+)[ \t]*$", re.MULTILINE
)
_HAS = re.compile(r"__has_(?:include_next|include|embed)\s*\(\s*([\"<]\s*/[^\">\n]*[\">]?)")
_INCBIN = re.compile(r"\.incbin\b|\.include\s*\\?\"")


def _without_comments(text: str) -> str:
    """The same lines and columns with comments blank and continued lines joined."""

    def join(match: re.Match[str]) -> str:
        whole = match.group()
        return re.sub(r"\\\r?\n", "", whole) + "\n" * whole.count("\n")

    def blank(match: re.Match[str]) -> str:
        found = match.group()
        return re.sub(r"[^\n]", " ", found) if found.startswith("/") else found

    return _COMMENT.sub(blank, _CONTINUED.sub(join, text))


@dataclass
class _Scan:
    folder: Path
    main: str
    files: dict[str, bytes] = field(default_factory=dict)
    refusals: dict[tuple[str, int, int], Refusal] = field(default_factory=dict)
    macros: dict[str, set[str]] = field(default_factory=dict)
    computed: list[tuple[str, int, int, str]] = field(default_factory=list)
    queue: list[str] = field(default_factory=list)
    total: int = 0

    def refuse(self, file: str, line: int, column: int, length: int, message: str, hint: str, *, hard: bool) -> None:
        key = (file, line, column)
        if len(self.refusals) < MAX_REFUSALS or hard:
            self.refusals.setdefault(key, Refusal(file, line, column, max(1, length), message, hint, hard))

    def take(self, path: str, data: bytes) -> None:
        self.files[path] = data
        self.queue.append(path)
        self.total += len(data)

    def scan(self, path: str) -> None:
        text = _without_comments(self.files[path].decode("utf-8", "replace").replace("\r\n", "\n"))
        starts = [0] + [match.end() for match in re.finditer("\n", text)]

        def place(offset: int) -> tuple[int, int]:
            line = bisect.bisect_right(starts, offset)
            return line, offset - starts[line - 1] + 1

        for match in _DEFINE.finditer(text):
            self.macros.setdefault(match.group(1), set()).add(match.group(2))
        for match in _INCBIN.finditer(text):
            line, column = place(match.start())
            self.refuse(
                path,
                line,
                column,
                len(match.group().rstrip('"\\ ')),
                "the assembler may not read files",
                "put the data into the source as an array",
                hard=True,
            )
        for match in _HAS.finditer(text):
            line, column = place(match.start(1))
            self._absolute(path, line, column, match.group(1))
        for match in _DIRECTIVE.finditer(text):
            line, column = place(match.start(2) if match.group(2) else match.start(1))
            operand = match.group(2).strip()
            if match.group(1) == "embed":
                line, column = place(match.start(1))
                self.refuse(
                    path,
                    line,
                    column,
                    len("embed"),
                    "`#embed` is refused: a scheduler is source, not data",
                    "put the data into the source as an array",
                    hard=True,
                )
            elif operand[:1] in ('"', "<"):
                self.include(path, line, column, operand)
            elif operand:
                self.computed.append((path, line, column, operand))

    def _absolute(self, path: str, line: int, column: int, operand: str) -> None:
        self.refuse(
            path,
            line,
            column,
            len(operand),
            f"absolute path {printable(operand, 200)} is refused",
            "include headers of the kernel and of libbpf as `<scx/common.bpf.h>`, your own relative to the file",
            hard=True,
        )

    def include(self, path: str, line: int, column: int, operand: str) -> None:
        closing = '"' if operand[0] == '"' else ">"
        end = operand.find(closing, 1)
        if end < 0:
            return  # the compiler says so
        name = operand[1:end]
        operand = operand[: end + 1]
        if name.strip().startswith(("/", "\\")):
            self._absolute(path, line, column, operand)
            return
        if closing == ">" or not name or "\0" in name:
            return
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
        if target == ".." or target.startswith("../"):
            self.refuse(
                path,
                line,
                column,
                len(operand),
                f"{printable(operand, 200)} leads out of the candidate's folder",
                "move the file below the folder of the candidate, or the candidate up",
                hard=False,
            )
            return
        self.fetch(path, line, column, operand, target)

    def fetch(self, path: str, line: int, column: int, operand: str, target: str) -> None:
        if target in self.files:
            return

        def refuse(message: str, hint: str, *, hard: bool = False) -> None:
            self.refuse(path, line, column, len(operand), message, hint, hard=hard)

        shown = f"`{printable(target, 200)}`"
        try:
            real = (self.folder / target).resolve(strict=True)
            regular = real.is_file()
        except (OSError, RuntimeError, ValueError):
            return  # perhaps a header of the kernel; else the compiler says so
        if not real.is_relative_to(self.folder):
            refuse(
                f"{shown} is a link that leads out of the candidate's folder",
                "put a copy of the file in its place",
                hard=True,
            )
            return
        parts = (*PurePosixPath(target).parts, *real.relative_to(self.folder).parts)
        if printable(target) != target:
            refuse(f"{shown} has characters in its name that can't be shown", "give the file another name")
        elif parts[0] in RESERVED:
            refuse(f"{shown}: that name is used by the testbed", "give the file another name")
        elif any(part.startswith(".") for part in parts):
            refuse(f"{shown} is hidden, and hidden files are not taken", "give the file another name")
        elif not regular:
            refuse(f"{shown} is no regular file", "include regular files only")
        elif PurePosixPath(target).suffix not in SUFFIXES or real.suffix not in SUFFIXES:
            refuse(f"{shown} is neither `.h` nor `.c`", "give the file a name that ends in `.h`")
        elif PurePosixPath(target).name == "vmlinux.h":
            self.files[target] = VMLINUX_STUB
        elif len(self.files) >= MAX_FILES:
            refuse(f"more than {MAX_FILES} files are included", "include fewer files", hard=True)
        else:
            try:
                data = read_bounded(real, MAX_FILE, "a source file")
            except UsageError as error:
                refuse(error.message.replace(str(real), target), "a header must be readable, and not larger", hard=True)
                return
            if self.total + len(data) > MAX_TOTAL:
                refuse(f"the included files are larger than {MAX_TOTAL >> 20} MiB", "include less", hard=True)
                return
            self.take(target, data)

    def meanings(self, operand: str, depth: int = 0) -> set[str]:
        if operand[:1] in ('"', "<"):
            return {operand}
        if depth > 8:
            return set()
        found: set[str] = set()
        for value in self.macros.get(operand, ()):
            found |= self.meanings(value, depth + 1)
        return found

    def run(self) -> None:
        while self.queue:
            while self.queue:
                self.scan(self.queue.pop(0))
            for path, line, column, operand in self.computed:
                for meaning in sorted(self.meanings(operand)):
                    self.include(path, line, column, meaning)
        for path, line, column, operand in self.computed:
            if not self.meanings(operand):
                self.refuse(
                    path,
                    line,
                    column,
                    len(operand),
                    f"`#include {printable(operand, 100)}`: the macro names no file that can be found by reading",
                    "write the file's name into the `#include`",
                    hard=False,
                )


def collect(path: Path, data: bytes) -> SourceTree:
    """The source `data`, read from `path`, with the files below its folder that it includes."""
    scan = _Scan(folder=path.resolve().parent, main=path.name)
    scan.take(path.name, data)
    scan.run()
    refusals = sorted(scan.refusals.values(), key=lambda found: (found.file, found.line, found.column))
    return SourceTree(path.name, dict(sorted(scan.files.items())), tuple(refusals))
