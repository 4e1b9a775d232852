# SPDX-License-Identifier: Apache-2.0
"""The corpus, expected against got: every scheduler of `bpf/` judged by a policy, one line each.

    .venv/bin/python benchmarks/corpus.py                  # everything, about two hours on two cores without KVM
    .venv/bin/python benchmarks/corpus.py --only lifo fifo # names that contain one of these words
    .venv/bin/python benchmarks/corpus.py --seeds 10 --only global_fifo --policy quick   # ten orders of events
    .venv/bin/python benchmarks/corpus.py --good           # those that must pass
    .venv/bin/python benchmarks/corpus.py --examples       # the kernel's own examples instead, with their fault knobs

Cases go to --out and stay there; a case that is already there is read, not run again, so an interrupted table goes on
where it was. Exits 1 if one line is not as expected.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# tools/sched_ext of the kernel. scx_central really starves: its slices are infinite, and what ends one is a timer that
# looks how long a task has run *since it was last put on its CPU*. A real-time task or a kernel worker that comes by
# at least once a slice (here each 20 ms, the default slice) sets that back, so a hog keeps its CPU for a second and
# longer, and a task pinned there waits (1.4 s, 45 ms with a slice of 5 ms, which is over before they come again).
# The knobs of scx_qmap lose user threads (-t) or kernel threads (-T), loop in dispatch (-l) or report an error (-e).
# scx_cpu0 sends everything to one CPU, and whoever is on another one stays there.
EXAMPLES = {
    "scx_simple": "pass",
    "scx_central": "reject canary-starved",
    "scx_central -s 5000": "pass",
    "scx_qmap": "pass",
    "scx_qmap -t 10": "reject runnable-task-stall,task-starved",
    "scx_qmap -T 3": "reject runnable-task-stall,task-starved,kworker-starved",
    "scx_qmap -l 500": "reject runnable-task-stall,soft-lockup,machine-locked-up,no-progress,task-starved",
    "scx_qmap -e 500": "reject self-ejected,scheduler-error",
    "scx_cpu0": "reject unfair-share,idle-while-runnable",
}
EXPECT = re.compile(r"expect: (pass|reject)[ ]*([a-z0-9,-]*)")
SEEDS = re.compile(r"^ \* seeds: (\d+) of ([a-z-]+)$", re.MULTILINE)


def expectation(file: Path) -> tuple[str, frozenset[str]]:
    """What a corpus file's header says: the verdict, and the finding codes of which one must be there."""
    found = EXPECT.search(file.read_text(encoding="utf-8"))
    if found is None:
        raise SystemExit(f"{file}: no `expect:` line in the header")
    return found[1], _codes(found[2])


def search(file: Path) -> list[str]:
    """Options of `testbed run` that a fault needs which only some orders of events show; none for most files."""
    found = SEEDS.search(file.read_text(encoding="utf-8"))
    return ["--seeds", found[1], "-k", found[2]] if found is not None else []


def _codes(words: str) -> frozenset[str]:
    return frozenset(filter(None, words.split(",")))


def judge(candidate: list[str], policy: str, out: Path) -> dict[str, object]:
    """The verdict document, from the case if there is one."""
    if not (out / "verdict.json").is_file():
        command = [str(ROOT / ".venv/bin/testbed"), "run", "--policy", policy, "--out", str(out), "--format", "json"]
        result = subprocess.run([*command, *candidate], capture_output=True, text=True, check=False)
        if not (out / "verdict.json").is_file():
            return {"verdict": f"exit {result.returncode}", "findings": [], "error": result.stderr[-500:]}
    document: dict[str, object] = json.loads((out / "verdict.json").read_text())
    return document


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], metavar="WORD")
    parser.add_argument("--policy", default="default")
    parser.add_argument("--seeds", type=int, help="seeds of each scenario, instead of the policy's own")
    parser.add_argument("--times", type=int, default=1, help="runs of each; only live ones differ")
    parser.add_argument("--good", action="store_true", help="only those that are expected to pass")
    parser.add_argument("--out", type=Path, default=Path("cases/corpus"))
    parser.add_argument("--examples", action="store_true")
    options = parser.parse_args()
    rows: list[tuple[str, list[str], str, frozenset[str]]] = []
    if options.examples:
        for words, expected in EXAMPLES.items():
            verdict, _, codes = expected.partition(" ")
            rows.append((words, ["--", *words.split()], verdict, _codes(codes)))
    else:
        for file in [*sorted((ROOT / "bpf/good").glob("*.bpf.c")), *sorted((ROOT / "bpf/bad").glob("*.bpf.c"))]:
            rows.append((file.name.removesuffix(".bpf.c"), [str(file), *search(file)], *expectation(file)))
    if options.good:
        rows = [row for row in rows if row[2] == "pass"]
    seeds = ["--seeds", str(options.seeds)] if options.seeds else []
    wrong = 0
    print(f"{'':3} {'scheduler':28} {'expected':42} got")
    for name, candidate, wanted, wanted_codes in rows:
        if options.only and not any(word in name for word in options.only):
            continue
        for number in range(options.times):
            document = judge([*seeds, *candidate], options.policy, options.out / f"{name.replace(' ', '_')}-{number}")
            findings = document["findings"]
            assert isinstance(findings, list)
            got = sorted({finding["code"] for finding in findings if finding["status"] == "FAIL"})
            fine = document["verdict"] == wanted and (not wanted_codes or bool(wanted_codes & set(got)))
            wrong += not fine
            told = f"{wanted} {','.join(sorted(wanted_codes))}"
            shown = f"{document['verdict']} {','.join(got)} {document.get('error', '')}"
            print(f"{'ok' if fine else 'NOT':3} {name:28} {told[:42]:42} {shown}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
