# SPDX-License-Identifier: Apache-2.0
"""How long things take on this machine, in one run, with ratios.

    .venv/bin/python benchmarks/speed.py             # about ten minutes on two cores without KVM
    .venv/bin/python benchmarks/speed.py --guests    # only the guests, without the verdicts

Guests run the smallest job there is: `warm` from the snapshot, `stock icount` from a cold boot of the same machine
under QEMU's own instruction counter, `live` through virtme-ng by whatever accelerator works here. Verdicts are whole
commands, compilation included, with a run cache that is empty before the first.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from testbed import image as images
from testbed.image import Image
from testbed.image.cpio import write_archive
from testbed.spec import Clock, Role, RunSpec, Topology
from testbed.vm import qemu, snapshot
from testbed.vm.guest import Boot, Guest
from testbed.vm.live import LiveGuest
from testbed.vm.probe import JOB
from testbed.vm.sim import SimGuest

ROOT = Path(__file__).parent.parent
TESTBED = str(ROOT / ".venv/bin/testbed")
TWO = Topology(cpus=2, memory_mb=512)
BAD, GOOD = "bpf/bad/drops_one_process.bpf.c", "bpf/good/global_fifo.bpf.c"


@dataclass(frozen=True)
class Times:
    """Seconds of host time.

    Attributes:
        job: until the runner had its job; None where nobody looked.
        total: until the guest was gone.
    """

    job: float | None
    total: float


class StockGuest:
    """The same machine under QEMU's own instruction counter, from a cold boot."""

    def __init__(self, boot: Boot) -> None:
        self._boot = boot
        self._process = qemu.Process(boot, "tcg-icount")

    def run(self) -> None:
        """Boot, run the job, end."""
        spec = self._boot.spec
        words = snapshot.machine(spec.topology, snapshot.rate_of(spec))
        words[words.index("-icount") + 1] = f"shift={spec.icount_shift},sleep=off"
        words[words.index("-object") + 1] = f"memory-backend-ram,id=memory0,size={spec.topology.memory_mb}M"
        self._process.prepare()
        try:
            self._process.start(qemu.sandbox(self._boot).command([*words, *qemu.JOB_ITEMS]))
            self._process.wait()
        finally:
            self._process.close()


def guest(image: Image, clock: Clock, run: Callable[[Boot], None]) -> Times:
    """One guest with the smallest job."""
    with tempfile.TemporaryDirectory(prefix="testbed-speed-") as name:
        directory = Path(name) / "000"
        directory.mkdir()
        files = Path(name) / "files"
        spec = RunSpec(
            schema="testbed.run/1",
            number=0,
            role=Role.CONTROL,
            scenario="speed",
            clock=clock,
            topology=TWO,
            seed=0,
            job=JOB,
            files=write_archive(files, {}),
            image=image.id,
            wall_limit_s=300,
        )
        begun = time.monotonic()
        seen: list[float] = []

        def look() -> None:
            stream = directory / "stream"
            while not seen and time.monotonic() < begun + 300:
                if stream.is_file() and b'"e":"job"' in stream.read_bytes():
                    seen.append(time.monotonic() - begun)
                time.sleep(0.002)

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        run(Boot(spec, image, directory, files, b"k" * 32, threading.Event(), lambda line: None))
        total = time.monotonic() - begun
        watcher.join(1)
        return Times(seen[0] if seen else None, total)


def to_its_end(machine: Guest) -> None:
    """Boot, run, close."""
    try:
        machine.boot()
        machine.run()
    finally:
        machine.close()


def verdict(words: list[str], cache: Path | None = None) -> tuple[float, str]:
    """One whole command: seconds, and what it said."""
    with tempfile.TemporaryDirectory(prefix="testbed-speed-") as name:
        command = [TESTBED, "run", *words, "--clock", "sim", "--format", "json", "--out", f"{name}/case"]
        environment = {**os.environ} if cache is None else {**os.environ, "TESTBED_CACHE": str(cache)}
        begun = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
        took = time.monotonic() - begun
        return took, json.loads(done.stdout)["verdict"] if done.stdout else f"exit {done.returncode}"


def fresh_cache(image: Image, place: Path) -> Path:
    """A cache that has image and snapshots, and neither runs nor builds."""
    real = image.path.parent.parent
    for name in ("images", "keys", "parts", "snapshots"):
        (place / name).symlink_to(real / name)
    return place


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guests", action="store_true", help="leave out the verdicts")
    parser.add_argument("--times", type=int, default=5, help="guests of each kind (default: 5)")
    options = parser.parse_args()
    image = images.ensure()
    snapshot.ensure(image, TWO, snapshot.Rate(shift=2, quantum=2_500))
    kinds: list[tuple[str, Clock, Callable[[Boot], None]]] = [
        ("warm", Clock.SIM, lambda boot: to_its_end(SimGuest(boot))),
        ("stock icount, cold", Clock.SIM, lambda boot: StockGuest(boot).run()),
        ("live, virtme-ng", Clock.LIVE, lambda boot: to_its_end(LiveGuest(boot))),
    ]
    # In turn, so that a machine that is busy for a while is busy for all of them.
    taken: dict[str, list[Times]] = {name: [] for name, _, _ in kinds}
    for _ in range(options.times):
        for name, clock, run in kinds:
            taken[name].append(guest(image, clock, run))
    base = statistics.median(times.total for times in taken["warm"])
    print(f"{'guest':24} {'job after':>10} {'in all':>9}   in all / warm")
    for name, ones in taken.items():
        jobs = [times.job for times in ones if times.job is not None]
        total = statistics.median(times.total for times in ones)
        shown = f"{statistics.median(jobs):8.2f} s" if jobs else f"{'–':>10}"
        print(f"{name:24} {shown} {total:7.2f} s   {total / base:5.1f}")
    if options.guests:
        return 0
    with tempfile.TemporaryDirectory(prefix="testbed-speed-") as name:
        cache = fresh_cache(image, Path(name))
        print(f"\n{'verdict':44} {'seconds':>8}   said")
        for title, words in (
            ("a stalling candidate, quick", [BAD, "--policy", "quick"]),
            ("a good one, quick", [GOOD, "--policy", "quick"]),
            ("the same again", [GOOD, "--policy", "quick"]),
            ("a good one, default, after quick", [GOOD]),
            ("the same again", [GOOD]),
        ):
            seconds, said = verdict(words, cache)
            print(f"{title:44} {seconds:8.2f}   {said}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
