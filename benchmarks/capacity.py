# SPDX-License-Identifier: Apache-2.0
"""What judging many candidates a day costs in cores, from what runs of real cases took.

    .venv/bin/python -m benchmarks.capacity CASE…                     # cases of `testbed run`, `corpus` or `gate`
    .venv/bin/python -m benchmarks.capacity CASE… --a-day 10000 --busy 0.7 --bad 0.5

A sim guest is one emulating thread, so a second of it is a second of one core where no more guests run than there are
cores. What a run took is in its `host.json`; runs that came from the cache are left out. EEVDF's own runs are the same
for all candidates and come from the cache, so they are told apart and cost nothing.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from testbed.case import RUNS_DIR, SPEC_FILE, VERDICT_FILE
from testbed.engine.local import HOST_FILE

DAY_S = 86_400


@dataclass
class Cost:
    """Cases of one policy and verdict, in seconds of one core.

    Attributes:
        own: of each case, what its candidate's runs took, repetitions included.
        shared: what runs of EEVDF took.
        unknown: cases that were answered from the cache in part, so that what they cost is not known.
    """

    own: list[float] = field(default_factory=list)
    shared: list[float] = field(default_factory=list)
    unknown: int = 0

    @property
    def mean(self) -> float:
        """Of a case."""
        return sum(self.own) / len(self.own)


def read(cases: Sequence[Path]) -> dict[tuple[str, str], Cost]:
    """Costs by policy and verdict; a directory without a verdict is searched for cases."""
    found: dict[tuple[str, str], Cost] = defaultdict(Cost)
    places = [file.parent for case in cases for file in sorted(case.glob(f"**/{VERDICT_FILE}"))]
    for place in places:
        verdict = json.loads((place / VERDICT_FILE).read_text(encoding="utf-8"))
        cost = found[verdict["policy"]["name"], verdict["verdict"]]
        own = shared = 0.0
        whole = True
        for run in sorted((place / RUNS_DIR).glob("*")):
            if not (run / HOST_FILE).is_file():
                continue  # it was ended before its time
            host = json.loads((run / HOST_FILE).read_text(encoding="ascii"))
            role = json.loads((run / SPEC_FILE).read_text(encoding="ascii"))["role"]
            if role == "baseline":
                shared += 0.0 if host.get("cached") else host["seconds"]
            else:
                own += host["seconds"]
                whole = whole and not host.get("cached")
        if not whole:
            cost.unknown += 1
            continue
        cost.own.append(own)
        if shared:
            cost.shared.append(shared)
    return found


def cores(a_day: float, seconds: float, busy: float) -> int:
    """Cores that have so many seconds of work a day and are at it for a share of the time."""
    return math.ceil(a_day * seconds / (DAY_S * busy))


def table(found: dict[tuple[str, str], Cost], a_day: int, busy: float, bad: float) -> str:
    """Both tables as Markdown."""
    lines = ["| policy | verdict | cases | core seconds each | least | most |", "|---|---|---|---|---|---|"]
    for (policy, verdict), cost in sorted(found.items()):
        if cost.own:
            figures = " | ".join(f"{seconds:.1f}" for seconds in (cost.mean, min(cost.own), max(cost.own)))
            lines.append(f"| {policy} | {verdict} | {len(cost.own)} | {figures} |")
    lines += ["", f"| policy | {a_day} a day: all pass | {bad:.0%} rejected | all rejected |", "|---|---|---|---|"]
    for policy in sorted({policy for policy, _ in found}):
        good, wrong = found.get((policy, "pass")), found.get((policy, "reject"))
        if good is None or wrong is None or not good.own or not wrong.own:
            lines.append(f"| {policy} | cases of both verdicts are needed | | |")
            continue
        mixed = bad * wrong.mean + (1 - bad) * good.mean
        row = [f"{cores(a_day, seconds, busy)} cores" for seconds in (good.mean, mixed, wrong.mean)]
        lines.append(f"| {policy} | {' | '.join(row)} |")
    unknown = sum(cost.unknown for cost in found.values())
    lines += [f"\n{unknown} cases came from the cache in part and are left out."] if unknown else []
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", type=Path, metavar="CASE", help="cases, or directories that hold some")
    parser.add_argument("--a-day", type=int, default=10_000, metavar="N", help="candidates (default: 10000)")
    parser.add_argument("--busy", type=float, default=0.7, metavar="SHARE", help="of the time that a core works")
    parser.add_argument("--bad", type=float, default=0.5, metavar="SHARE", help="of the candidates that are rejected")
    options = parser.parse_args()
    print(table(read(options.cases), options.a_day, options.busy, options.bad))


if __name__ == "__main__":
    main()
