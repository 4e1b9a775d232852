# SPDX-License-Identifier: Apache-2.0
"""`testbed run` and `testbed build`."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TextIO

from testbed.cli import engines, output
from testbed.cli.parser import Options, Parser, count, verb
from testbed.errors import ExitCode, UsageError
from testbed.report import (
    Event,
    Format,
    Heartbeat,
    JsonLines,
    Listener,
    TextProgress,
    VerdictReached,
    defused,
    harmless,
    parse_formats,
    printed,
    render,
    want_colour,
)
from testbed.status import Status

if TYPE_CHECKING:
    from testbed.case import LiveProbe
    from testbed.cli.parser import Verbs
    from testbed.engine.dask import Cluster
    from testbed.image import Image
    from testbed.trial import Desk
    from testbed.verdict import Verdict
    from testbed.vm.guest import Boot, Guest

_SAME_SIGNAL_S = 1.0
"""Signals that are closer together say one thing."""

RUN_EXAMPLES = """\
  testbed run my.bpf.c                        compile it, run it in guests, judge it
  testbed run my.bpf.c --policy quick         safety only, the shortest road to an answer
  testbed run my.bpf.c -k stall               only the scenarios whose name matches
  testbed run -- scx_simple                   one of the kernel's example schedulers
  testbed run -- scx_bpfland --slice-us 5000  an installed scheduler with its options
  testbed run my.bpf.c --baseline old.bpf.c   figures against another scheduler, safety against EEVDF
  testbed run my.bpf.c --workload build.yaml  your own workload beside EEVDF: it must not get worse
  testbed run my.bpf.c --kernel host          on the kernel that runs here: bzImage and modules of this machine
  testbed run my.bpf.c --format json          one JSON document on stdout
"""
BUILD_EXAMPLES = """\
  testbed build my.bpf.c --out built          compile and look at it, run nothing
"""


def add(verbs: Verbs) -> None:
    """Add the verbs."""
    parser = verb(verbs, "run", "judge a candidate in guests", run, RUN_EXAMPLES)
    parser.usage = "testbed run CANDIDATE [OPTION]…\n       testbed run [OPTION]… -- PROGRAM [ARG]…"
    _add_candidate(parser)
    parser.add_argument("--policy", default="default", help="what to demand: quick, default, full, or a file")
    parser.add_argument(
        "--baseline",
        default="eevdf",
        metavar="WHAT",
        help="what figures are compared with: eevdf (default), a `.bpf.c` or `.bpf.o`, a program, or a case",
    )
    parser.add_argument("-k", dest="pattern", metavar="PATTERN", help="only scenarios whose name matches")
    parser.add_argument("--clock", choices=["sim", "live", "both"], help="default: both where KVM works, else sim")
    parser.add_argument("--seeds", type=count(1, 1000), metavar="N", help="orders of events, instead of the policy's")
    parser.add_argument("--schbench", type=Path, metavar="FILE", help="run this schbench (default: on PATH, else ours)")
    parser.add_argument("--workload", type=Path, metavar="FILE", help="your own workload: docs/guides/workload.md")
    parser.add_argument("--regressions", type=Path, metavar="FILE", help="run these first (`testbed minimize --add`)")
    parser.add_argument("--cpus", type=count(1, 64), metavar="N", help="vCPUs, instead of the scenarios' own")
    parser.add_argument(
        "--topology", metavar="NAME", help="machine, instead of the scenarios' own (`testbed scenarios --topologies`)"
    )
    parser.add_argument("--all", action="store_true", dest="run_all", help="go on after the first failure")
    engines.add(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="the case's directory, new or empty")
    parser.add_argument("--dry-run", action="store_true", help="print the commands that would be run, run nothing")
    parser.add_argument("--no-cache", action="store_true", help="run again what was run before")
    parser.add_argument("--keep", action="store_true", help="`cases prune` leaves this case alone")
    add_formats(parser)
    parser = verb(verbs, "build", "compile a candidate and look at what came out", build, BUILD_EXAMPLES)
    _add_candidate(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep object and log in DIR, new or empty")


def _add_candidate(parser: Parser) -> None:
    parser.add_argument("candidate", nargs="?", metavar="CANDIDATE", help="a `.bpf.c` or a compiled `.bpf.o`")
    add_kernel(parser)


def add_kernel(parser: Parser) -> None:
    """`--kernel`, for every verb that builds for a guest's kernel."""
    parser.add_argument(
        "--kernel",
        metavar="WHAT",
        help="image (default), host, debian:VERSION, or a bzImage, directory or `.deb`: docs/guides/kernels.md",
    )


