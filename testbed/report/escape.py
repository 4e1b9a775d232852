# SPDX-License-Identifier: Apache-2.0
"""Untrusted text on its way into other languages: what a candidate wrote stays text, whatever it looks like.

Names, comments, program output and kernel logs are a stranger's. Every writer takes them through `harmless` first (no
control characters, one line) and then through the function of the language that it writes.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

MAX_LINE = 500
MAX_LINES = 60
MAX_TEXT = 4000

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])|\x9b[0-?]*[ -/]*[@-~]")
_COMMAND_START = re.compile(r"^(\s*):(?=:)", re.MULTILINE)
_BACKTICKS = re.compile(r"`+")
_PLAIN = frozenset(" ,-+=%/()")


def harmless(text: str) -> str:
    """Untrusted text as one line that does nothing to a terminal."""
    return "".join(char for char in _ESCAPE.sub("", text.replace("\t", " ")) if char.isprintable())


def cut(line: str, width: int) -> str:
    """At most `width` characters of a line, for a terminal."""
    return line if len(line) <= width else line[: width - 3] + "..."


def lines(text: str, *, limit: int = MAX_LINES) -> list[str]:
    """Untrusted text of several lines as harmless lines, each and their number bounded."""
    found = [_cut(harmless(line)) for line in text.split("\n")]
    return found if len(found) <= limit else [*found[: limit - 1], f"… {len(found) - limit + 1} more lines"]


def _cut(line: str) -> str:
    return line if len(line) <= MAX_LINE else line[: MAX_LINE - 1] + "…"


def defused(text: str) -> str:
    """Text for a log in which no line is a command of GitHub's runner.

    The runner obeys lines that begin with `::`, blanks before it or not, and `##[` anywhere in a line.
    """
    return _COMMAND_START.sub(r"\1: ", text).replace("##[", "## [")


def code(text: str) -> str:
    """Untrusted text inside a line of Markdown or HTML: in `<code>`, everything but letters and digits as an entity.

    An entity never makes structure, and inside `<code>` GitHub looks for no mentions, issue numbers, links and emoji.
    """
    shown = _cut(harmless(text))
    return f"<code>{''.join(char if char.isalnum() or char in _PLAIN else f'&#{ord(char)};' for char in shown)}</code>"


def markup(text: str) -> str:
    """Untrusted text between the tags of HTML or SVG, or inside a quoted attribute; one line, bounded."""
    shown = harmless(text)
    return html.escape(shown if len(shown) <= MAX_TEXT else shown[: MAX_TEXT - 1] + "…")


def fence(content: Iterable[str], language: str = "text") -> list[str]:
    """Harmless lines as a fenced block of Markdown, with a fence that none of them can close."""
    content = list(content)
    longest = max((len(run) for line in content for run in _BACKTICKS.findall(line)), default=0)
    marks = "`" * max(3, longest + 1)
    return [f"{marks}{language}", *content, marks]


def bounded(text: str, limit: int) -> str:
    """Text of at most `limit` bytes in UTF-8."""
    data = text.encode("utf-8")
    return text if len(data) <= limit else data[: limit - len("…".encode())].decode("utf-8", "ignore") + "…"
