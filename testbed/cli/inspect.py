# SPDX-License-Identifier: Apache-2.0
"""Verbs that only read: `judge`, `explain`, `scenarios`, `cases`."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.cli.parser import Options, add_json, verb
from testbed.cli.run import add_formats, print_verdict
from testbed.data import data_directory
from testbed.errors import ExitCode, UsageError
from testbed.report import parse_formats

if TYPE_CHECKING:
    from testbed.cli.parser import Verbs

JUDGE_EXAMPLES = """\
  testbed judge CASE                  judge the evidence again: the same bytes as verdict.json
  testbed judge CASE --policy full    the same evidence by another policy
"""


def add(verbs: Verbs) -> None:
    """Add the verbs."""
    parser = verb(verbs, "judge", "judge a case again from its evidence", judge, JUDGE_EXAMPLES)
    parser.add_argument("case", type=Path, metavar="CASE", help="a case's directory")
    parser.add_argument("--policy", help="judge by another policy; verdict.json stays as it is")
    add_formats(parser)

    parser = verb(verbs, "explain", "say what a finding's code means and how to mend it", explain)
    parser.add_argument("code", nargs="?", metavar="CODE", help="as in a verdict; without it, all of them")
    add_json(parser)

    parser = verb(verbs, "scenarios", "list what a scheduler is put through", scenarios)
    parser.add_argument("name", nargs="?", metavar="NAME", help="show one scenario with its steps")
    parser.add_argument("--topologies", action="store_true", help="list the machines that `--topology` knows instead")
    add_json(parser)

    parser = verb(verbs, "cases", "list, show and remove cases")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = verb(actions, "list", "list all cases, newest last", cases_list)
    add_json(listing)
    show = verb(actions, "show", "print a case's verdict", cases_show)
    show.add_argument("case", metavar="CASE", help="a directory, or the name of one in the list")
    add_formats(show)
    prune = verb(actions, "prune", "remove cases that nobody asked to keep", cases_prune)
    prune.add_argument("--older-than", type=float, default=30.0, metavar="DAYS", help="default: 30")
    prune.add_argument("--dry-run", action="store_true", help="only say what would be removed")


def judge(options: Options) -> int:
    """Judge a case again; without another policy the file in the case must come out the same."""
    from testbed import judge as judges
    from testbed import policy as policies
    from testbed.case import Case

    started = time.monotonic()
    formats = parse_formats(options.format)
    case = Case.open(options.case)
    if options.policy is None:
        verdict = judges.judge(case)
        if case.verdict is None:
            judges.write_verdict(case.path, verdict)
        elif case.verdict != verdict:
            print("note: the verdict in the case was made by other rules; it is left as it is", file=sys.stderr)
    else:
        policy, data = policies.load(options.policy)
        verdict = judges.judge(case, policy, data)
    return print_verdict(verdict, formats, case.path, time.monotonic() - started)


def explain(options: Options) -> int:
    """Explain a code."""
    from testbed.judge import catalogue

    if options.code is None:
        entries = [catalogue.explain(code) for code in sorted(catalogue.ALL)]
        if options.json:
            print(json.dumps([asdict(entry) for entry in entries], indent=2))
        else:
            for entry in entries:
                print(f"{entry.code:26} {entry.title}")
        return int(ExitCode.PASS)
    entry = catalogue.explain(options.code)
    print(json.dumps(asdict(entry), indent=2) if options.json else catalogue.text(entry))
    return int(ExitCode.PASS)


def scenarios(options: Options) -> int:
    """List the scenarios, or the machines."""
    from testbed import scenario

    if options.topologies:
        return _topologies(options)
    known = scenario.load_all()
    if options.name is not None:
        if options.name not in known:
            raise UsageError(f"there is no scenario `{options.name}`", hint=f"there are {', '.join(sorted(known))}")
        known = {options.name: known[options.name]}
    if options.json:
        print(json.dumps([one.model_dump(mode="json", by_alias=True) for one in known.values()], indent=2))
    elif options.name is not None:
        sys.stdout.write((data_directory("scenarios") / f"{options.name}.yaml").read_text("utf-8"))
    else:
        for one in known.values():
            print(f"{one.name:18} {one.title}")
    return int(ExitCode.PASS)


def _topologies(options: Options) -> int:
    from testbed.topology import PRESETS

    if options.name is not None:
        raise UsageError("a scenario's name and `--topologies` exclude each other", hint="leave one of them out")
    if options.json:
        print(json.dumps({name: one.model_dump(mode="json") for name, one in PRESETS.items()}, indent=2))
    else:
        for name, one in PRESETS.items():
            print(f"{name:18} {one}")
    return int(ExitCode.PASS)


def cases_list(options: Options) -> int:
    """List the cases."""
    from testbed import cases

    found = cases.all_cases()
    if options.json:
        print(json.dumps([one.as_dict() for one in found], indent=2))
        return int(ExitCode.PASS)
    for one in found:
        print(f"{one.outcome:12} {one.path.name}  {one.title}{'  (kept)' if one.kept else ''}")
    if not found:
        print("no cases yet; `testbed run CANDIDATE` makes one", file=sys.stderr)
    return int(ExitCode.PASS)


def cases_show(options: Options) -> int:
    """Print a case's verdict as it was written; a case without one is judged from what is there."""
    from testbed import cases
    from testbed import judge as judges
    from testbed.case import Case

    case = Case.open(cases.find(options.case))
    return print_verdict(case.verdict or judges.judge(case), parse_formats(options.format), case.path, 0.0)


def cases_prune(options: Options) -> int:
    """Remove old cases."""
    from testbed import cases

    for one in cases.prune(options.older_than, dry_run=options.dry_run):
        print(f"{'would remove' if options.dry_run else 'removed'} {one.path.name}")
    return int(ExitCode.PASS)
