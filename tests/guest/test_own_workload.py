# SPDX-License-Identifier: Apache-2.0
"""A workload of the user's on real guests: beside EEVDF, read, judged, and made again from the case alone."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from tests.guest.conftest import COMMAND, ROOT, environment, testbed

SCRIPT = """\
#!/bin/sh
read -r n < data/count
for one in 1 2 3; do
    awk -v n="$n" 'BEGIN { for (i = 0; i < n; i++) s += i }' &
done
wait
echo "added: $((3 * n))"
"""
FILE = """\
schema: testbed.workload/1
name: add
argv: [add.sh]
files: [data]
timeout: 20s
seeds: 1
metrics:
  - {name: time, better: lower, duration: true, allow_worse: 50%}
  - {name: added, better: higher, unit: numbers, regex: 'added: (\\d+)', allow_worse: 1%}
"""


def test_a_script_runs_beside_eevdf_and_replays_without_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    (folder / "data").mkdir(parents=True)
    (folder / "data/count").write_text("5000\n")
    (folder / "add.sh").write_text(SCRIPT)
    (folder / "add.yaml").write_text(FILE)
    words = ("bpf/good/global_fifo.bpf.c", "--policy", "quick", "--clock", "sim", "-k", "workload")
    answer = testbed(tmp_path, *words, "--workload", str(folder / "add.yaml"))
    scenario = next(one for one in answer.document["scenarios"] if one["name"] == "workload-add")
    assert scenario["status"] == "PASS", answer.about()
    figures = {one["name"]: one for one in answer.document["benefit"]["figures"]}
    assert (figures["add.added"]["candidate"], figures["add.added"]["baseline"]) == (15000, 15000)
    assert 0 < figures["add.time"]["candidate"] < 5
    assert answer.document["tool"]["workload"]["name"] == "add"

    shutil.rmtree(folder)
    replayed = subprocess.run(
        [*COMMAND, "replay", str(answer.case), "--json"],
        capture_output=True, text=True, check=False, env=environment(tmp_path), cwd=ROOT,
    )  # fmt: skip
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert all(one["identical"] for one in json.loads(replayed.stdout))
