# SPDX-License-Identifier: Apache-2.0
"""`testbed replay`."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.cli.parser import Options, add_json, count, verb
from testbed.cli.run import cancel_on_signal, listen, make_guest
from testbed.errors import ExitCode, Interrupted, UsageError
from testbed.report import harmless

if TYPE_CHECKING:
    from testbed.case import Case, RunEvidence
    from testbed.cli.parser import Verbs
    from testbed.replay import Replayed

EXAMPLES = """\
  testbed replay CASE             run every sim run of a case again and compare it to the bit
  testbed replay CASE/runs/003    one run
  testbed replay CASE --until runnable-task-stall                leave the guest stopped there, with gdb and monitor
  testbed replay CASE/runs/003 --until 10.3s --dump vmcore       write its memory, for crash or drgn
  exit code 0: identical, 1: a run differs (the first place where they part is shown)
"""


def add(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verb(verbs, "replay", "run a case's sim runs again and compare them to the bit", replay, EXAMPLES)
    parser.add_argument("place", type=Path, metavar="RUN|CASE", help="a case's directory, or one of its runs")
    parser.add_argument("--until", metavar="MOMENT", help="stop the guest there: a finding's code, or e.g. 10.3s")
    parser.add_argument("--dump", type=Path, metavar="FILE", help="with --until: write the guest's memory and end")
    parser.add_argument("-j", dest="jobs", type=count(1, 256), metavar="N", help="guests side by side (default: CPUs)")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the stages")
    add_json(parser)


def replay(options: Options) -> int:
    """Run again, compare, say where they part."""
    from testbed import replay as replays

    if options.dump is not None and options.until is None:
        raise UsageError("`--dump` is for a moment", hint="give one by --until, a finding's code or e.g. 10.3s")
    case, runs = replays.find(options.place)
    cancelled = threading.Event()
    cancel_on_signal(cancelled)
    if options.until is not None:
        return _stop(case, runs, options, cancelled)
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


def _stop(case: Case, runs: tuple[RunEvidence, ...], options: Options, cancelled: threading.Event) -> int:
    """Run up to a moment; dump, or stand still until somebody ends it."""
    from testbed import freeze
    from testbed import replay as replays

    at = freeze.moment(case, runs, options.until)
    image = replays.image_of(case, (at.run,))
    with tempfile.TemporaryDirectory(prefix="testbed-replay-") as work:
        files = replays.inputs_of(case, (at.run,), Path(work), image).by_hash[at.run.spec.files]
        with freeze.frozen(image, at, case, files, cancelled) as guest:
            where = f"{at.run.name} stands still at {at.guest_ns / 1e9:.6f} s of guest time"
            if options.dump is not None:
                guest.dump(options.dump)
                print(f"{where}; its memory is in {options.dump}")
                return int(ExitCode.PASS)
            print(
                f"{where}\n"
                f"  gdb:     gdb -ex 'target remote {guest.gdb}'\n"
                f"  monitor: socat - UNIX-CONNECT:{guest.console}\n"
                "Ctrl-C ends it",
                flush=True,
            )
            cancelled.wait()
    return int(ExitCode.PASS)


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
