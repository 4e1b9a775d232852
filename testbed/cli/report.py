# SPDX-License-Identifier: Apache-2.0
"""`testbed report`."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.cli.parser import Options, verb
from testbed.errors import ExitCode, HostError, UsageError

if TYPE_CHECKING:
    from testbed.case import Case, RunEvidence
    from testbed.cli.parser import Verbs

EXAMPLES = """\
  testbed report CASE --open                       explain a verdict in the browser
  testbed report CASE --output report.html         one file that needs nothing else
  testbed report CASE --timeline failure.svg       only the picture: who ran where around the failure
  testbed report CASE/runs/000 --timeline eevdf.svg   the picture of one run, a baseline's for instance
"""
REPORT_FILE = "report.html"


def add(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verb(verbs, "report", "explain a case in one HTML page with pictures", report, EXAMPLES)
    parser.add_argument("place", metavar="RUN|CASE", help="a case (directory, or name in the list), or one of its runs")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help=f"where the page goes (default: {REPORT_FILE} in the case)"
    )
    parser.add_argument("--open", action="store_true", help="and show it in the browser")
    parser.add_argument("--timeline", type=Path, metavar="FILE", help="write only the picture of who ran where, as SVG")


def report(options: Options) -> int:
    """Write the page, or a picture; whatever the verdict, the exit code is 0."""
    from testbed import judge as judges
    from testbed.report import html, printed

    case, run = _find(options.place)
    verdict = case.verdict or judges.judge(case)
    if options.timeline is not None:
        if options.open or options.output is not None:
            raise UsageError("`--timeline` writes a picture and no page", hint="leave `--open` and `--output` out")
        place = (run, None) if run is not None else html.failing_run(case, verdict.findings)
        if place is None:
            raise UsageError("the case has no run of its candidate", hint="see the build's findings in the verdict")
        _write(options.timeline, "--timeline", html.picture(*place))
        print(options.timeline)
        return int(ExitCode.PASS)
    if run is not None:
        raise UsageError("a page is about a whole case", hint=f"testbed report {case.path}, or --timeline FILE")
    output = options.output or case.path / REPORT_FILE
    _write(output, "--output", html.render(printed(verdict, case_dir=str(case.path), elapsed_s=None), case))
    print(output)
    if options.open and not webbrowser.open(output.resolve().as_uri()):
        raise HostError("no browser was found", hint=f"open {output} yourself")
    return int(ExitCode.PASS)


def _find(name: str) -> tuple[Case, RunEvidence | None]:
    """A case, or a case and its run."""
    from testbed import cases
    from testbed.case import OUTCOME_FILE, RUNS_DIR, Case

    place = Path(name)
    if place.parent.name == RUNS_DIR and (place / OUTCOME_FILE).is_file():
        case = Case.open(place.parent.parent)
        return case, next((run for run in case.runs if run.spec.name == place.name), None)
    return Case.open(cases.find(name)), None


def _write(path: Path, option: str, text: str) -> None:
    from testbed.case import write_atomic

    try:
        write_atomic(path, text)
    except OSError as error:
        raise UsageError(f"`{option} {path}` can't be written: {(error.strerror or '').lower()}") from error
