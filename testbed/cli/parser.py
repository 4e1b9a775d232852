# SPDX-License-Identifier: Apache-2.0
"""What every verb's arguments share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from testbed.errors import UsageError

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction["Parser"]  # argparse gives this type no public name

EXIT_CODES = """\
exit codes:
  0    pass
  1    rejected: the candidate failed a check, or does not compile, load or attach
  2    usage: no such file, not a candidate, wrong option, policy or scenario
  3    inconclusive: the testbed, the guest or this machine is at fault, or something required did not run
  130  interrupted (SIGINT, SIGTERM)
"""


class Options(argparse.Namespace):
    """The parsed command line; `program` is what stood behind `--`."""

    program: tuple[str, ...] | None

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


class Parser(argparse.ArgumentParser):
    """Keeps the line breaks of help texts, and reports a wrong command line as every other error."""

    def __init__(self, **arguments: Any) -> None:
        arguments.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **arguments)

    def error(self, message: str) -> NoReturn:
        """Raise a usage error."""
        raise UsageError(message, hint=f"see `{self.prog} --help`")


def verb(
    verbs: Verbs, name: str, summary: str, call: Callable[[Options], int] | None = None, examples: str = ""
) -> Parser:
    """Add a verb; `summary` is one lower-case sentence without stop."""
    epilog = (f"examples:\n{examples}\n" if examples else "") + EXIT_CODES
    parser = verbs.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=epilog)
    if call is not None:
        parser.set_defaults(call=call)
    return parser


def count(low: int, high: int) -> Callable[[str], int]:
    """A type of argument: a whole number within bounds."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}, found `{text}`")
        return int(text)

    return parse


def add_json(parser: Parser) -> None:
    """`--json` for verbs that print a table."""
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def wants_json(words: Sequence[str]) -> bool:
    """Whether stdout is to be JSON, known before the command line could be parsed."""
    pairs = zip(words, [*words[1:], ""], strict=True)
    return any(
        word in ("--json", "--format=json", "--format=jsonl") or (word == "--format" and following in ("json", "jsonl"))
        for word, following in pairs
    )
