# SPDX-License-Identifier: Apache-2.0
"""The corpus on real guests: what a header of `bpf/` says is what the verdict says.

`make test` takes the sample below, `make test-all` everything.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from benchmarks.corpus import expectation, search
from testbed.image import Image
from testbed.sandbox import Bind, Limits, Sandbox
from tests.guest.conftest import ROOT, testbed

FILES = sorted((ROOT / "bpf").glob("*/*.bpf.c"))
LIBRARIES = "-Wl,--start-group -lbpf -lelf -lz -lzstd -Wl,--end-group"
# One of each way to fail that `quick` can see, and a good one that is no FIFO.
SAMPLE = {"weighted_vtime", "init_fails", "no_such_queue", "ejects_itself", "everything_on_cpu0", "spins_in_dispatch"}


def _parameters() -> list[ParameterSet]:
    found: list[ParameterSet] = []
    for file in FILES:
        name = file.name.removesuffix(".bpf.c")
        policy = "quick" if name in SAMPLE else "default"
        marks = [] if name in SAMPLE else [pytest.mark.slow]
        found.append(pytest.param(file, policy, id=name, marks=marks))
    return found


@pytest.mark.parametrize(("file", "policy"), _parameters())
def test_the_verdict_is_what_the_header_says(image: Image, tmp_path: Path, file: Path, policy: str) -> None:
    verdict, codes = expectation(file)
    answer = testbed(tmp_path, str(file), *search(file), "--policy", policy, "--clock", "sim")
    assert answer.document["verdict"] == verdict, answer.about()
    assert not codes or codes & answer.failures, answer.about()


def test_a_program_that_forges_its_verdict_and_attacks_the_runner_does_not_pass(image: Image, tmp_path: Path) -> None:
    built = tmp_path / "built"
    built.mkdir()
    sandbox = Sandbox(
        root=image.builder,
        read_only=(
            Bind(ROOT / "bpf/bad/forger", "/src"),
            Bind(image.include, "/image"),
            Bind(ROOT / "vm_images/runner", "/work"),
        ),
        writable=(Bind(built, "/out"),),
        env=(
            ("VMLINUX_H", "/image/vmlinux.h"),
            ("SCX_INCLUDE", "/image"),
            ("BPF_CFLAGS", "-I/image/uapi -I/image/bpf-compat"),
            (
                "LDFLAGS",
                "-static -D_GNU_SOURCE /work/eu_search.c -Wl,--start-group -lbpf -lelf -lz -lzstd -Wl,--end-group",
            ),
        ),
        limits=Limits(wall_s=120, output_bytes=1 << 20),
    )
    made = sandbox.run(["sh", "/src/build.sh", "/src", "/out"])
    assert made.ok, made.text
    answer = testbed(tmp_path, "--policy", "quick", "--clock", "sim", "-k", "stall", "--", str(built / "forger"))
    assert answer.code == 1, answer.about()
    assert answer.failures & {"tampering", "runnable-task-stall", "task-starved", "machine-locked-up"}, answer.about()
