# SPDX-License-Identifier: Apache-2.0
"""A benchmark of the user's in the place of the image's own: found, copied into the case, started in the guest.

Only schbench can be given: ours is another implementation of its model, and who trusts the original may have that.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.build import ARTIFACT, Artifact, build, files_for_guest
from testbed.build import load as load_artifact
from testbed.candidate import Candidate, read_candidate
from testbed.errors import UsageError
from testbed.image import Image
from testbed.image.tree import file_sha256
from testbed.scenario import PROGRAMS
from testbed.verdict import WorkloadFacts

SCHBENCH = "schbench"
WORKLOADS = "workloads"
"""Folder of the case and, with the same content, below /job in the guest."""


@dataclass(frozen=True)
class Workload:
    """A program that scenarios run.

    Attributes:
        facts: which one it is.
        argv: what stands for its name in an `exec` step of the job; empty: the image's own.
        files: what travels into the guest, path below /job → file.
    """

    facts: WorkloadFacts
    argv: tuple[str, ...]
    files: Mapping[str, Path]


def find_schbench(given: Path | None, environ: Mapping[str, str]) -> Candidate | None:
    """The schbench of the user: the one that was given, else the one on PATH, else None.

    Raises:
        UsageError: it is no program that a guest could run.
    """
    found = str(given.absolute()) if given is not None else shutil.which(SCHBENCH, path=environ.get("PATH", ""))
    if found is None:
        return None
    try:
        return read_candidate((found,), environ=environ)
    except UsageError as error:
        if given is not None:
            raise
        raise UsageError(
            f"the schbench on PATH can't be used: {error.message}",
            hint="give another one by `--schbench FILE`, or take it off PATH, and our own is used",
        ) from error


def bring(program: Candidate | None, case: Path, image: Image) -> Workload:
    """schbench as the runs of a case use it; a copy of the user's is kept in the case.

    Raises:
        HostError: the program changed since it was read.
    """
    if program is None:
        own = image.root / PROGRAMS[SCHBENCH].lstrip("/")
        return Workload(WorkloadFacts(origin="image", name=SCHBENCH, sha256=file_sha256(own)), (), {})
    folder = f"{WORKLOADS}/{SCHBENCH}"
    artifact = build(program, image, case / folder)
    binary = f"/job/{folder}/bin/{program.name}"
    argv: tuple[str, ...] = (binary,)
    if program.interpreter:
        libraries = f"/job/{folder}/lib"
        argv = (f"{libraries}/{program.interpreter}", "--library-path", libraries, "--argv0", SCHBENCH, binary)
    facts = WorkloadFacts(
        origin="given", name=program.name, sha256=program.content_sha256, libraries=artifact.candidate.libraries
    )
    return Workload(facts, argv, _files(artifact, folder))


def files_of(case: Path) -> dict[str, Path]:
    """What travelled into the guests of a case beside the candidate: path below /job → file.

    Raises:
        UsageError: it is damaged.
    """
    folder = f"{WORKLOADS}/{SCHBENCH}"
    return _files(load_artifact(case / folder), folder) if (case / folder / ARTIFACT).is_file() else {}


def _files(artifact: Artifact, folder: str) -> dict[str, Path]:
    return {f"{folder}/{name}": path for name, path in files_for_guest(artifact).items()}
