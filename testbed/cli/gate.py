# SPDX-License-Identifier: Apache-2.0
"""`testbed gate` and `testbed merge`."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.cli import engines, output
from testbed.cli.parser import Options, count, verb
from testbed.cli.run import cancel_on_signal, desk, listen, make_guest
from testbed.errors import ExitCode, Interrupted, UsageError
from testbed.report import Format, harmless, want_colour

if TYPE_CHECKING:
    import threading

    from testbed.cli.parser import Parser, Verbs
    from testbed.gate import Config, Document, Settings, Survey
    from testbed.report import Listener
    from testbed.trial import Request, Result

GATE_EXAMPLES = """\
  testbed gate                                  judge every candidate of this repository
  testbed gate --changed-since origin/main      only those that differ from there, includes followed
  testbed gate sched/ --policy quick            only what is below sched/
  testbed gate --kernel image --kernel debian:7.2
                                                each of them on two kernels
  testbed gate --dry-run                        say what would be judged
  testbed gate --shard 2/3 --out shard-2        the second third, for `testbed merge`
"""
MERGE_EXAMPLES = """\
  testbed merge shard-1 shard-2 shard-3         one answer; a missing shard is never a pass
"""


def add(verbs: Verbs) -> None:
    """Add the verbs."""
    parser = verb(verbs, "gate", "judge the changed candidates of a repository", gate, GATE_EXAMPLES)
    parser.add_argument("paths", nargs="*", metavar="PATH", help="files or directories (default: the repository)")
    parser.add_argument("--changed-since", metavar="REF", help="leave alone what is as it was where HEAD and REF part")
    parser.add_argument("--config", type=Path, metavar="FILE", help="default: testbed.yaml at the repository's root")
    parser.add_argument("--policy", help="instead of the configuration's")
    parser.add_argument("-k", dest="pattern", metavar="PATTERN", help="only scenarios whose name matches")
    parser.add_argument("--clock", choices=["sim", "live", "both"], help="instead of the configuration's")
    parser.add_argument("--cpus", type=count(1, 64), metavar="N", help="vCPUs, instead of the scenarios' own")
    parser.add_argument("--seeds", type=count(1, 1000), metavar="N", help="orders of events, instead of the policy's")
    parser.add_argument(
        "--regressions", type=Path, metavar="FILE", help="run these first, instead of the configuration's"
    )
    parser.add_argument(
        "--workload", type=Path, metavar="FILE", help="your own workload, instead of the configuration's"
    )
    parser.add_argument(
        "--kernel", action="append", dest="kernels", metavar="WHAT", help="as `run --kernel`; more than once: on each"
    )
    parser.add_argument("--base-verdicts", type=Path, metavar="DIR|FILE", help="a gate of the base, to compare with")
    parser.add_argument("--fail-on", choices=["any", "regression"], default="any", help="default: any")
    parser.add_argument("--shard", type=_shard, metavar="I/N", help="judge every N-th candidate only, from the I-th on")
    parser.add_argument("--allow-empty", action="store_true", help="a repository without candidates is no error")
    parser.add_argument("--all", action="store_true", dest="run_all", help="go on after a candidate's first failure")
    engines.add(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="of the gate; one that was begun there goes on")
    parser.add_argument("--artifacts", type=Path, metavar="DIR", help="pages, pictures and runs of who failed")
    parser.add_argument(
        "--minimize", type=count(1, 1000), metavar="TRIALS", help="for --artifacts: shrink each failing run, at most so"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be judged, judge nothing")
    parser.add_argument("--no-cache", action="store_true", help="run again what was run before")
    _add_formats(parser)
    parser = verb(verbs, "merge", "put the shards of a gate together", merge, MERGE_EXAMPLES)
    parser.add_argument("shards", nargs="+", type=Path, metavar="DIR|FILE", help="what `gate --shard` left")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the document there")
    _add_formats(parser)


def _add_formats(parser: Parser) -> None:
    output.add_format(parser, "text (default), json, markdown, github, junit, sarif")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what the guests say")


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text, re.ASCII)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"expected I/N with I from 1 to N, found `{text}`")
    return int(found[1]), int(found[2])


def gate(options: Options) -> int:
    """Judge the changed candidates of the repository around the working directory."""
    from testbed import gate as gates
    from testbed import image as images
    from testbed import trial
    from testbed.gate import artifacts
    from testbed.gate import document as documents
    from testbed.report import gate as report

    formats = output.known_formats(options.format, report.FORMATS, "a gate")
    engines.check(options)
    if options.minimize is not None and options.artifacts is None:
        raise UsageError("`--minimize` is for `--artifacts`", hint="testbed minimize CASE shrinks one run")
    if options.artifacts is not None:
        artifacts.check(options.artifacts)
    config, file = _config(options)
    survey = gates.survey(Path.cwd(), options.paths, config, file, options.changed_since)
    if not survey.found and not options.allow_empty:
        raise UsageError(
            "no candidates found", hint="see `files` of testbed.yaml, or say --allow-empty if there may be none"
        )
    settings = _settings(options, config)
    base = documents.read(options.base_verdicts) if options.base_verdicts is not None else None
    if options.dry_run:
        return _rehearse(survey, settings)
    directory = options.out or _new_directory()
    with ExitStack() as stack:
        listener = listen((), options.verbose, stack)
        session = gates.Session(survey, settings, directory, _no_trial, listener, base=base)
        if survey.changed:
            cluster = stack.enter_context(engines.cluster(options, listener))
            work = desk(images.ensure(listener), listener, cluster)
            cancel_on_signal(work.cancelled)
            desks = {
                word: replace(work, image=images.with_kernel(_place(word, options, file), listener)) if word else work
                for word in settings.kernels
            }
            session = replace(
                session,
                settings=replace(settings, jobs=engines.jobs(options, cluster)),
                trial=lambda request, word: trial.hold(request, desks[word]),
                image=trial.image_facts(work.image),
                kernels={word: trial.image_facts(one.image) for word, one in desks.items() if word},
                stop=work.cancelled,
            )
        document = session.run()
        if options.artifacts is not None:
            _hand_on(document, directory, options, listener, session.stop)
    _print(document, formats)
    print(f"gate: {directory}", file=sys.stderr)
    return document.exit_code


def merge(options: Options) -> int:
    """Put shards together."""
    from testbed import gate as gates
    from testbed.case import write_model
    from testbed.gate import document as documents
    from testbed.report import gate as report

    formats = output.known_formats(options.format, report.FORMATS, "a gate")
    merged = gates.merge([documents.read(path) for path in options.shards])
    if options.out is not None:
        write_model(options.out, merged)
    _print(merged, formats)
    return merged.exit_code


def _hand_on(document: Document, directory: Path, options: Options, listener: Listener, stop: threading.Event) -> None:
    """Write what is handed on about candidates that did not pass; an interrupted gate shrinks nothing."""
    from testbed import minimize
    from testbed.gate import artifacts

    def shrink(target: minimize.Target) -> object:
        jobs = options.jobs or os.cpu_count() or 1
        return minimize.minimize(
            target, guest=make_guest, listener=listener, cancelled=stop, trials=options.minimize, jobs=jobs
        )

    wanted = options.minimize is not None and not stop.is_set()
    try:
        artifacts.collect(document, directory, options.artifacts, shrink=shrink if wanted else None)
    except Interrupted:  # nothing is written before all is there
        artifacts.collect(document, directory, options.artifacts)


def _no_trial(request: Request, kernel: str) -> Result:
    raise UsageError("nothing was to be judged")


def _place(word: str, options: Options, file: Path | None) -> str:
    """The kernel that a word means: a path of the configuration begins at its folder."""
    from testbed.image import is_path

    return str(file.parent / word) if file is not None and options.kernels is None and is_path(word) else word


def _config(options: Options) -> tuple[Config, Path | None]:
    from testbed.gate import config as configs
    from testbed.gate.git import Repository

    file: Path | None = options.config
    if file is None:
        repository = Repository.around(Path.cwd())
        usual = (repository.root if repository is not None else Path.cwd()) / configs.FILE
        if not usual.is_file():
            return configs.default(), None
        file = usual
    return configs.load(file.absolute()), file.absolute()


def _settings(options: Options, config: Config) -> Settings:
    from testbed import policy, regressions, workload
    from testbed.gate import session
    from testbed.plan import select

    settings = session.Settings(
        policy=options.policy or config.policy,
        scenarios=options.pattern or config.scenarios,
        clock=options.clock or config.clock,
        cpus=options.cpus or config.cpus,
        seeds=options.seeds or config.seeds,
        cache=not options.no_cache,
        regressions=options.regressions or (Path(config.regressions) if config.regressions is not None else None),
        workload=options.workload or (Path(config.workload) if config.workload is not None else None),
        run_all=options.run_all,
        kernels=_kernels(options.kernels or config.kernels),
        fail_on=options.fail_on,
        shard=options.shard,
    )
    given, data = policy.load(settings.policy)
    found = regressions.load(settings.regressions) if settings.regressions is not None else None
    own = workload.load(settings.workload) if settings.workload is not None else None
    demanded, data, _ = regressions.demanded(given, data, found, None)
    demanded, _ = workload.demanded(demanded, data, own)
    select([demand.name for demand in demanded.scenarios], settings.scenarios)
    return settings


def _kernels(words: Sequence[str]) -> tuple[str, ...]:
    """Each once; the image's own is the empty word."""
    from testbed.image import IMAGE_KERNEL

    return tuple(dict.fromkeys("" if word == IMAGE_KERNEL else word for word in words)) or ("",)


