# SPDX-License-Identifier: Apache-2.0
"""Messages that point: a place in a source, the line, an underline, notes and a hint.

What clang writes is read here (plain lines, not its drawings, which change from version to version), and drawn here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from testbed.sources import printable

MAX_DIAGNOSTICS = 2000
_MAX_WIDTH = 240

Severity = Literal["error", "warning", "note"]

# candidate.bpf.c:12:5:{12:5-12:9}{12:10-12:11}: error: use of undeclared identifier 'x' [-Wfoo]
_CLANG = re.compile(
    r"^(?P<file>[^:\n]+):(?P<line>\d{1,9}):(?P<column>\d{1,9}):"
    r"(?P<ranges>(?:\{\d+:\d+-\d+:\d+\})*:?)? ?(?P<severity>fatal error|error|warning|note): (?P<message>.*)$"
)
_PLACELESS = re.compile(r"^(?:clang(?:-\d+)?: )?(?P<severity>fatal error|error|warning): (?P<message>.*)$")
_RANGE = re.compile(r"\{(\d+):(\d+)-(\d+):(\d+)\}")


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One message about a place. Lines and columns count from 1; `column` 0 is the whole line; `file` may be empty."""

    severity: Severity
    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    length: int = 1
    hint: str = ""
    notes: tuple[Diagnostic, ...] = ()

    @property
    def place(self) -> str:
        """`file:line:column`, as far as it is known."""
        parts = [self.file, *(str(number) for number in (self.line, self.column) if number)]
        return ":".join(parts) if self.file else ""


def snippet(lines: list[str], line: int, column: int, length: int, gutter: int) -> list[str]:
    """The source line with an underline; nothing if the file has no such line."""
    if not 1 <= line <= len(lines):
        return []
    raw = lines[line - 1].rstrip("\r\n")
    start = min(max(column - 1, 0), len(raw))
    if column <= 0:  # the whole line
        start = len(raw) - len(raw.lstrip())
        length = len(raw.strip())
    before, marked = _drawn(raw[:start]), _drawn(raw[start : start + max(1, length)])
    text = (before + marked + _drawn(raw[start + max(1, length) :])).rstrip()
    cut = 0
    if len(before) > _MAX_WIDTH // 2:  # an endless line: show what is around the place
        cut = len(before) - _MAX_WIDTH // 4
    text = text[cut : cut + _MAX_WIDTH]
    width = max(1, min(len(marked.rstrip()), _MAX_WIDTH - (len(before) - cut)))
    return [f"{line:>{gutter}} | {text}".rstrip(), f"{'':>{gutter}} | {'':>{len(before) - cut}}{'^' * width}"]


def _drawn(text: str) -> str:
    """Source text as it may be shown; nothing of it is hidden."""
    return "".join(
        "    " if char == "\t" else char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text
    )


def render(diagnostic: Diagnostic, sources: Mapping[str, str]) -> str:
    """The diagnostic as several lines of text."""
    everything = [diagnostic, *diagnostic.notes]
    gutter = max((len(str(each.line)) for each in everything if each.file in sources), default=1) + 1
    out: list[str] = []
    for each in everything:
        head = f"{each.place}: " if each.place else ""
        out.append(f"{head}{each.severity}: {each.message}")
        text = sources.get(each.file)
        if text is not None and each.line:
            out += snippet(text.split("\n"), each.line, each.column, each.length, gutter)
        if each.hint:
            out.append(f"hint: {each.hint}")
    return "\n".join(out)


def parse_clang(output: str, sources: Mapping[str, str], prefix: str, headers: str) -> list[Diagnostic]:
    """Diagnostics from clang's plain output, notes attached to what they explain.

    Args:
        output: what clang wrote with `-fno-caret-diagnostics -fdiagnostics-print-source-range-info`.
        sources: the candidate's files by relative path, to turn clang's byte columns into columns of characters.
        prefix: directory of the candidate's files in the sandbox, cut off from names.
        headers: directory of the kernel's headers there, cut off too.
    """
    found: list[Diagnostic] = []
    for each in _lines(output, sources, prefix, headers):
        if each.severity != "note":
            found.append(each)
        elif "could not determine the original source location" in each.message:
            continue
        elif found and len(found[-1].notes) < 8 and each.place != found[-1].place:
            # a note at the very place only repeats what the hint says
            found[-1] = replace(found[-1], notes=(*found[-1].notes, each))
        if len(found) >= MAX_DIAGNOSTICS:
            break
    return found


def _lines(output: str, sources: Mapping[str, str], prefix: str, headers: str) -> Iterator[Diagnostic]:
    for raw in output.splitlines():
        match = _CLANG.match(raw)
        if match is None:
            placeless = _PLACELESS.match(raw)
            if placeless is not None:
                yield Diagnostic(_severity(placeless["severity"]), printable(placeless["message"], 600))
            continue
        name = match["file"].removeprefix(prefix).removeprefix("./")
        line, byte_column = int(match["line"]), int(match["column"])
        name = name.removeprefix(headers)
        text = sources.get(name)
        source = text.split("\n")[line - 1] if text is not None and 1 <= line <= text.count("\n") + 1 else ""
        column = _characters(source, byte_column) if text is not None else byte_column
        length = _length(source, line, byte_column, match["ranges"] or "", match["message"])
        message = _message(match["message"], match["severity"])
        yield Diagnostic(_severity(match["severity"]), message, printable(name, 200), line, column, length)


def _message(message: str, severity: str) -> str:
    """Clang's message without what nobody needs who compiles a scheduler."""
    message = re.sub(r"; ISO C99 and later do not support implicit (?:function declarations|int)", "", message)
    if "BPF stack limit is exceeded" in message:
        message = "the stack limit of 512 bytes is exceeded"
    if "error" in severity:
        message = re.sub(r" \[-W[\w,=+-]+\]$", "", message)
    return printable(message, 600)


def _severity(word: str) -> Severity:
    return "note" if word == "note" else "warning" if word == "warning" else "error"


def _characters(source: str, byte_column: int) -> int:
    """Clang counts bytes from 1; we count characters from 1."""
    return len(source.encode("utf-8", "replace")[: max(0, byte_column - 1)].decode("utf-8", "ignore")) + 1


def _length(source: str, line: int, byte_column: int, ranges: str, message: str) -> int:
    """How much to underline: the range that begins at the place, else the word or string there."""
    for first_line, first, last_line, last in _RANGE.findall(ranges):
        if int(first_line) == int(last_line) == line and int(first) == byte_column < int(last):
            return _characters(source, int(last)) - _characters(source, byte_column)
    rest = source[_characters(source, byte_column) - 1 :]
    word = re.match(r"\w+|\"[^\"]*\"|<[^>]*>", rest)
    return len(word.group()) if word else 1


def counted(number: int, noun: str) -> str:
    """`1 error`, `2 errors`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def joined(words: Iterable[str]) -> str:
    """`a`, `b` and `c`, in backticks."""
    marked = [f"`{word}`" for word in words]
    return marked[0] if len(marked) == 1 else ", ".join(marked[:-1]) + " and " + marked[-1] if marked else ""
