# SPDX-License-Identifier: Apache-2.0
"""The corpus, expected against got: every scheduler of `bpf/` judged by a policy, one line each.

    .venv/bin/python benchmarks/corpus.py                  # everything, about two hours on two cores without KVM
    .venv/bin/python benchmarks/corpus.py --only lifo fifo # names that contain one of these words
    .venv/bin/python benchmarks/corpus.py --times 10 --only global_fifo

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
EXPECT = re.compile(r"expect: (pass|reject)[ ]*([a-z0-9,-]*)")


def expectation(file: Path) -> tuple[str, frozenset[str]]:
    """What a corpus file's header says: the verdict, and the finding codes of which one must be there."""
    found = EXPECT.search(file.read_text(encoding="utf-8"))
    if found is None:
        raise SystemExit(f"{file}: no `expect:` line in the header")
    return found[1], frozenset(filter(None, found[2].split(",")))


def judge(file: Path, policy: str, out: Path) -> dict[str, object]:
    """The verdict document, from the case if there is one."""
    if not (out / "verdict.json").is_file():
        command = [str(ROOT / ".venv/bin/testbed"), "run", str(file), "--policy", policy, "--out", str(out)]
        result = subprocess.run([*command, "--format", "json"], capture_output=True, text=True, check=False)
        if not (out / "verdict.json").is_file():
            return {"verdict": f"exit {result.returncode}", "findings": [], "error": result.stderr[-500:]}
    document: dict[str, object] = json.loads((out / "verdict.json").read_text())
    return document


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], metavar="WORD")
    parser.add_argument("--policy", default="default")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("cases/corpus"))
    options = parser.parse_args()
    files = sorted((ROOT / "bpf" / "good").glob("*.bpf.c")) + sorted((ROOT / "bpf" / "bad").glob("*.bpf.c"))
    wrong = 0
    print(f"{'':3} {'scheduler':28} {'expected':42} got")
    for file in files:
        name = file.name.removesuffix(".bpf.c")
        if options.only and not any(word in name for word in options.only):
            continue
        verdict, codes = expectation(file)
        for number in range(options.times):
            document = judge(file, options.policy, options.out / f"{name}-{number}")
            findings = document["findings"]
            assert isinstance(findings, list)
            got = sorted({finding["code"] for finding in findings if finding["status"] == "FAIL"})
            fine = document["verdict"] == verdict and (not codes or bool(codes & set(got)))
            wrong += not fine
            wanted = f"{verdict} {','.join(sorted(codes))}"
            shown = f"{document['verdict']} {','.join(got)} {document.get('error', '')}"
            print(f"{'ok' if fine else 'NOT':3} {name:28} {wanted[:42]:42} {shown}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
