# SPDX-License-Identifier: Apache-2.0
"""What a sim guest takes of the host's memory at its peak, for each scenario and number of CPUs.

    .venv/bin/python -m benchmarks.memory                              # a minute or two on two cores
    .venv/bin/python -m benchmarks.memory --scenarios stall hackbench --cpus 2 4 8

Read from /proc twenty times a second while EEVDF runs the scenario. `resident` counts pages that guests of one snapshot
share once for each of them, `own` (PSS) shares them out; limits are about the former.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.topologies import boot
from testbed import image as images
from testbed import scenario
from testbed.image import Image
from testbed.spec import Topology
from testbed.vm import snapshot

SAMPLE_S = 0.05
QEMU = "qemu-system-x86"


@dataclass
class Peak:
    """Of one QEMU, in MB."""

    resident: float = 0.0
    own: float = 0.0

    def look(self, pid: int) -> None:
        """Take one sample; a process that has gone has nothing."""
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        except OSError:
            return
        found = {key: int(value) / 1024 for key, value in re.findall(r"^(Rss|Pss): +(\d+) kB$", text, re.MULTILINE)}
        self.resident = max(self.resident, found.get("Rss", 0.0))
        self.own = max(self.own, found.get("Pss", 0.0))


def below(parent: int) -> Iterator[int]:
    """All QEMUs that descend from a process."""
    children: dict[int, list[tuple[int, str]]] = {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                name, rest = (place / "stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)
            except OSError:
                continue
            children.setdefault(int(rest.split()[1]), []).append((int(place.name), name.split("(", 1)[1]))
    todo = [parent]
    while todo:
        for pid, name in children.get(todo.pop(), ()):
            todo.append(pid)
            if name == QEMU:
                yield pid


def measure(image: Image, name: str, cpus: int) -> Peak:
    """Run one scenario under EEVDF and look on."""
    topology = Topology(cpus=cpus, memory_mb=512)
    text = scenario.job_text(scenario.load_all()[name], seed=0, candidate=("none",), kind="object", cpus=cpus)
    # Made before anybody looks on: its memory is no run's.
    snapshot.ensure(image, topology, snapshot.Rate(shift=2, quantum=2_500))
    peak, done, this = Peak(), threading.Event(), os.getpid()

    def watch() -> None:
        while not done.wait(SAMPLE_S):
            for pid in below(this):
                peak.look(pid)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    with tempfile.TemporaryDirectory(prefix="testbed-memory-") as place:
        boot(image, topology, text, Path(place))
    done.set()
    watcher.join()
    return peak


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--scenarios", nargs="+", default=["first-look", "stall", "hackbench", "schbench"], metavar="NAME"
    )
    parser.add_argument("--cpus", nargs="+", type=int, default=[2, 4], metavar="N")
    options = parser.parse_args()
    image = images.ensure()
    print(f"{'scenario':20} {'CPUs':>4} {'resident':>12} {'own':>12}   of 512 MB")
    for name in options.scenarios:
        for cpus in options.cpus:
            peak = measure(image, name, cpus)
            print(f"{name:20} {cpus:4} {peak.resident:9.0f} MB {peak.own:9.0f} MB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
