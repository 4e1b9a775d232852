# SPDX-License-Identifier: Apache-2.0
"""Real guests on a cluster of processes: by digest the runs of this machine, although a worker is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

from testbed.image import Image
from tests.guest.conftest import COMMAND, ROOT, environment, testbed
from tests.unit import cluster as clusters

CANDIDATE = ("bpf/good/global_fifo.bpf.c", "--policy", "quick", "-k", "first-look", "--no-cache")


def digests(case: Path) -> dict[tuple[str, bool], str]:
    """By role and whether it is a repetition."""
    found = {}
    for run in sorted((case / "runs").iterdir()):
        spec = json.loads((run / "spec.json").read_text())
        outcome = json.loads((run / "outcome.json").read_text())
        assert outcome["digest"], outcome
        found[spec["role"], spec["repeats"] is not None] = outcome["digest"]
    return found


def test_a_cluster_gives_the_same_runs_although_a_worker_is_killed(image: Image, tmp_path: Path) -> None:
    local = testbed(tmp_path / "local", *CANDIDATE, "--clock", "sim")
    with clusters.cluster(tmp_path / "cluster") as cluster:
        for _ in range(2):
            cluster.add_worker(threads=1)
        cluster.wait_for_workers(2)
        case = tmp_path / "case"
        options = ["--engine", "dask", "--scheduler", cluster.address, "--out", str(case)]
        command = subprocess.Popen(
            [*COMMAND, "run", *CANDIDATE, *options],
            cwd=ROOT,
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 120
        guests = tmp_path / "cluster" / "worker1"
        while not any(path.stat().st_size for path in guests.glob("**/testbed-run-*/*/stream")):
            assert command.poll() is None, "the command ended before its worker was killed"
            assert time.monotonic() < deadline, "no guest began on the worker"
            time.sleep(0.02)
        cluster.processes[1].send_signal(signal.SIGKILL)
        said, _ = command.communicate(timeout=300)
    assert command.returncode == local.code, said.decode()
    assert digests(case) == digests(local.case)
