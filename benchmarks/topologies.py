# SPDX-License-Identifier: Apache-2.0
"""What each topology costs under virtual time, and whether two runs of it are the same to the byte.

    .venv/bin/python benchmarks/topologies.py                      # all of them, about six minutes on a quiet core
    .venv/bin/python benchmarks/topologies.py --only two smt       # some of them; `two` is what ratios refer to
    .venv/bin/python benchmarks/topologies.py --times 5

Each guest idles, then has one spinning task for each CPU. Printed are seconds of the host for one virtual second of
either (the best of the repetitions, since whatever else the host does can only add to it), the ratio to `two`, what
the kernel sees, and whether consoles and streams were equal in all repetitions. Exits 1 if they were not, or if a
kernel saw another machine than was asked for.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from testbed import image as images
from testbed.case import KEY_FILE, OUTCOME_FILE, SPEC_FILE, RunEvidence, read_run, write_model
from testbed.image import Image
from testbed.image.cpio import write_archive
from testbed.judge.machine import contradictions
from testbed.spec import Clock, Role, RunSpec, Topology
from testbed.topology import PRESETS
from testbed.vm.guest import Boot, Guest
from testbed.vm.live import LiveGuest
from testbed.vm.sim import SimGuest

IDLE_MS, BUSY_MS = 4_000, 500
WALL_LIMIT_S = 900


def job(cpus: int) -> str:
    """Some idle time, some busy time, and a look at every CPU."""
    return (
        "testbed-job 1\nlimit 60000\nwatchdog 20000\ncandidate none\n"
        f"begin idle\nsleep {IDLE_MS}\nend idle\n"
        f"start hogs hog count={cpus}\nbegin busy\nsleep {BUSY_MS}\nend busy\nstop hogs\nhealth 2000\n"
    )


@dataclass(frozen=True)
class Run:
    """One guest: its evidence, and when the host saw each event, by the event's place in the stream."""

    evidence: RunEvidence
    seen_s: dict[int, float]

    def cost(self, window: str) -> float:
        """Seconds of the host for one virtual second between the steps `begin` and `end` of a window."""
        steps = {step.integer("i"): step for step in self.evidence.stream.of("step")}
        lines = [line for line in self.evidence.spec.job.splitlines() if line.split()[0] in _STEPS]
        first, last = (steps[lines.index(f"{verb} {window}")] for verb in ("begin", "end"))
        return (self.seen_s[last.seq] - self.seen_s[first.seq]) / ((last.t - first.t) / 1e9)

    def content(self) -> tuple[bytes, tuple[object, ...]]:
        """What a repetition must give again: the console, and the events (their MACs have another key)."""
        return b"\n".join(self.evidence.console.lines), self.evidence.stream.events


_STEPS = frozenset(("begin", "sleep", "end", "start", "stop", "health"))


def boot(
    image: Image,
    topology: Topology,
    text: str,
    place: Path,
    clock: Clock = Clock.SIM,
    job_files: Mapping[str, Path] = MappingProxyType({}),
) -> Run:
    """Run a job in a guest with that topology; `place` is a new directory for it."""
    directory = place / "000"
    directory.mkdir(parents=True)
    files = place / "files"
    key = secrets.token_bytes(32)
    spec = RunSpec(
        schema="testbed.run/1",
        number=0,
        role=Role.BASELINE,
        scenario="topologies",
        clock=clock,
        topology=topology,
        seed=1,
        job=text,
        files=write_archive(files, job_files),
        image=image.id,
        wall_limit_s=WALL_LIMIT_S,
    )
    write_model(directory / SPEC_FILE, spec)
    (directory / KEY_FILE).write_text(key.hex() + "\n")
    seen: dict[int, float] = {}

    def line(words: str) -> None:
        number = words.partition(" ")[0]
        if number.isdecimal():
            seen.setdefault(int(number), time.monotonic())

    at = Boot(spec, image, directory, files, key, threading.Event(), line)
    guest: Guest = SimGuest(at) if clock is Clock.SIM else LiveGuest(at)
    try:
        guest.boot()
        write_model(directory / OUTCOME_FILE, guest.run())
    finally:
        guest.close()
    return Run(read_run(directory), seen)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(PRESETS), default=list(PRESETS), metavar="NAME")
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    options = parser.parse_args()
    image = images.ensure()
    rows: dict[str, dict[str, object]] = {}
    bad = 0
    with tempfile.TemporaryDirectory(prefix="testbed-topologies-") as work:
        for name in options.only:
            machine = PRESETS[name]
            runs = [boot(image, machine, job(machine.cpus), Path(work) / f"{name}-{n}") for n in range(options.times)]
            hello = runs[0].evidence.stream.first("hello")
            wrong = ["no hello"] if hello is None else list(contradictions(machine, hello))
            same = len({run.content()[0] for run in runs}) == 1 and all(
                run.content() == runs[0].content() for run in runs
            )
            ended = {str(run.evidence.outcome.ended) for run in runs}
            bad += bool(wrong) or not same or ended != {"finished"}
            rows[name] = {
                "machine": str(machine),
                "idle": min(run.cost("idle") for run in runs),
                "busy": min(run.cost("busy") for run in runs),
                "domains": hello.text("domains") if hello else "",
                "same": same,
                "wrong": wrong,
                "ended": sorted(ended),
                "console_bytes": len(runs[0].content()[0]),
            }
            print(f"# {name}: {json.dumps(rows[name])}", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps(rows, indent=2))
        return bad > 0
    print(f"| name | machine | domains | idle, s/s | × `two` | busy, s/s | × `two` | {options.times} runs equal |")
    print("|---|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        cells = [f"`{name}`", row["machine"], row["domains"] or "none"]
        for phase in ("idle", "busy"):
            value = float(str(row[phase]))
            ratio = f"{value / float(str(rows['two'][phase])):.2f}" if "two" in rows else ""
            cells += [f"{value:.3f}", ratio]
        print("| " + " | ".join(str(cell) for cell in [*cells, "yes" if row["same"] else "NO"]) + " |")
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
