# SPDX-License-Identifier: Apache-2.0
"""The command line: parse arguments, call one function, print through `report/`. No logic of its own."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence

from testbed import __version__
from testbed.case import canonical_json
from testbed.cli import (
    compare,
    corpus,
    doctor,
    gate,
    hosts,
    image,
    inspect,
    lint,
    minimize,
    nightly,
    promote,
    replay,
    report,
    run,
    shell,
)
from testbed.cli.parser import EXIT_CODES, Options, Parser, wants_json
from testbed.errors import Bug, ExitCode, HostError, Interrupted, TestbedError, UsageError
from testbed.report import error_document

FULL_DISK = (28, 122)  # ENOSPC, EDQUOT


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    words, program = _split(list(sys.argv[1:] if argv is None else argv))
    try:
        options = _parser().parse_args(words, namespace=Options(program=program))
        if program is not None and options.verb not in ("run", "build", "shell"):
            raise UsageError(f"`testbed {options.verb}` takes no program behind `--`")
        verb: Callable[[Options], int] = options.call
        return verb(options)
    except TestbedError as error:
        return _report(error, words)
    except BrokenPipeError:
        # Whoever read our output has gone; there is nobody left to tell, and Python must not try at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.INCONCLUSIVE)
    except KeyboardInterrupt:
        return _report(Interrupted("interrupted"), words)
    except OSError as error:
        place = f" (`{error.filename}`)" if error.filename else ""
        hint = "free some space" if error.errno in FULL_DISK else ""
        return _report(HostError(f"{(error.strerror or str(error)).lower()}{place}", hint=hint), words)
    except Exception as error:  # the last line of defence: a bug of ours is never a verdict
        traceback.print_exc()
        return _report(Bug(f"{type(error).__name__}: {error}", hint="please report this"), words)


def _split(arguments: list[str]) -> tuple[list[str], tuple[str, ...] | None]:
    """Everything behind the first `--` is a program with its arguments: the candidate's, or one for a guest."""
    if "--" not in arguments:
        return arguments, None
    place = arguments.index("--")
    return arguments[:place], tuple(arguments[place + 1 :])


def _report(error: TestbedError, words: Sequence[str]) -> int:
    if wants_json(words):
        sys.stdout.write(canonical_json(error_document(error)).decode("ascii"))
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    return int(error.exit_code)


def _parser() -> Parser:
    parser = Parser(
        prog="testbed",
        description="Judge Linux CPU schedulers (sched_ext) in deterministic guests before a host loads them.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"testbed {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    for module in (
        run,
        report,
        gate,
        corpus,
        nightly,
        replay,
        minimize,
        compare,
        lint,
        inspect,
        promote,
        hosts,
        shell,
        image,
        doctor,
    ):
        module.add(verbs)
    return parser
