# SPDX-License-Identifier: Apache-2.0
"""`testbed replay`."""

from __future__ import annotations

import json
import os
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.cli.parser import Options, add_json, count, verb
from testbed.cli.run import cancel_on_signal, listen, make_guest
from testbed.errors import ExitCode, Interrupted
from testbed.report import harmless

if TYPE_CHECKING:
    from testbed.cli.parser import Verbs
    from testbed.replay import Replayed

EXAMPLES = """\
  testbed replay CASE             run every sim run of a case again and compare it to the bit
  testbed replay CASE/runs/003    one run
  exit code 0: identical, 1: a run differs (the first place where they part is shown)
"""


def add(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verb(verbs, "replay", "run a case's sim runs again and compare them to the bit", replay, EXAMPLES)
    parser.add_argument("place", type=Path, metavar="RUN|CASE", help="a case's directory, or one of its runs")
    parser.add_argument("-j", dest="jobs", type=count(1, 256), metavar="N", help="guests side by side (default: CPUs)")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the stages")
    add_json(parser)


def replay(options: Options) -> int:
    """Run again, compare, say where they part."""
    from testbed import replay as replays

    case, runs = replays.find(options.place)
    cancelled = threading.Event()
    cancel_on_signal(cancelled)
    found: list[Replayed] = []
    with ExitStack() as stack:
        listener = listen((), options.verbose, stack)
        jobs = options.jobs or os.cpu_count() or 1
        for one in replays.replay(case, runs, guest=make_guest, listener=listener, jobs=jobs, cancelled=cancelled):
            found.append(one)
            if not options.json:
                print("\n".join(_lines(one)), flush=True)
    if len(found) < len(runs):
        raise Interrupted(f"interrupted after {len(found)} of {len(runs)} runs")
    if options.json:
        print(json.dumps([_document(one) for one in found], indent=2))
    return int(ExitCode.PASS if all(one.identical for one in found) else ExitCode.REJECT)


def _lines(one: Replayed) -> list[str]:
    if one.identical:
        return [f"identical  {one.run}  {one.scenario}  {one.digest[:16]}"]
    lines = [f"DIFFERENT  {one.run}  {one.scenario}  {one.digest[:16]} in the case, {one.again[:16]} now"]
    if one.parting is not None:
        at = f", {one.parting.at_ns / 1e9:.6f} s of guest time" if one.parting.at_ns is not None else ""
        lines += [
            f"  they part in {one.parting.file}, line {one.parting.line}{at}:",
            f"    case: {harmless(one.parting.first.decode('utf-8', 'replace')) or '(it has ended)'}",
            f"    now:  {harmless(one.parting.second.decode('utf-8', 'replace')) or '(it has ended)'}",
        ]
    if one.evidence is not None:
        lines.append(f"  evidence of the new run: {one.evidence}")
    return lines


def _document(one: Replayed) -> dict[str, object]:
    parting = one.parting
    return {
        "run": one.run,
        "scenario": one.scenario,
        "identical": one.identical,
        "digest": one.digest,
        "again": one.again,
        "parting": None
        if parting is None
        else {
            "file": parting.file,
            "line": parting.line,
            "at_ns": parting.at_ns,
            "case": parting.first.decode("utf-8", "replace"),
            "now": parting.second.decode("utf-8", "replace"),
        },
        "evidence": None if one.evidence is None else str(one.evidence),
    }
