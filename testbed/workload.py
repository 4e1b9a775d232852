# SPDX-License-Identifier: Apache-2.0
"""Workloads of the user's: found, copied into the case, started in the guest.

A schbench of theirs takes the place of the image's own: who trusts the original may have that. A program or script
of theirs becomes a scenario of its own that the verdict requires (docs/guides/workload.md).
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from testbed.build import ARTIFACT, Artifact, build, files_for_guest
from testbed.build import load as load_artifact
from testbed.candidate import Candidate, read_candidate
from testbed.case import canonical_json, write_atomic
from testbed.errors import UsageError
from testbed.image import Image
from testbed.image.tree import file_sha256
from testbed.policy import Demand, Policy
from testbed.scenario import Scenario, mistakes
from testbed.scenario.job import step_limit_ms
from testbed.scenario.model import PROGRAMS, FigureSpec, Reading, named_topology
from testbed.sources import open_regular, printable
from testbed.spec import Clock, Model, Topology, sha256
from testbed.topology import PRESETS
from testbed.verdict import WorkloadFacts
from testbed.yamlfile import Document, DurationMs, Percent, did_you_mean, plain, read, write

SCHBENCH = "schbench"
WORKLOADS = "workloads"
"""Folder of the case and, with the same content, below /job in the guest."""
OWN = "workload"
"""The same of the workload that has a file."""
OWN_FILE = f"{OWN}/workload.yaml"
FILES = f"{OWN}/files"
PROGRAM = f"{OWN}/program"
PREFIX = "workload-"
MAX_FILES = 256
MAX_DEPTH = 32
MAX_TOTAL = 32 << 20
COUNTED = frozenset(("wait", "cputime", "runs", "preemptions", "migrations"))
"""What the guest's oracle tells of every program, under its name."""


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
    argv = _words(folder, program.name, program.interpreter, SCHBENCH)
    facts = WorkloadFacts(
        origin="given", name=program.name, sha256=program.content_sha256, libraries=artifact.candidate.libraries
    )
    return Workload(facts, argv, _files(artifact, folder))


def files_of(case: Path) -> dict[str, Path]:
    """What travelled into the guests of a case beside the candidate: path below /job → file.

    Raises:
        UsageError: it is damaged.
    """
    found: dict[str, Path] = {}
    for folder in (f"{WORKLOADS}/{SCHBENCH}", PROGRAM):
        if (case / folder / ARTIFACT).is_file():
            found |= _files(load_artifact(case / folder), folder)
    for file in sorted((case / FILES).rglob("*")):
        if file.is_file() and not file.is_symlink():
            found[file.relative_to(case).as_posix()] = file
    return found


def _files(artifact: Artifact, folder: str) -> dict[str, Path]:
    return {f"{folder}/{name}": path for name, path in files_for_guest(artifact).items()}


def _words(folder: str, name: str, interpreter: str, shown: str) -> tuple[str, ...]:
    """How a program of the user's is started, with the libraries that travel with it."""
    binary = f"/job/{folder}/bin/{name}"
    libraries = f"/job/{folder}/lib"
    if not interpreter:
        return (binary,)
    return (f"{libraries}/{interpreter}", "--library-path", libraries, "--argv0", shown, binary)


# --- a workload with a file ------------------------------------------------------------------------------------


