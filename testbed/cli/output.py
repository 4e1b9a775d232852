# SPDX-License-Identifier: Apache-2.0
"""Documents in the formats that were asked for: to stdout, or to files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from testbed.cli.parser import Parser
from testbed.errors import UsageError
from testbed.report import Format, parse_formats


def add_format(parser: Parser, names: str) -> None:
    """`--format` for a verb that writes a document of its own; `names` are for the help text."""
    parser.add_argument(
        "--format",
        action="append",
        default=[],
        metavar="FORMAT[=FILE]",
        help=f"{names}; to FILE instead of stdout; may be repeated",
    )


def known_formats(words: list[str], known: Collection[str], who: str) -> tuple[Format, ...]:
    """The formats that were asked for; `who` is whose document it is.

    Raises:
        UsageError: there is no such format, or none for this document.
    """
    formats = parse_formats(words)
    for one in formats:
        if one.name not in known:
            raise UsageError(f"{who} has no format `{one.name}`", hint=f"known: {', '.join(known)}")
    return formats


def put(formats: Sequence[Format], render: Callable[[Format], str]) -> None:
    """Write each format where it belongs.

    Raises:
        UsageError: a file can't be written.
    """
    for one in formats:
        text = render(one)
        if one.path is None:
            sys.stdout.write(text)
            sys.stdout.flush()
        else:
            write(one.path, text)


def write(path: Path, text: str) -> None:
    """Write a file that was named on the command line.

    Raises:
        UsageError: it can't be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"`{path}` can't be written: {(error.strerror or '').lower()}") from error
