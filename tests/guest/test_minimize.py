# SPDX-License-Identifier: Apache-2.0
"""Shrinking on real guests: a handful of steps is left, it replays to the bit, and it comes first from then on."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.guest.conftest import COMMAND, ROOT, environment, testbed

BAD = "bpf/bad/drops_one_process.bpf.c"


def tool(tmp: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], capture_output=True, text=True, check=False, env=environment(tmp), cwd=ROOT
    )


def test_a_lost_task_needs_a_handful_of_steps(tmp_path: Path) -> None:
    words = (BAD, "--policy", "quick", "--clock", "sim", "-k", "stall")
    rejected = testbed(tmp_path, *words)
    assert rejected.document["title"] == "runnable task stall in stall", rejected.about()
    before = (rejected.case / "verdict.json").read_bytes()
    file = tmp_path / "regressions.yaml"

    result = tool(tmp_path, "minimize", str(rejected.case), "--json", "--add", str(file))
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["complete"], result.stderr
    assert (found["before"]["steps"], found["before"]["tasks"]) == (11, 12)
    assert found["after"]["steps"] <= 4
    assert found["after"]["tasks"] <= 2
    assert (rejected.case / "verdict.json").read_bytes() == before

    left = rejected.case / "minimized/000"
    assert json.loads((left / "verdict.json").read_text())["title"] == rejected.document["title"]
    replayed = tool(tmp_path, "replay", str(left), "--json")
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert [one["identical"] for one in json.loads(replayed.stdout)] == [True]
    assert tool(tmp_path, "minimize", str(rejected.case), "--json").stdout == result.stdout, "it is minimal already"

    again = tmp_path / "again"
    again.mkdir()
    guarded = testbed(again, BAD, "--policy", "quick", "--clock", "sim", "--regressions", str(file))
    assert guarded.code == 1, guarded.about()
    assert guarded.document["title"] == "runnable task stall in regression-drops_one_process-stall", guarded.about()