class Metric(Model):
    """One figure of a workload; see `Reading` and `FigureSpec` of testbed/scenario/model.py."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")
    better: Literal["lower", "higher"]
    unit: str | None = None
    regex: str | None = None
    json_path: str | None = Field(default=None, alias="json")
    duration: bool = False
    allow_worse: Percent | None = None

    @model_validator(mode="after")
    def _readable(self) -> Metric:
        self.figure("any")
        if self.duration and self.unit is not None:
            raise ValueError("`duration` is told in seconds, leave `unit` out")
        return self

    def figure(self, workload: str) -> FigureSpec:
        """It as the figure of a scenario."""
        said = {"regex": self.regex, "json_path": self.json_path, "duration": self.duration or None}
        ways = {key: value for key, value in said.items() if value is not None}
        if len(ways) != 1:
            raise ValueError("expected one of `regex`, `json` and `duration`")
        reading = Reading.model_validate({**ways, "unit": "s" if self.duration else self.unit or "1"})
        guard = {} if self.allow_worse is None else {"allow_worse": f"{self.allow_worse * 100:.10g}%"}
        return FigureSpec.model_validate(
            {"name": f"{workload}.{self.name}", "better": self.better, "read": reading, **guard}
        )


_Word = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]


class WorkloadFile(Model):
    """`testbed.workload/1`.

    Attributes:
        name: its scenario is called `workload-NAME`.
        argv: a program or script beside the file, or a program of the image; and its words.
        files: files and folders beside the file that travel with it.
        timeout: guest time that one run of it may take.
        warm_up: times that it is run before it is measured.
        seeds: orders of events (sim), even where the policy has fewer.
        topology: of the guest.
    """

    schema_: Literal["testbed.workload/1"] = Field(alias="schema")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")
    argv: tuple[_Word, ...] = Field(min_length=1, max_length=64)
    files: tuple[_Word, ...] = Field(default=(), max_length=MAX_FILES)
    timeout: DurationMs = 60_000
    warm_up: int = Field(default=0, ge=0, le=10)
    seeds: int = Field(default=3, ge=1, le=100)
    topology: Annotated[Topology, BeforeValidator(named_topology)] = PRESETS["two"]
    metrics: tuple[Metric, ...] = Field(min_length=1, max_length=32)


@dataclass(frozen=True)
class OwnWorkload:
    """A workload of the user's, read and checked.

    Attributes:
        spec: what its file says.
        data: the file's bytes.
        files: what travels with it: path beside the file → content, and whether it may be executed.
        program: the program of `argv`, None for a script or a program of the image.
    """

    spec: WorkloadFile
    data: bytes
    files: Mapping[str, tuple[bytes, bool]]
    program: Candidate | None

    @cached_property
    def sha256(self) -> str:
        """Of everything that travels."""
        files = {name: [sha256(data), executable] for name, (data, executable) in self.files.items()}
        program = self.program.sha256 if self.program is not None else ""
        return sha256(canonical_json([sha256(self.data), files, program]))

    @property
    def facts(self) -> WorkloadFacts:
        """Which one it is, as a verdict names it."""
        libraries = {one.soname: one.sha256 for one in self.program.libraries} if self.program is not None else {}
        return WorkloadFacts(origin="given", name=self.spec.name, sha256=self.sha256, libraries=libraries)

    def paths(self, file: Path) -> list[Path]:
        """Every file that it is made of: `file`, from which it was read, what lies beside that, and the program."""
        program = [self.program.path] if self.program is not None else []
        return [file, *(file.parent / name for name in self.files), *program]

    @cached_property
    def scenario(self) -> Scenario:
        """What a guest does with it."""
        spec, within = self.spec, f"{self.spec.timeout}ms"
        warm = [f"{spec.name}-warm-{number}" for number in range(1, spec.warm_up + 1)]
        steps: list[dict[str, object]] = [{"attach": {"within": "30s"}}]
        for name in (*warm, spec.name):
            ran: list[dict[str, object]] = [
                {"exec": {"name": name, "argv": self._argv}},
                {"wait": {"name": name, "within": within}},
            ]
            window = f"{spec.name}-window"
            steps += ran if name != spec.name else [{"begin": window}, *ran, {"end": window}]
        steps += [{"detach": {"within": "2s"}}, {"health": {"within": "2s"}}]
        made = Scenario.model_validate(
            {
                "schema": "testbed.scenario/1",
                "name": f"{PREFIX}{spec.name}",
                "title": "the user's own workload",
                "description": f"The workload `{spec.name}` that the user gave, beside the same under EEVDF.",
                "catches": ["workload-worse", "workload-failed", "latency-collapse", "throughput-collapse"],
                "needs": {
                    "programs": [name for name in (Path(self._argv[0]).name,) if name in PROGRAMS],
                    "workload": self.sha256,
                },
                "topology": spec.topology.model_dump(exclude_defaults=True),
                "limits": {"virtual": "1s", "wall": "600s"},
                "steps": steps,
                "figures": [metric.figure(spec.name) for metric in spec.metrics],
            }
        )
        total = sum(step_limit_ms(made, step, "object", None, stretch=1) for step in made.steps)
        # The watchdog's period on top, so that limits nest; a host needs up to six seconds for one of the guest's.
        virtual = -(-total // 1000) + 30
        limits = {"virtual": f"{virtual}s", "wall": f"{max(600, 6 * virtual)}s"}
        return Scenario.model_validate({**plain(made), "limits": limits})

    @cached_property
    def _argv(self) -> list[str]:
        """The words that start it, in the folder of its files."""
        first, options = self.spec.argv[0], list(self.spec.argv[1:])
        if self.program is not None:
            words = [*_words(PROGRAM, self.program.name, self.program.interpreter, self.program.name), *options]
        elif _is_of_image(first):
            words = [PROGRAMS[first], *options]
        else:
            words = [PROGRAMS["busybox"], "sh", f"/job/{FILES}/{PurePosixPath(first)}", *options]
        if not self.files:
            return words
        return [PROGRAMS["busybox"], "sh", "-c", f'cd /job/{FILES} && exec "$@"', self.spec.name, *words]

    @property
    def demand(self) -> Demand:
        """What is asked of a candidate."""
        return Demand(
            name=self.scenario.name,
            clock=Clock.SIM,
            required=True,
            seeds=self.spec.seeds,
            reason=f"the user asked for no negative impact on their workload `{self.spec.name}`",
        )

    def bring(self, case: Path, image: Image) -> dict[str, Path]:
        """Copy it into a case; returns what travels into the guests, path below /job → file.

        Raises:
            HostError: the program changed since it was read.
        """
        (case / OWN).mkdir()
        write_atomic(case / OWN_FILE, self.data)
        for name, (data, executable) in self.files.items():
            target = case / FILES / name
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(target, data)
            target.chmod(0o755 if executable else 0o644)
        if self.program is not None:
            build(self.program, image, case / PROGRAM)
        return {name: path for name, path in files_of(case).items() if name.startswith(f"{OWN}/")}


def load(path: Path, environ: Mapping[str, str] | None = None) -> OwnWorkload:
    """Read and check a workload's file, and everything that it names.

    Raises:
        UsageError: something can't be read or can't be meant; the message names the line.
    """
    data = read(path)
    document = Document(data, str(path))
    spec = document.model(WorkloadFile)
    for place, message, hint in _mistakes(spec):
        raise document.error(place, message, hint)
    files: dict[str, tuple[bytes, bool]] = {}
    for index, name in enumerate(spec.files):
        try:
            _take(path.parent, name, files)
        except UsageError as error:
            raise document.error(("files", index), error.message, error.hint) from None
    try:
        program = _program(path.parent, spec.argv[0], files, os.environ if environ is None else environ)
    except UsageError as error:
        raise document.error(("argv", 0), error.message, error.hint) from None
    own = OwnWorkload(spec, data, files, program)
    for _, message, hint in mistakes(own.scenario, own.scenario.name):
        raise document.error((), message, hint)
    return own


def demanded(policy: Policy, data: bytes, own: OwnWorkload | None) -> tuple[Policy, bytes]:
    """A policy that requires a workload too, and its bytes; None leaves it as it is."""
    if own is None:
        return policy, data
    longer = policy.model_copy(update={"scenarios": (*policy.scenarios, own.demand)})
    return longer, write(plain(longer))


def _mistakes(spec: WorkloadFile) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    seen: set[str] = set()
    for index, metric in enumerate(spec.metrics):
        place = ("metrics", index, "name")
        if metric.name in seen:
            yield place, f"`{metric.name}` is used twice", "names of metrics are unique"
        seen.add(metric.name)
        if metric.name in COUNTED:
            yield place, f"`{metric.name}` is what the guest tells of every program", "use another name"
    if not 1_000 <= spec.timeout <= 1_800_000:
        yield ("timeout",), f"`timeout` is {spec.timeout} ms, expected 1s to 30min", ""


def _is_of_image(word: str) -> bool:
    return "/" not in word and word in PROGRAMS


def _program(
    folder: Path, word: str, files: dict[str, tuple[bytes, bool]], environ: Mapping[str, str]
) -> Candidate | None:
    """The program that a workload's first word means, None where it is the image's; a script joins the files.

    Raises:
        UsageError: no guest could run it.
    """
    if _is_of_image(word) and not (folder / word).exists():
        return None
    path = folder / word
    if not path.exists() and "/" not in word:
        raise UsageError(
            f"`{printable(word)}` is neither a file beside the workload's own nor a program of the image",
            hint=did_you_mean(word, PROGRAMS),
        )
    with open_regular(path, "a program or a script") as file:
        start = file.read(256)
    if start.startswith(b"\x7fELF"):
        return read_candidate((str(path.absolute()),), environ=environ)
    line = start.split(b"\n")[0].decode("utf-8", "replace").strip()
    if line.startswith("#!") and PurePosixPath(line[2:].split()[0] if line[2:].split() else "").name != "sh":
        raise UsageError(
            f"`{printable(word)}` is a script for `{printable(line[2:].strip(), 60)}`, and the guest has `sh` only",
            hint="write it for busybox' sh, or give a compiled program",
        )
    if b"\0" in start:
        raise UsageError(f"`{printable(word)}` is neither a program (ELF) nor a script", hint="give what is started")
    _take(folder, word, files)
    return None


def _take(folder: Path, name: str, files: dict[str, tuple[bytes, bool]]) -> None:
    """Read a file, or all files of a folder, into `files`; no link is followed, and all together are bounded."""
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or not 0 < len(relative.parts) <= MAX_DEPTH:
        raise UsageError(
            f"`{printable(name)}` is not beside the workload's file", hint="name files by paths below its folder"
        )
    for depth in range(1, len(relative.parts) + 1):
        _look(folder.joinpath(*relative.parts[:depth]))
    path = folder / relative
    if stat.S_ISDIR(_look(path)):
        try:
            inside = sorted(path.iterdir())
        except OSError as error:
            raise UsageError(f"can't read `{printable(name)}`: {(error.strerror or '').lower()}") from None
        for one in inside:
            _take(folder, one.relative_to(folder).as_posix(), files)
        return
    total = sum(len(data) for data, _ in files.values())
    with open_regular(path, "a file of the workload") as file:
        executable = bool(os.fstat(file.fileno()).st_mode & stat.S_IXUSR)
        data = file.read(MAX_TOTAL - total + 1)
    files[relative.as_posix()] = (data, executable)
    if total + len(data) > MAX_TOTAL or len(files) > MAX_FILES:
        raise UsageError(
            f"the workload has more than {MAX_FILES} files or {MAX_TOTAL >> 20} MiB of them",
            hint="let it make its data in the guest",
        )


def _look(path: Path) -> int:
    """The mode of a file or folder that is no link."""
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        raise UsageError(f"can't read `{printable(str(path))}`: {(error.strerror or '').lower()}") from None
    if stat.S_ISLNK(mode):
        raise UsageError(f"`{printable(str(path))}` is a symbolic link", hint="name the file that it leads to")
    return mode