def add_formats(parser: Parser) -> None:
    """`--format` and `-v`, for every verb that ends in a verdict."""
    output.add_format(parser, "text (default), json, jsonl, html, markdown, github, junit, sarif")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what the guests say")


def given_candidate(options: Options) -> str | tuple[str, ...]:
    """The one candidate that the command line names.

    Raises:
        UsageError: it names none, or two.
    """
    candidate: str | None = options.candidate
    if (candidate is None) == (options.program is None):
        raise UsageError(
            "expected one candidate: a file, or a program behind `--`",
            hint="testbed run my.bpf.c, or testbed run -- scx_simple",
        )
    return candidate if candidate is not None else options.program or ()


def run(options: Options) -> int:
    """Judge a candidate."""
    from testbed import image as images
    from testbed import trial
    from testbed.topology import wanted

    request = trial.Request(
        candidate=given_candidate(options),
        policy=options.policy,
        clock=options.clock,
        pattern=options.pattern,
        machine=wanted(options.topology, options.cpus),
        run_all=options.run_all,
        out=options.out,
        keep=options.keep,
        cache=not options.no_cache,
        seeds=options.seeds,
        schbench=options.schbench,
        workload=options.workload,
        baseline=options.baseline,
        regressions=options.regressions,
    )
    formats = parse_formats(options.format)
    engines.check(options)
    trial.check(request)
    with ExitStack() as stack:
        listener = listen(formats, options.verbose, stack)
        image = images.with_kernel(options.kernel, listener)
        if options.dry_run:
            for title, command in trial.rehearse(request, image):
                print(f"# {title}\n{command}")
            return int(ExitCode.PASS)
        cluster = stack.enter_context(engines.cluster(options, listener))
        work = desk(image, listener, cluster)
        cancel_on_signal(work.cancelled)
        _keep_alive(listener, stack)
        result = trial.hold(replace(request, jobs=engines.jobs(options, cluster)), work)
        document = printed(result.verdict, case_dir=str(result.case), elapsed_s=result.elapsed_s)
        listener(VerdictReached(verdict=document))
    path = request.candidate if isinstance(request.candidate, str) else ""
    kernel = options.kernel if options.kernel != images.IMAGE_KERNEL else None
    return print_verdict(result.verdict, formats, result.case, result.elapsed_s, path, request.policy, kernel or "")


def build(options: Options) -> int:
    """Compile a candidate, print what was found."""
    from testbed import image as images
    from testbed import trial

    with ExitStack() as stack:
        listener = listen((), verbose=False, stack=stack)
        image = images.with_kernel(options.kernel, listener)
        artifact = trial.build_only(given_candidate(options), image, options.out, listener)
    for finding in artifact.findings:
        if finding.status is Status.DONE:
            continue  # `testbed lint` shows advice
        lines = [f"{finding.code}: {finding.title}", *finding.message.splitlines(), f"hint: {finding.hint}", ""]
        print(defused("\n".join(harmless(line) for line in lines)))
    facts = artifact.candidate
    print(f"{facts.name}: {facts.ops_name or facts.kind}, sha256 {facts.sha256}")
    for program in facts.programs:
        print(f"  {program.section:40} {program.instructions} instructions")
    return int(ExitCode.PASS if artifact.ok else ExitCode.REJECT)


