# SPDX-License-Identifier: Apache-2.0
"""Kill the tool with signal 9 at random moments, and count what it leaves behind.

    .venv/bin/python benchmarks/kill9.py --times 50

After each kill: processes that still have the case in their command line, a verdict where there must be none. At the
end one undisturbed run, which must come out as if nothing had happened. Exits 1 if anything was left.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMAND = [str(ROOT / ".venv/bin/testbed"), "run", str(ROOT / "bpf/bad/drops_one_process.bpf.c")]
OPTIONS = ["--policy", "quick", "--clock", "sim", "--format", "json"]
# The kernel needs a moment to take down a process namespace.
GRACE_S = 5.0


def left_by(case: Path) -> list[str]:
    """Command lines of processes that belong to a case."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(case) in words and int(place.name) != os.getpid():
            found.append(words.replace(b"\0", b" ").decode("utf-8", "replace")[:100])
    return found


def kill_once(folder: Path, number: int, after_s: float) -> tuple[int, bool, float]:
    """Survivors after the grace time, whether a verdict lies there, seconds until the last process was gone."""
    case = folder / f"case-{number}"
    tool = subprocess.Popen(
        [*COMMAND, *OPTIONS, "--out", str(case)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        tool.wait(after_s)
    except subprocess.TimeoutExpired:
        tool.send_signal(signal.SIGKILL)
        tool.wait()
    killed = time.monotonic()
    while left_by(case) and time.monotonic() < killed + GRACE_S:
        time.sleep(0.02)
    return len(left_by(case)), (case / "verdict.json").exists() and tool.returncode < 0, time.monotonic() - killed


def main() -> int:
    """Kill, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--within", type=float, default=12.0, metavar="SECONDS", help="kill at random before this")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    choose = random.Random(options.seed)
    survivors = verdicts = 0
    slowest = 0.0
    with tempfile.TemporaryDirectory(prefix="testbed-kill9-") as name:
        folder = Path(name)
        for number in range(options.times):
            left, verdict, gone = kill_once(folder, number, choose.uniform(0.05, options.within))
            survivors += left
            verdicts += verdict
            slowest = max(slowest, gone)
        last = subprocess.run([*COMMAND, *OPTIONS, "--out", str(folder / "last")], capture_output=True, check=False)
    print(f"{options.times} kills: {survivors} processes left, {verdicts} verdicts of killed runs")
    print(f"slowest to be gone: {slowest:.2f} s; exit code of the run afterwards: {last.returncode} (expected 1)")
    return 1 if survivors or verdicts or last.returncode != 1 else 0


if __name__ == "__main__":
    sys.exit(main())
