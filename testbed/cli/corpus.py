# SPDX-License-Identifier: Apache-2.0
"""`testbed corpus`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.cli import engines, output
from testbed.cli.parser import Options, count, verb
from testbed.cli.run import cancel_on_signal, desk, listen
from testbed.errors import ExitCode

if TYPE_CHECKING:
    from testbed.cli.parser import Verbs
    from testbed.corpus import Task

EXAMPLES = """\
  testbed corpus                                   every scheduler of bpf/, by policy default
  testbed corpus --policy quick --out corpus       what is in `corpus` already is read, not run again
  testbed corpus --only lifo fifo                  those whose name has one of these words in it
  testbed corpus --good --seeds 10 --topology two four two-llcs   is a good one ever rejected?
  testbed corpus --format json=bpf/catch-rate/default.json   what README and the reference are made of
"""


def add(verbs: Verbs) -> None:
    """Add the verb."""
    summary = "judge schedulers of which the right verdict is known, and count"
    parser = verb(verbs, "corpus", summary, corpus, EXAMPLES)
    parser.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="the corpus (default: bpf/ of the clone)")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="names that have one of them in it")
    parser.add_argument("--set", dest="origin", choices=["tuned", "blind", "kernel"], help="only this part")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--good", action="store_true", help="only those that must pass")
    kinds.add_argument("--bad", action="store_true", help="only those that must be rejected")
    parser.add_argument("--policy", default="default", help="who needs a larger one is not run (default: default)")
    parser.add_argument("--seeds", type=count(1, 1000), metavar="N", help="orders of events, instead of the policy's")
    parser.add_argument(
        "--topology", nargs="+", default=[], dest="machines", metavar="NAME", help="on each of these machines"
    )
    engines.add(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="of the cases; what was begun there goes on")
    parser.add_argument("--dry-run", action="store_true", help="check the headers, say what would be judged")
    parser.add_argument("--no-run", action="store_true", help="tell what was judged before, judge nothing")
    parser.add_argument("--no-cache", action="store_true", help="run again what was run before")
    output.add_format(parser, "text (default), json, markdown")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what the guests say")


def corpus(options: Options) -> int:
    """Judge the corpus."""
    from testbed import cases, trial
    from testbed import corpus as corpora
    from testbed import image as images
    from testbed.report import corpus as report

    formats = output.known_formats(options.format, report.FORMATS, "the corpus")
    engines.check(options)
    settings = corpora.Settings(
        policy=options.policy,
        seeds=options.seeds,
        machines=tuple(options.machines),
        only=tuple(options.only),
        cache=not options.no_cache,
        judge=not options.no_run,
    )
    chosen = [
        one
        for one in corpora.members(options.folder or corpora.usual_folder())
        if options.origin in (None, one.origin)
        and not (options.good and not one.good)
        and not (options.bad and one.good)
    ]
    tasks = corpora.tasks(chosen, settings)
    if options.dry_run:
        for task in tasks:
            print(_plan(task))
        return int(ExitCode.PASS)
    directory = options.out or cases.directory().parent / "corpus"
    with ExitStack() as stack:
        listener = listen((), options.verbose, stack)
        image = images.ensure(listener)
        cluster = stack.enter_context(engines.cluster(options, listener))
        settings = replace(settings, jobs=engines.jobs(options, cluster))
        work = desk(image, listener, cluster)
        cancel_on_signal(work.cancelled)
        session = corpora.Session(
            tasks, settings, directory, image, lambda request: trial.hold(request, work), listener, work.cancelled
        )
        document = session.run()
    output.put(formats, lambda one: report.render(document, one.name))
    print(f"corpus: {directory}", file=sys.stderr)
    return document.exit_code


def _plan(task: Task) -> str:
    """What would be asked about one scheduler, in a line."""
    row = task.row
    parts = [f"{row.origin:6}", f"{'good' if row.good else row.failure_class:14}", f"{row.name:28}", row.policy]
    parts += [f"only {row.scenario}"] if row.scenario else []
    parts += [f"{row.seeds} seeds"] if row.seeds else []
    parts += [f"on {row.machine}"] if row.machine else []
    parts += [f"not run: {row.reason}"] if row.reason else []
    return " ".join(parts)
