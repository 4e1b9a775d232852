# SPDX-License-Identifier: Apache-2.0
"""The corpus on real guests: what a header of `bpf/` says is what the verdict says.

`make test` takes the sample below, `make test-all` everything.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from testbed.corpus import build_program, header
from testbed.corpus.session import policy_for
from testbed.image import Image
from testbed.topology import PRESETS
from tests.guest.conftest import ROOT, testbed

FILES = sorted([*(ROOT / "bpf/good").glob("*.bpf.c"), *(ROOT / "bpf/bad").glob("*.bpf.c")])
# One of each way to fail that `quick` can see, and a good one that is no FIFO.
SAMPLE = {"weighted_vtime", "init_fails", "no_such_queue", "ejects_itself", "everything_on_cpu0", "spins_in_dispatch"}


def _parameters() -> list[ParameterSet]:
    found: list[ParameterSet] = []
    for file in FILES:
        if header.read(file, good=file.parent.name == "good").policy == "full":
            continue  # a quarter of an hour each; `testbed corpus` has them
        name = file.name.removesuffix(".bpf.c")
        policy = "quick" if name in SAMPLE else "default"
        marks = [] if name in SAMPLE else [pytest.mark.slow]
        found.append(pytest.param(file, policy, id=name, marks=marks))
    return found


@pytest.mark.parametrize(("file", "policy"), _parameters())
def test_the_verdict_is_what_the_header_says(image: Image, tmp_path: Path, file: Path, policy: str) -> None:
    expected = header.read(file, good=file.parent.name == "good")
    words = ["--policy", policy_for(policy, expected), "--clock", "sim"]
    words += ["-k", expected.scenario] if expected.scenario else []
    words += ["--seeds", str(expected.seeds)] if expected.seeds else []
    if expected.machine is not None:
        words += ["--cpus", str(expected.machine[1].cpus)]
        words += ["--topology", expected.machine[0]] if expected.machine[0] in PRESETS else []
    answer = testbed(tmp_path, str(file), *words)
    assert answer.document["verdict"] == expected.outcome, answer.about()
    assert not expected.failure_class or expected.named_rightly(sorted(answer.failures)), answer.about()


def test_a_program_that_forges_its_verdict_and_attacks_the_runner_does_not_pass(image: Image, tmp_path: Path) -> None:
    built = tmp_path / "built"
    built.mkdir()
    program = build_program(ROOT / "bpf/bad/forger/forger.c", image, built)
    answer = testbed(tmp_path, "--policy", "quick", "--clock", "sim", "-k", "stall", "--", str(program))
    assert answer.code == 1, answer.about()
    assert answer.failures & {"tampering", "runnable-task-stall", "task-starved", "machine-locked-up"}, answer.about()