def _rehearse(survey: Survey, settings: Settings) -> int:
    """What would be judged, a candidate a line."""
    from testbed.gate.session import mine, pairs

    everything = pairs(survey.found, settings.kernels)
    own = mine([index for index, (one, _) in enumerate(everything) if one.changed], settings.shard)
    for index, (one, kernel) in enumerate(everything):
        word = "judge" if index in own else "elsewhere" if one.changed else "unchanged"
        trouble = f": {harmless(one.trouble)}" if one.trouble else ""
        where = f" on {harmless(kernel)}" if kernel else ""
        print(f"{word:9} {harmless(one.path)}{where}{trouble}")
    for path in survey.deleted:
        print(f"gone      {harmless(path)}")
    for note in survey.notes:
        print(f"note: {harmless(note)}", file=sys.stderr)
    return int(ExitCode.PASS)


def _new_directory() -> Path:
    from testbed import cases

    folder = cases.directory().parent / "gates"
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return Path(tempfile.mkdtemp(prefix=f"gate-{now}-", dir=folder))


def _print(document: Document, formats: Sequence[Format]) -> None:
    from testbed.report import gate as report

    width = shutil.get_terminal_size((100, 24)).columns

    def rendered(one: Format) -> str:
        colour = one.path is None and want_colour(sys.stdout)
        return report.render(document, one.name, colour=colour, width=width)

    output.put(formats, rendered)
