# SPDX-License-Identifier: Apache-2.0
"""Run the same runs again and again on a host that is too busy, and count how many differ by a bit.

    .venv/bin/python benchmarks/digests.py --runs 1000 --load 2    # some hours on two cores
    .venv/bin/python benchmarks/digests.py --runs 1000 --only first-look schbench "starvation     1"    # one hour

Each group is a scenario, a machine, a candidate and a seed; the runs go round the groups, more of them at a time than
there are cores (`--jobs`), beside as many spinning processes as `--load` says. Nothing is taken from the cache. One
line for each group: runs, digests. Exits 1 if one group has more than one digest. A run whose guest was not ended by
itself (somebody killed QEMU, the host was too slow) says nothing about repeatability and is counted apart, as lost.
`--journal FILE` keeps what was found, by whom and on what system, and a second call goes on from there, also as another
user or on another host; with `--runs 0` it only counts what several journals (`cat`) say together.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from testbed import image as images
from testbed import scenario, trial
from testbed.build import Artifact, build, guest_command
from testbed.candidate import read_candidate
from testbed.case import OUTCOME_FILE, GuestOutcome, read_model
from testbed.cli.run import make_guest
from testbed.engine.local import LocalEngine
from testbed.image import Image, schedulers
from testbed.spec import Clock, Role, RunSpec, Topology

ROOT = Path(__file__).parent.parent
SCENARIOS = ("first-look", "stall", "starvation", "affinity", "schbench", "attach-detach")
CPUS = (1, 2, 4)
MEMORY_MB = 512
RUST = "scx_bpfland"
# EEVDF, objects of different make, one that fails, and programs; Rust ones where `make schedulers` has built them.
CANDIDATES = (
    "eevdf",
    "bpf/good/global_fifo.bpf.c",
    "bpf/good/per_cpu_queues.bpf.c",
    "bpf/bad/drops_one_process.bpf.c",
    "scx_simple",
    RUST,
)
SEEDS = (0, 1)


@dataclass(frozen=True)
class Group:
    """What is run many times."""

    scenario: str
    cpus: int
    candidate: str
    seed: int

    def __str__(self) -> str:
        return f"{self.scenario:14} {self.cpus} CPUs  {Path(self.candidate).name:28} seed {self.seed}"


def groups(only: list[str]) -> list[Group]:
    """A selection in which every scenario, machine, candidate and seed comes with others."""
    found = []
    candidates = [one for one in CANDIDATES if one != RUST or schedulers.directory() is not None]
    for number, name in enumerate(SCENARIOS):
        for place, candidate in enumerate(candidates):
            cpus = CPUS[(number + place) % len(CPUS)]
            found.append(Group(name, cpus, candidate, SEEDS[(number + place // 2) % len(SEEDS)]))
    return [group for group in found if not only or any(word in str(group) for word in only)]


def spec_of(group: Group, artifact: Artifact | None, files: str, image: Image) -> RunSpec:
    """The run of a group."""
    chosen = scenario.load_all()[group.scenario]
    words = guest_command(artifact) if artifact is not None else ("none",)
    return RunSpec(
        schema="testbed.run/1",
        number=0,
        role=Role.CANDIDATE if artifact is not None else Role.BASELINE,
        scenario=group.scenario,
        clock=Clock.SIM,
        topology=Topology(cpus=group.cpus, memory_mb=MEMORY_MB),
        seed=group.seed,
        candidate=artifact.candidate.sha256 if artifact is not None else "",
        job=scenario.job_text(
            chosen,
            seed=group.seed,
            candidate=words,
            kind="program" if words[0] == "program" else "object",
            cpus=group.cpus,
            candidate_timeout_ms=artifact.facts.timeout_ms if artifact is not None else None,
        ),
        files=files,
        image=image.id,
        wall_limit_s=1800,
    )


def _spin() -> None:
    while True:
        pass


def main() -> int:
    """Run, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="of all groups together")
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1), help="guests at a time")
    parser.add_argument("--load", type=int, default=0, help="spinning processes beside them")
    parser.add_argument("--only", nargs="*", default=[], metavar="WORD")
    parser.add_argument("--journal", type=Path, help="JSON lines: what was found, read first and added to")
    options = parser.parse_args()
    image = images.ensure()
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "unknown")
    chosen = groups(options.only)
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    lost: list[str] = []
    if options.journal is not None and options.journal.is_file():
        for line in options.journal.read_text().splitlines():
            entry = json.loads(line)
            if entry["image"] == image.id:
                seen[entry["group"]][entry["digest"]] += 1
    for _ in range(options.load):
        multiprocessing.Process(target=_spin, daemon=True).start()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="testbed-digests-") as name:
        work = Path(name)
        specs: dict[Group, RunSpec] = {}
        inputs: dict[str, Path] = {}
        for number, group in enumerate(chosen):
            artifact = None
            place = work / f"input-{number}"
            if group.candidate != "eevdf":
                source = group.candidate if "/" in group.candidate else (group.candidate,)
                words = str(ROOT / source) if isinstance(source, str) else source
                candidate = read_candidate(
                    words,
                    examples=image.examples / "bin",
                    examples_root=image.builder,
                    schedulers=schedulers.directory(),
                )
                artifact = build(candidate, image, place / "candidate")
            place.mkdir(exist_ok=True)
            empty = trial.archives(artifact, {}, place) if artifact is not None else trial.no_archives(place)
            inputs.update(empty.by_hash)
            specs[group] = spec_of(group, artifact, empty.candidate, image)
        engine = LocalEngine(image, inputs, make_guest)
        guard = threading.Lock()

        def once(number: int) -> None:
            group = chosen[number % len(chosen)]
            directory = work / f"run-{number}" / "000"
            begun = time.monotonic()
            engine.execute(specs[group], directory, threading.Event(), lambda line: None)
            outcome = read_model(directory / OUTCOME_FILE, GuestOutcome)
            shutil.rmtree(directory.parent)
            found = outcome.digest
            with guard:
                if not found:
                    lost.append(f"{group}: {outcome.ended}, {outcome.reason}")
                    return
                seen[str(group)][found] += 1
                if options.journal is not None:
                    entry = {
                        "image": image.id,
                        "group": str(group),
                        "digest": found,
                        "user": os.geteuid(),
                        "system": system,
                        "seconds": round(time.monotonic() - begun, 1),
                    }
                    with options.journal.open("a") as journal:
                        journal.write(json.dumps(entry) + "\n")
                print(f"\r{number + 1} of {options.runs}", end="", file=sys.stderr, flush=True)

        with ThreadPoolExecutor(options.jobs) as threads:
            for future in [threads.submit(once, number) for number in range(options.runs)]:
                future.result()
    print(file=sys.stderr)
    differing = 0
    for words, counted in sorted(seen.items()):
        most = counted.most_common(1)[0][1]
        differing += sum(counted.values()) - most
        print(f"{words}  {sum(counted.values()):4} runs  {len(counted)} digest{'s' if len(counted) > 1 else ''}")
    for words in lost:
        print(f"lost  {words}")
    total = sum(sum(counted.values()) for counted in seen.values())
    print(
        f"{total - differing} of {total} identical in {len(seen)} groups, {len(lost)} lost; image {image.id[:12]}; "
        f"{options.jobs} guests and {options.load} spinning processes at a time on {os.cpu_count()} cores; "
        f"{time.monotonic() - started:.0f} s"
    )
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
