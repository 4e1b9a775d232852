# SPDX-License-Identifier: Apache-2.0
"""Schedulers whose answer is known beforehand. They judge the testbed, beside the candidate and on its machine.

A testbed that lets the bad one pass would have let the candidate pass; one that faults the good one would have faulted
any. The third control is the baseline: whatever a check finds in EEVDF is no candidate's fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from testbed.build import Artifact, build
from testbed.build.cache import cached_build
from testbed.candidate import read_candidate
from testbed.case import Control
from testbed.data import data_directory
from testbed.image import Image
from testbed.image.cache import Cache
from testbed.spec import Role, RunSpec

SCENARIO = "first-look"
"""Scenario that they run: the one that answers soonest."""


@dataclass(frozen=True)
class Known:
    """A control.

    Attributes:
        name: what people call it.
        expect: what it must get.
    """

    name: str
    expect: Literal["pass", "fail"]


GOOD = Known("scx_simple", "pass")
"""The kernel's own smallest example, as the image has it."""

BAD = Known("drops_one_process", "fail")
"""Of our corpus: a third of all processes is never run again. A source, so the compiler is on trial too."""

KNOWN = (GOOD, BAD)


def bring(image: Image, work: Path, cache: Cache) -> list[Artifact]:
    """The artifacts of all of them, in the order of `KNOWN`, below a directory.

    Raises:
        HostError: the sandbox or the image does not work.
    """
    place = work / "controls"
    place.mkdir()
    good = read_candidate(str(image.examples / "obj" / f"{GOOD.name}.bpf.o"))
    bad = read_candidate(str(data_directory("bpf") / "bad" / f"{BAD.name}.bpf.c"))
    return [build(good, image, place / GOOD.name), cached_build(bad, image, image.id, place / BAD.name, cache)]


def expected(specs: tuple[RunSpec, ...]) -> tuple[Control, ...]:
    """Which runs of a plan are controls, and what each must get."""
    runs = (spec for spec in specs if spec.role is Role.CONTROL)
    return tuple(
        Control(run=spec.number, name=one.name, expect=one.expect) for one, spec in zip(KNOWN, runs, strict=False)
    )
