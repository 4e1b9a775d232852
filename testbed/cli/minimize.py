# SPDX-License-Identifier: Apache-2.0
"""`testbed minimize`."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.cli.parser import Options, add_json, count, verb
from testbed.cli.run import cancel_on_signal, listen, make_guest
from testbed.errors import ExitCode

if TYPE_CHECKING:
    from testbed.cli.parser import Verbs
    from testbed.minimize import Minimized, Target

TRIALS = 300
EXAMPLES = """\
  testbed minimize CASE              shrink the run that decided the verdict
  testbed minimize CASE/runs/003     shrink this one
  testbed minimize CASE --add regressions.yaml
                                     and have `testbed run --regressions regressions.yaml` run it first
  testbed replay CASE/minimized/003  run what is left again
  exit code 0: as small as it gets, or as the bound allows; the verdict of the case stays what it is
"""


def add(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verb(verbs, "minimize", "shrink a failing run to the simplest that fails alike", minimize, EXAMPLES)
    parser.add_argument("place", type=Path, metavar="RUN|CASE", help="a run in which a candidate failed, or its case")
    parser.add_argument(
        "--trials", type=count(1, 100_000), default=TRIALS, metavar="N", help=f"try so many at most (default: {TRIALS})"
    )
    parser.add_argument("--add", type=Path, metavar="FILE", help="and put it into this file, for `run --regressions`")
    parser.add_argument("-j", dest="jobs", type=count(1, 256), metavar="N", help="guests side by side (default: CPUs)")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what the cache says")
    add_json(parser)


def minimize(options: Options) -> int:
    """Shrink, keep, say how far."""
    from testbed import minimize as minimizer
    from testbed import regressions

    if options.add is not None and options.add.exists():
        regressions.load(options.add)  # before the work, not after it
    target = minimizer.find(options.place)
    cancelled = threading.Event()
    cancel_on_signal(cancelled)
    found = minimizer.known(target)
    if found is None:
        with ExitStack() as stack:
            found = minimizer.minimize(
                target,
                guest=make_guest,
                listener=listen((), options.verbose, stack),
                cancelled=cancelled,
                trials=options.trials,
                jobs=options.jobs or os.cpu_count() or 1,
            )
    name = regressions.add(options.add, target.place) if options.add is not None else ""
    if name:
        print(f"{options.add}: `{name}`", file=sys.stderr)
    print(found.model_dump_json(by_alias=True, indent=2) if options.json else "\n".join(_lines(target, found)))
    return int(ExitCode.PASS)


def _lines(target: Target, found: Minimized) -> list[str]:
    end = "nothing simpler fails alike" if found.complete else "the bound ended it: --trials allows more"
    return [
        f"{found.title}",
        f"  before: {found.before}",
        f"  after:  {found.after}",
        f"  {found.trials} trials; {end}",
        *(f"  {times} of them failed otherwise: {title}" for title, times in found.other.items()),
        f"scenario: {target.place / 'scenarios' / found.scenario}.yaml",
        f"case: {target.place}",
    ]
