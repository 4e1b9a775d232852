# SPDX-License-Identifier: Apache-2.0
"""What a sim guest takes of the host's memory at its peak, for each scenario and number of CPUs.

    .venv/bin/python benchmarks/memory.py                              # a minute or two on two cores
    .venv/bin/python benchmarks/memory.py --scenarios stall hackbench --cpus 2 4 8

Read from /proc twenty times a second while EEVDF runs the scenario. `resident` counts pages that guests of one snapshot
share once for each of them, `own` (PSS) shares them out; limits are about the former.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from testbed import image as images
from testbed import scenario, trial
from testbed.cli.run import make_guest
from testbed.engine.local import LocalEngine
from testbed.image import Image
from testbed.spec import Clock, Role, RunSpec, Topology
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
    with tempfile.TemporaryDirectory(prefix="testbed-memory-") as place:
        inputs = trial.no_archives(Path(place))
        spec = RunSpec(
            schema="testbed.run/1",
            number=0,
            role=Role.BASELINE,
            scenario=name,
            clock=Clock.SIM,
            topology=topology,
            seed=0,
            job=scenario.job_text(
                scenario.load_all()[name], seed=0, candidate=("none",), kind="object", cpus=topology.cpus
            ),
            files=inputs.baseline,
            image=image.id,
            wall_limit_s=1800,
        )
        snapshot.ensure(image, topology, snapshot.rate_of(spec))
        peak, done = Peak(), threading.Event()

        def watch() -> None:
            while not done.wait(SAMPLE_S):
                for pid in below(pid_of_this):
                    peak.look(pid)

        pid_of_this = int(Path("/proc/self").readlink().name)
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        engine = LocalEngine(image, inputs.by_hash, make_guest)
        engine.execute(spec, Path(place) / "000", threading.Event(), lambda line: None)
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
