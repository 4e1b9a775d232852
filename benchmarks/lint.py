# SPDX-License-Identifier: Apache-2.0
"""How long the lint takes: milliseconds of processor time per scheduler, and of waiting for its compilation.

    .venv/bin/python benchmarks/lint.py                # every scheduler of bpf/ and the kernel's examples
    .venv/bin/python benchmarks/lint.py --times 5

Exits 1 if one of them takes longer than a second to be linted.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from testbed import image as images
from testbed.build.compiler import SOURCE, compile_source
from testbed.build.hints import names_of
from testbed.candidate import read_candidate
from testbed.image import Image
from testbed.lint.engine import lint

ROOT = Path(__file__).parent.parent
LIMIT_MS = 1000.0


def schedulers(image: Image) -> Iterator[tuple[str, bytes, dict[str, str], float]]:
    """Name, object, sources, and milliseconds of compiling."""
    for path in sorted(ROOT.glob("bpf/*/*.bpf.c")):
        tree = read_candidate(str(path)).sources
        assert tree is not None
        started = time.perf_counter()
        compiled = compile_source(tree, image)
        if compiled.data is not None:
            yield path.name, compiled.data, dict(tree.texts), (time.perf_counter() - started) * 1000
    for path in sorted((image.examples / "obj").glob("*.bpf.o")):
        yield path.name, path.read_bytes(), {}, 0.0


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3, help="lint each so often, the fastest counts")
    options = parser.parse_args()
    image = images.ensure()
    names = names_of(image.vmlinux_h, image.include, image.include / "bpf")
    worst = 0.0
    print(f"{'scheduler':34} {'KiB':>5} {'lint ms':>8} {'compile ms':>10}  findings")
    for name, data, texts, compiling in schedulers(image):
        took = []
        for _ in range(options.times):
            started = time.process_time()  # other work on the machine is not the lint's
            found = lint(data, texts, names, SOURCE)
            took.append((time.process_time() - started) * 1000)
        worst = max(worst, min(took))
        codes = ", ".join(one.rule.code for one in found)
        print(f"{name:34} {len(data) >> 10:5} {min(took):8.1f} {compiling:10.0f}  {codes}", flush=True)
    print(f"slowest: {worst:.1f} ms, limit {LIMIT_MS:.0f} ms")
    return 1 if worst > LIMIT_MS else 0


if __name__ == "__main__":
    sys.exit(main())
