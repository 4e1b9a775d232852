# SPDX-License-Identifier: Apache-2.0
"""Run the sim runs of a case again, anywhere, and compare them bit by bit."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from testbed import digest as digests
from testbed.baseline import FOLDER
from testbed.build import ARTIFACT
from testbed.build import load as load_artifact
from testbed.case import OUTCOME_FILE, RUNS_DIR, Case, DamagedCaseError, RunEvidence, read_key
from testbed.engine.local import LocalEngine
from testbed.errors import UsageError
from testbed.image import Image
from testbed.image import load as load_image
from testbed.report.events import Listener, StageEnded, StageStarted
from testbed.spec import Clock, Role
from testbed.status import Status
from testbed.trial import Inputs, archives, known_schedulers
from testbed.vm.guest import Boot, Guest
from testbed.workload import files_of


@dataclass(frozen=True)
class Replayed:
    """A run that was run again.

    Attributes:
        run: its name in the case, e.g. `runs/003`.
        digest: of the run in the case.
        again: of the run that was made now.
        parting: the first place where they differ, None if they are the same.
        evidence: where the evidence of the new run lies; only kept where they differ.
    """

    run: str
    scenario: str
    digest: str
    again: str
    parting: digests.Parting | None
    evidence: Path | None

    @property
    def identical(self) -> bool:
        """Not a bit differs."""
        return self.parting is None and self.digest == self.again


def find(place: Path) -> tuple[Case, tuple[RunEvidence, ...]]:
    """The case of a path, and the runs that it means: all sim runs of a case, or one run's directory.

    Raises:
        UsageError: it is neither, or there is nothing to replay.
    """
    one = (place / OUTCOME_FILE).is_file() and place.parent.name == RUNS_DIR
    case = Case.open(place.parent.parent if one else place)
    runs = [run for run in case.runs if not one or run.spec.name == place.name]
    wanted = tuple(run for run in runs if run.clock is Clock.SIM and (one or run.spec.repeats is None))
    if not wanted:
        raise UsageError(f"`{place}` has no run under virtual time", hint="what ran `live` can't be replayed")
    return case, wanted


def replay(
    case: Case,
    runs: Sequence[RunEvidence],
    *,
    guest: Callable[[Boot], Guest],
    listener: Listener,
    jobs: int,
    cancelled: threading.Event,
) -> Iterator[Replayed]:
    """Run again and compare; yields in the order of the case.

    Raises:
        UsageError: the image of the runs is not here.
        DamagedCaseError: the case no longer has the bytes that were run.
        HostError: a run could not be had.
    """
    image = image_of(case, runs)
    with tempfile.TemporaryDirectory(prefix="testbed-replay-") as name:
        work = Path(name)
        inputs = inputs_of(case, runs, work, image).by_hash
        with ThreadPoolExecutor(jobs, thread_name_prefix="replay") as threads:
            try:
                for found in threads.map(
                    lambda run: _again(case, run, image, inputs, guest, listener, work, cancelled), runs
                ):
                    if found is None:
                        return
                    yield found
            finally:
                cancelled.set()


def inputs_of(case: Case, runs: Sequence[RunEvidence], work: Path, image: Image) -> Inputs:
    """The archives that travelled with runs, made again from the case and its image in the directory `work`.

    Raises:
        DamagedCaseError: the case no longer has the bytes that were run.
    """
    reference = case.path / FOLDER
    other = load_artifact(reference) if (reference / ARTIFACT).is_file() else None
    inputs = archives(load_artifact(case.path / "candidate"), files_of(case.path), work, other)
    if any(run.spec.role is Role.CONTROL for run in runs):
        known_schedulers(image, work, inputs.by_hash)
    for run in runs:
        if run.spec.files not in inputs.by_hash:
            raise DamagedCaseError(
                f"`{run.name}` ran with files {run.spec.files[:16]}, and the case's candidate gives others",
                hint="a case is never edited; run the candidate again",
            )
    return inputs


def image_of(case: Case, runs: Sequence[RunEvidence]) -> Image:
    """The image that runs were made with.

    Raises:
        UsageError: it is not here; says which it is and how to get it.
    """
    needed = {run.spec.image for run in runs}
    if len(needed) != 1:
        raise DamagedCaseError(f"the runs of `{case.path.name}` name {len(needed)} images, expected one")
    try:
        return load_image(needed.pop())
    except UsageError as error:
        facts = case.facts
        kernel = f" (linux {facts.kernel.release}, qemu {facts.tool.qemu})" if facts.kernel else ""
        raise UsageError(
            f"the image of these runs is not here: {runs[0].spec.image[:16]}{kernel}",
            hint="`testbed image export` where they were made and `testbed image import` here; or build it from the "
            "testbed's version that made it, if Debian still has the packages of its lock file; one with another "
            "kernel is made again by `testbed build` of anything with the same --kernel",
        ) from error


def _again(
    case: Case,
    run: RunEvidence,
    image: Image,
    inputs: Mapping[str, Path],
    guest: Callable[[Boot], Guest],
    listener: Listener,
    work: Path,
    cancelled: threading.Event,
) -> Replayed | None:
    title = f"{run.spec.scenario} ({run.spec.role}, seed {run.spec.seed})"
    listener(StageStarted(stage=run.name, title=title))
    started = time.monotonic()
    engine = LocalEngine(image, inputs, guest, key=read_key(case.path / run.name))
    directory = work / run.spec.name
    executed = engine.execute(run.spec, directory, cancelled, lambda line: None)
    if executed is None:
        return None
    original = case.path / run.name
    again = digests.of(directory)
    parting = digests.parting(original, directory)
    kept: Path | None = None
    if parting is not None:
        kept = Path(tempfile.mkdtemp(prefix=f"testbed-{run.spec.name}-"))
        shutil.copytree(directory, kept, dirs_exist_ok=True)
    found = Replayed(run.name, run.spec.scenario, digests.of(original), again, parting, kept)
    listener(
        StageEnded(
            stage=run.name,
            title=title,
            status=Status.PASS if found.identical else Status.ERROR,
            elapsed_s=time.monotonic() - started,
            summary="" if found.identical else "another run than the one in the case",
        )
    )
    shutil.rmtree(directory, ignore_errors=True)
    return found
