# SPDX-License-Identifier: Apache-2.0
"""Topologies on real guests: the kernel sees the machine that was asked for, and schedulers run on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.case import read_run
from testbed.image import Image
from testbed.topology import preset
from tests.guest.conftest import testbed

GROUPS = {
    "smt": ("0-1 2-3", "0-3", "0-3"),
    "two-llcs": ("0 1 2 3", "0-1 2-3", "0-3"),
    "two-nodes": ("0 1 2 3", "0-1 2-3", "0-1 2-3"),
}
"""CPUs by core, by last-level cache and by node, in the kernel's words."""


@pytest.mark.parametrize(
    "name",
    [*GROUPS, *(pytest.param(name, marks=pytest.mark.slow) for name in ("one", "four", "six", "eight"))],
)
def test_the_kernel_sees_the_machine_that_was_asked_for(image: Image, tmp_path: Path, name: str) -> None:
    candidate = "bpf/good/per_cpu_queues.bpf.c"
    answer = testbed(
        tmp_path, candidate, "--policy", "quick", "--clock", "sim", "--topology", name, "-k", "first-look", "-j", "1"
    )
    found = {finding["code"] for finding in answer.document["findings"]}
    assert not answer.failures, answer.about()
    assert "other-machine" not in found, answer.about()
    runs = [read_run(place) for place in sorted((answer.case / "runs").iterdir())]
    assert any(run.spec.candidate for run in runs), answer.about()
    for run in runs:
        hello = run.stream.first("hello")
        assert hello is not None, answer.about()
        assert hello.integer("cpus") == hello.integer("present") == preset(name).cpus
        assert run.outcome.snapshot, "it is started from a snapshot"
        if name in GROUPS:
            assert tuple(hello.text(key) for key in ("cores", "llcs", "nodes")) == GROUPS[name]
