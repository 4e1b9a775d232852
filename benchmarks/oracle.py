# SPDX-License-Identifier: Apache-2.0
"""What the guest's oracle costs: the same runs with it and without, and the ratios of their figures.

    .venv/bin/python benchmarks/oracle.py                          # under EEVDF, about two minutes on a quiet core
    .venv/bin/python benchmarks/oracle.py --candidate x.bpf.o      # under a compiled scheduler
    .venv/bin/python benchmarks/oracle.py --clock live --times 5

Under `sim` a run is a function of its inputs, so one of each says it; a live one is repeated, and medians are printed.
With `--callbacks` the kernel measures BPF programs too, which costs more; `oracle` is then the share of all CPU time
that the oracle's own took. Exits 1 if it did not watch.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.topologies import boot
from testbed import image as images
from testbed.image import Image
from testbed.spec import Clock, Topology
from testbed.topology import PRESETS

WINDOW_MS = 2_000
LOADS = {
    "hogs and sleepers": ("hogs hog count=4", "near canary cpu=each", "many canary count=4 period_us=1000"),
    "messages": ("pipes pipe count=2",),
    "forks": ("forks fork count=2",),
}
FIGURES = (
    ("work", ""), ("roundtrips", ""), ("forks", ""), ("gap", "p50"), ("gap", "p99"), ("switches", ""), ("unused", ""),
    ("oracle", ""),
)  # fmt: skip


def job(starts: tuple[str, ...], candidate: str, oracle: bool, callbacks: bool) -> str:
    """One window with these loads."""
    begin = "".join(f"start {start}\n" for start in starts)
    stop = " ".join(start.split()[0] for start in starts)
    settings = f"seed 1\nlimit 120000\nwatchdog 20000\n{candidate}\noracle {int(oracle)}\ncallbacks {int(callbacks)}\n"
    return (
        f"testbed-job 1\n{settings}"
        f"attach 60000\n{begin}begin busy\nhold {WINDOW_MS}\nend busy\nstop {stop}\ndetach 5000\n"
    )


def measure(image: Image, topology: Topology, text: str, clock: Clock, candidate: Path | None) -> dict[str, float]:
    """One guest: its figures, summed over tasks (`work` and the like) or the worst of them (`gap`), and its seconds."""
    with tempfile.TemporaryDirectory(prefix="testbed-oracle-") as name:
        begun = time.monotonic()
        files = {"candidate.bpf.o": candidate} if candidate else {}
        run = boot(image, topology, text, Path(name), clock, files)
        found = {"host seconds": time.monotonic() - begun}
    for event in run.evidence.stream.of("measure"):
        name, stat = event.text("name"), event.text("stat")
        if (name, stat) not in FIGURES or not (event.text("window") or event.text("load") == "busy"):
            continue
        key, value = f"{name} {stat}".strip(), event.number("value")
        found[key] = max(found.get(key, 0.0), value) if name == "gap" else found.get(key, 0.0) + value
    return found


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidate", type=Path, help="a compiled scheduler (default: none, EEVDF)")
    parser.add_argument("--clock", choices=[str(clock) for clock in Clock], default="sim")
    parser.add_argument("--topology", choices=PRESETS, default="two")
    parser.add_argument("--times", type=int, default=1, help="repetitions (default: 1)")
    parser.add_argument("--callbacks", action="store_true", help="with the kernel's statistics of BPF programs")
    options = parser.parse_args()
    image = images.ensure()
    words = "candidate object candidate.bpf.o" if options.candidate else "candidate none"
    watched = True
    print(f"{'load':20} {'figure':14} {'without':>14} {'with':>14} {'ratio':>8}")
    for name, starts in LOADS.items():
        both: list[dict[str, list[float]]] = [{}, {}]
        for _ in range(options.times):
            for oracle in (False, True):
                text = job(starts, words, oracle, options.callbacks)
                found = measure(image, PRESETS[options.topology], text, Clock(options.clock), options.candidate)
                for key, value in found.items():
                    both[oracle].setdefault(key, []).append(value)
        without, seen = ({key: statistics.median(values) for key, values in one.items()} for one in both)
        watched &= "unused" in seen
        for key, value in seen.items():
            before = without.get(key)
            shown = f"{before:14.6g}" if before is not None else f"{'–':>14}"
            ratio = f"{value / before:8.3f}" if before else f"{'–':>8}"
            print(f"{name:20} {key:14} {shown} {value:14.6g} {ratio}", flush=True)
    return 0 if watched else 1


if __name__ == "__main__":
    sys.exit(main())
