# SPDX-License-Identifier: Apache-2.0
"""`testbed compare`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.cli.parser import Options, verb
from testbed.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from testbed.cli.parser import Verbs

EXAMPLES = """\
  testbed compare NEW OLD                       the first case's candidate against the second's
  testbed compare CASE                          its candidate against its own baseline (`testbed run --baseline`)
  testbed compare NEW OLD --svg ratios.svg      and a picture of the ratios
  testbed compare NEW OLD --format json         one JSON document on stdout
  make cases that say more: testbed run my.bpf.c --seeds 10
"""


def add(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verb(verbs, "compare", "compare the candidates of two cases by their evidence", compare, EXAMPLES)
    parser.add_argument("first", metavar="CASE", help="a case's directory, or the name of one in `testbed cases list`")
    parser.add_argument(
        "second", metavar="CASE", nargs="?", help="the one that it is compared with; default: its own baseline"
    )
    parser.add_argument("--format", choices=["text", "json"], default="text", help="default: text")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the ratios with their intervals")


def compare(options: Options) -> int:
    """Compare two cases, or one with its baseline; better or worse, the exit code is 0."""
    from testbed import cases
    from testbed import compare as comparing
    from testbed.case import Case, write_atomic
    from testbed.report import compare as writers

    first = Case.open(cases.find(options.first))
    if options.second is None:
        comparison = comparing.compare_baseline(first)
    else:
        comparison = comparing.compare_cases(first, Case.open(cases.find(options.second)))
    if options.svg is not None:
        try:
            write_atomic(options.svg, writers.svg(comparison))
        except OSError as error:
            raise UsageError(f"`--svg {options.svg}` can't be written: {(error.strerror or '').lower()}") from error
    sys.stdout.write(writers.render(comparison, options.format))
    return int(ExitCode.PASS)