def desk(image: Image, listener: Listener, cluster: Cluster | None = None) -> Desk:
    """What a trial on real guests needs, here or on a cluster."""
    from testbed import trial
    from testbed.vm import snapshot

    if cluster is not None:
        return trial.Desk(image, listener, make_guest, _not_on_a_cluster, engine=cluster.engine)
    return trial.Desk(image, listener, make_guest, _probe, prepare=snapshot.prepare)


def make_guest(boot: Boot) -> Guest:
    """The machine for a spec's clock."""
    from testbed.spec import Clock
    from testbed.vm.live import LiveGuest
    from testbed.vm.sim import SimGuest

    return SimGuest(boot) if boot.spec.clock is Clock.SIM else LiveGuest(boot)


def _not_on_a_cluster(image: Image) -> LiveProbe:
    from testbed.case import LiveProbe

    return LiveProbe(available=False, reason="the runs are on a cluster; live figures are those of one machine")


def _probe(image: Image) -> LiveProbe:
    from testbed.vm.probe import probe

    return probe(image)


def cancel_on_signal(cancelled: threading.Event) -> None:
    """The first signal ends the work cleanly, one more at once, if it comes when the first may have been heard.

    A handler runs in the midst of whatever the main thread does, `cancelled.wait()` or itself among that, so it takes
    no lock: `cancelled` is set by a thread that it wakes. Two signals at the same time are one: `timeout` sends it to
    the tool and to its group.
    """
    heard, wake = os.pipe()
    asked: list[float] = []

    def handler(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not asked:
            asked.append(now)
            os.write(wake, b"!")
        elif now - asked[0] >= _SAME_SIGNAL_S:
            signal.default_int_handler(number, frame)

    def set_event() -> None:
        os.read(heard, 1)
        cancelled.set()

    threading.Thread(target=set_event, name="signals", daemon=True).start()
    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)


def _keep_alive(listener: Listener, stack: ExitStack) -> None:
    """Tell once a second that the work goes on, so that nobody has to guess."""
    ended = threading.Event()

    def beat() -> None:
        seconds = 0
        while not ended.wait(1.0):
            seconds += 1
            listener(Heartbeat(stage="trial", elapsed_s=float(seconds)))

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    stack.callback(thread.join)
    stack.callback(ended.set)


def listen(formats: Sequence[Format], verbose: bool, stack: ExitStack) -> Listener:
    """Everybody who wants to hear what happens: the screen, and the event stream where it was asked for."""
    listeners: list[Callable[[Event], None]] = []
    for one in formats:
        if one.name == "jsonl":
            stream = sys.stdout if one.path is None else stack.enter_context(_create(one.path))
            listeners.append(JsonLines(stream))
    listeners.append(TextProgress(sys.stderr, verbose=verbose))
    lock = threading.Lock()

    def tell(event: Event) -> None:
        with lock:
            for listener in listeners:
                listener(event)

    return tell


def _create(path: Path) -> TextIO:
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"`{path}` can't be written: {(error.strerror or '').lower()}") from error


def print_verdict(
    verdict: Verdict,
    formats: Sequence[Format],
    case: Path,
    elapsed_s: float,
    path: str = "",
    policy: str = "",
    kernel: str = "",
) -> int:
    """Write the verdict in every format that was asked for; returns the exit code.

    Args:
        path: the candidate as the user named it, where it is a file.
        policy: the policy as the user named it.
        kernel: the kernel as the user named it; empty: the image's own.
    """
    width = shutil.get_terminal_size((100, 24)).columns

    def rendered(one: Format) -> str:
        return render(
            verdict,
            one.name,
            case_dir=str(case),
            elapsed_s=elapsed_s,
            colour=one.path is None and want_colour(sys.stdout),
            width=width,
            path=path,
            policy=policy,
            kernel=kernel,
        )

    # The listener wrote `jsonl` as it happened.
    output.put([one for one in formats if one.name != "jsonl"], rendered)
    return verdict.exit_code
