# SPDX-License-Identifier: Apache-2.0
"""`testbed nightly`."""

from __future__ import annotations

import argparse
import os
import re
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.cli import engines, output
from testbed.cli.parser import Options, count, verb
from testbed.cli.run import cancel_on_signal, desk, listen
from testbed.report import Listener

if TYPE_CHECKING:
    from testbed.cli.parser import Verbs
    from testbed.image import Image
    from testbed.nightly import Document

EXAMPLES = """\
  testbed nightly --budget 6h                      what a night of six hours has time for
  testbed nightly --topology two-llcs two-nodes    everybody on these machines too
  testbed nightly --kernel debian:7.2              the corpus on this kernel too (default: all that were fetched)
  testbed nightly --image 51d17d2d                 the corpus on another image of the cache as well
  testbed nightly --issue-file issue.md            an issue's text per regression: issue.md, issue-2.md, …
"""
_DURATION = re.compile(r"([1-9][0-9]{0,5})(s|min|h)")
_SECONDS = {"s": 1, "min": 60, "h": 3600}


def add(verbs: Verbs) -> None:
    """Add the verb."""
    summary = "judge the corpus and the installed schedulers, and compare with the nights before"
    parser = verb(verbs, "nightly", summary, nightly, EXAMPLES)
    parser.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="the corpus (default: bpf/ of the clone)")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="names that have one of them in it")
    parser.add_argument("--policy", default="default", help="at least this one; a header may ask for more")
    parser.add_argument(
        "--seeds", type=count(0, 100), default=2, metavar="N", help="new orders of events for each (default: 2)"
    )
    parser.add_argument(
        "--topology", nargs="+", default=[], dest="machines", metavar="NAME", help="on each of these machines too"
    )
    parser.add_argument(
        "--image", nargs="+", default=[], dest="images", metavar="ID", help="on each of these images too"
    )
    parser.add_argument(
        "--kernel", nargs="+", dest="kernels", metavar="WHAT", help="on each of these too; `image`: on its own alone"
    )
    parser.add_argument("--no-installed", action="store_true", help="leave out the `scx_*` on PATH")
    parser.add_argument("--budget", type=_duration, metavar="DURATION", help="e.g. 6h, 90min; what is left is named")
    engines.add(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="of all nights; one that was killed goes on")
    parser.add_argument("--history", type=Path, metavar="FILE", help="default: history.sqlite of --out")
    parser.add_argument("--issue-file", type=Path, metavar="FILE", help="a text per regression; none: no file")
    parser.add_argument("--no-cache", action="store_true", help="run again what was run before")
    output.add_format(parser, "text (default), json, markdown, html")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what the guests say")


def nightly(options: Options) -> int:
    """Judge everybody, compare, report."""
    from testbed import cases, corpus, trial
    from testbed import image as images
    from testbed import nightly as nights
    from testbed.image import schedulers
    from testbed.nightly.document import PAGE
    from testbed.report import nightly as report

    formats = output.known_formats(options.format, report.FORMATS, "a night")
    engines.check(options)
    members = corpus.members(options.folder or corpus.usual_folder())
    places = [Path(one) for one in os.environ.get("PATH", "").split(os.pathsep) if one]
    made = schedulers.directory()
    places += [made / "bin"] if made is not None else []
    directory = options.out or cases.directory().parent / "nightly"
    settings = nights.Settings(
        policy=options.policy,
        seeds=options.seeds,
        machines=tuple(options.machines),
        only=tuple(options.only),
        cache=not options.no_cache,
        budget_s=options.budget,
    )
    named = [images.load(one) for one in options.images]
    with ExitStack() as stack:
        history = stack.enter_context(nights.History.open(options.history or directory / "history.sqlite"))
        listener = listen((), options.verbose, stack)
        usual = images.ensure(listener)
        cluster = stack.enter_context(engines.cluster(options, listener))
        stop = threading.Event()
        cancel_on_signal(stop)
        session = nights.Session(
            members,
            () if options.no_installed else nights.installed(places, members),
            replace(settings, jobs=engines.jobs(options, cluster)),
            directory,
            history,
            [usual, *(one for one in named if one.id != usual.id)],
            lambda image: lambda request: trial.hold(request, replace(desk(image, listener, cluster), cancelled=stop)),
            listener,
            datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"),
            stop,
            images.list_images,
            _kernels(options.kernels, listener, {one.id for one in (usual, *named)}),
        )
        document = session.run()
    output.write(session.folder(document.night) / PAGE, report.render(document, "html"))
    output.put(formats, lambda one: report.render(document, one.name))
    if options.issue_file is not None:
        _write_issues(options.issue_file, document)
    print(f"night: {session.folder(document.night)}", file=sys.stderr)
    return document.exit_code


def _kernels(words: list[str] | None, listener: Listener, known: set[str]) -> dict[str, Image]:
    """The image with each kernel that was asked for, else with the newest of each series that was fetched."""
    from testbed import image as images
    from testbed.image import kernels

    if words is None:
        words = [one.facts.word for one in kernels.kept()]
        if not words:
            told = "only the image's own kernel is judged on: `testbed image kernel` fetches a second one"
            print(f"note: {told}", file=sys.stderr)
    made = {word: images.with_kernel(word, listener) for word in dict.fromkeys(words)}
    return {word: image for word, image in made.items() if image.id not in known}


def _duration(text: str) -> float:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected a duration such as 90min or 6h, found `{text}`")
    return float(int(found[1]) * _SECONDS[found[2]])


def _write_issues(file: Path, document: Document) -> None:
    """FILE for the first regression, FILE-2 for the second; what an earlier night left there goes."""
    from testbed.report import nightly as report

    worse = [one for one in document.changes if one.worse]
    numbered = re.compile(rf"{re.escape(file.stem)}(-[0-9]+)?{re.escape(file.suffix)}")
    for old in file.parent.glob("*") if file.parent.is_dir() else ():
        if numbered.fullmatch(old.name) and old.is_file():
            old.unlink()
    for number, change in enumerate(worse, start=1):
        place = file if number == 1 else file.with_name(f"{file.stem}-{number}{file.suffix}")
        output.write(place, report.issue(change, document))
