# SPDX-License-Identifier: Apache-2.0
"""How far the simulation's ratios are those of real time: the same candidates under both clocks, on this machine.

    .venv/bin/python benchmarks/sim_live.py                                   # an hour without KVM, minutes with it
    .venv/bin/python benchmarks/sim_live.py --scenarios crawl --pairs 1 bpf/good/weighted_vtime.bpf.c

For each figure: candidate / EEVDF under `sim` and under `live`, and the one over the other. 1 means that the simulation
says what real time says. Without KVM `live` is one thread that emulates all CPUs in turn: its throughput may be
compared, its latencies say little (docs/guides/live.md).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from testbed.data import data_directory

ROOT = Path(__file__).parent.parent
TESTBED = str(ROOT / ".venv/bin/testbed")
CANDIDATES = ["bpf/good/global_fifo.bpf.c", "bpf/good/weighted_vtime.bpf.c", "bpf/good/per_cpu_queues.bpf.c"]
REASON = "a benchmark compares both clocks"


def policy(scenarios: list[str], pairs: int, place: Path) -> Path:
    """`default` with these scenarios alone, each under both clocks."""
    data = yaml.safe_load((data_directory("policies") / "verdict" / "default.yaml").read_text(encoding="utf-8"))
    data["scenarios"] = [
        {"name": name, "clock": clock, "required": False, "reason": REASON}
        for clock in ("sim", "live")
        for name in scenarios
    ]
    known = data["thresholds"].get("overrides", {})
    data["thresholds"]["overrides"] = {name: one for name, one in known.items() if name in scenarios}
    data["live_pairs"] = pairs
    data["seeds"] = pairs
    path = place / "both.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def figures(candidate: str, demanded: Path, place: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """(scenario, figure) → clock → the verdict's figure."""
    command = [TESTBED, "run", candidate, "--policy", str(demanded), "--clock", "both", "--all", "--format", "json"]
    done = subprocess.run([*command, "--out", str(place)], cwd=ROOT, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise SystemExit(f"{candidate}: {done.stderr[-500:]}")
    found: dict[tuple[str, str], dict[str, Any]] = {}
    document = json.loads(done.stdout)
    for one in document.get("benefit", {}).get("figures", []):
        found.setdefault((one["scenario"], one["name"]), {})[one["clock"]] = one
    return found


def main() -> int:
    """Run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("candidates", nargs="*", default=CANDIDATES, metavar="CANDIDATE")
    parser.add_argument("--scenarios", nargs="+", default=["crawl", "hackbench", "schbench"], metavar="NAME")
    parser.add_argument("--pairs", type=int, default=5, help="runs of each side under each clock (default: 5)")
    options = parser.parse_args()
    print(f"{'candidate':24} {'figure':42} {'sim':>8} {'live':>8} {'sim / live':>11}")
    with tempfile.TemporaryDirectory(prefix="testbed-clocks-") as name:
        demanded = policy(options.scenarios, options.pairs, Path(name))
        for number, candidate in enumerate(options.candidates):
            for (scenario, figure), clocks in figures(candidate, demanded, Path(name) / str(number)).items():
                ratios = [clocks[clock]["ratio"] if clock in clocks else None for clock in ("sim", "live")]
                shown = " ".join(f"{ratio:8.2f}" if ratio else f"{'–':>8}" for ratio in ratios)
                both = f"{ratios[0] / ratios[1]:11.2f}" if ratios[0] and ratios[1] else f"{'–':>11}"
                print(f"{Path(candidate).name[:24]:24} {scenario + ': ' + figure:42} {shown} {both}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
