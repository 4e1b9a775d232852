# SPDX-License-Identifier: Apache-2.0
"""A repository of five candidates through the gate: from nothing, and again. Wall times, exit codes, the summary.

    .venv/bin/python -m benchmarks.gate_demo                      # some minutes on two quiet cores
    .venv/bin/python -m benchmarks.gate_demo --keep demo          # and leave repository, gates, summary.html there

Four candidates are new beside the base (a good one, one that stalls, one that starves, one that does not compile), the
fifth is as it was. The first gate has the image and nothing else: no snapshot, no build and no run of an earlier day.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from markdown_it import MarkdownIt

from testbed.image.cache import Cache

ROOT = Path(__file__).resolve().parents[1]
CANDIDATES = {
    "good": "good/global_fifo.bpf.c",
    "stalls": "bad/drops_one_process.bpf.c",
    "starves": "bad/lifo.bpf.c",
    "does_not_compile": "bad/does_not_compile.bpf.c",
}
UNCHANGED = "good/per_cpu_queues.bpf.c"
STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:900px;margin:24px auto;color:#1f2328}table{border-collapse:collapse}"
    "td,th{border:1px solid #d1d9e0;padding:4px 10px}code,pre{background:#f6f8fa;font-size:13px}pre{padding:8px}"
)


def git(root: Path, *words: str) -> None:
    identity = ("-c", "user.name=demo", "-c", "user.email=demo@example.org")
    subprocess.run(["git", "-C", str(root), *identity, *words], check=True)


def repository(root: Path) -> None:
    """A base with one candidate, and a branch that adds four."""
    (root / "sched").mkdir(parents=True)
    git(root, "init", "-q", "-b", "main")
    shutil.copy(ROOT / "bpf" / UNCHANGED, root / "sched" / "unchanged.bpf.c")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "base")
    git(root, "checkout", "-q", "-b", "topic")
    for name, file in CANDIDATES.items():
        shutil.copy(ROOT / "bpf" / file, root / "sched" / f"{name}.bpf.c")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "four candidates")


def fresh_cache(place: Path) -> None:
    """A cache that has the images of this machine and nothing else."""
    own = Cache.open()
    place.mkdir()
    for name in ("images", "keys", "parts"):
        (place / name).symlink_to(own.root / name)


def gate(work: Path, number: int, policy: str, jobs: int) -> tuple[int, float, str]:
    """Exit code, seconds, and the last line of what it said."""
    out = work / f"gate{number}"
    words = ["gate", "--changed-since", "main", "--policy", policy, "--clock", "sim", "-j", str(jobs)]
    words += ["--out", str(out), "--artifacts", str(out / "failures"), "--format", "text"]
    words += ["--format", f"markdown={work / f'summary{number}.md'}"]
    command = [sys.executable, "-c", "import sys; from testbed.cli import main; sys.exit(main())", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TESTBED_CACHE": str(work / "cache")}
    started = time.monotonic()
    done = subprocess.run(
        command, cwd=work / "repository", env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    return done.returncode, time.monotonic() - started, done.stdout


def rendered(work: Path) -> None:
    """The summary as a page, to be looked at."""
    text = "\n".join(
        path.read_text(encoding="utf-8")
        for path in (work / "summary1.md", work / "gate1" / "failures" / "summary.md")
        if path.is_file()
    )
    body = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    page = f"<!doctype html><meta charset=utf-8><title>summary</title><style>{STYLE}</style>{body}"
    (work / "summary.html").write_text(page, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="quick")
    parser.add_argument("-j", dest="jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a new directory that stays")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="testbed-demo-") as temporary:
        work = (options.keep or Path(temporary) / "demo").absolute()
        work.mkdir(parents=True)
        repository(work / "repository")
        fresh_cache(work / "cache")
        print("| gate | seconds | exit code |\n|---|---|---|")
        said = ""
        for number, title in ((1, "from nothing but the image"), (2, "again, from the caches")):
            code, seconds, said = gate(work, number, options.policy, options.jobs)
            print(f"| {title} | {seconds:.1f} | {code} |", flush=True)
        print("\n" + "\n".join(said.splitlines()[-7:]))
        rendered(work)


if __name__ == "__main__":
    main()
