# SPDX-License-Identifier: Apache-2.0
"""The one model of a verdict (`testbed.verdict/1`); every output format is a writer over it."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from testbed.errors import ExitCode
from testbed.spec import Clock, Model, Role, Topology
from testbed.status import Status

SCHEMA = "testbed.verdict/1"


class Outcome(StrEnum):
    """The word that a script looks at."""

    PASS = "pass"
    REJECT = "reject"
    INCONCLUSIVE = "inconclusive"

    @property
    def exit_code(self) -> ExitCode:
        """The exit code that says the same."""
        return {
            Outcome.PASS: ExitCode.PASS,
            Outcome.REJECT: ExitCode.REJECT,
            Outcome.INCONCLUSIVE: ExitCode.INCONCLUSIVE,
        }[self]


class Safety(Model):
    """Alive, nobody starves, nobody locked up, no crawl, healthy after detach."""

    outcome: Literal["pass", "fail", "inconclusive"]
    decided_by: Clock | None = Field(default=None, description="clock of the run that decided a fail")
    summary: str


class Figure(Model):
    """A measurement of the candidate with the baseline's beside it, over the runs of one clock."""

    name: str = Field(description="what was measured, e.g. `schbench.wakeup_latency.p99`")
    scenario: str
    clock: Clock
    unit: str
    better: Literal["lower", "higher"]
    candidate: float | None
    baseline: float | None
    samples: int = Field(description="samples behind the candidate's figure")
    baseline_samples: int
    ratio: float | None = Field(default=None, description="candidate / baseline")
    resolution: float = Field(default=0.0, description="differences below this (in `unit`) mean nothing")
    floor: float = Field(
        default=0.0,
        description="differences up to this share of the smaller value mean nothing: chance makes them, or the policy "
        "says so",
    )
    judgement: Literal["better", "worse", "not distinguishable", "not measured"]


class Benefit(Model):
    """Better or worse than the baseline, with figures; never part of safety."""

    outcome: Literal["better", "worse", "mixed", "not distinguishable", "not measured"]
    summary: str
    figures: tuple[Figure, ...] = ()


class CandidateFacts(Model):
    """Which bytes were judged."""

    kind: Literal["source", "object", "program"]
    name: str = Field(description="file name without directories")
    sha256: str = Field(description="of the canonical manifest over all parts below")
    source_sha256: str | None = None
    object_sha256: str | None = None
    program_sha256: str | None = None
    libraries: dict[str, str] = Field(default_factory=dict, description="soname → sha256")
    options: tuple[str, ...] = ()
    ops_name: str | None = None
    programs: tuple[ProgramFacts, ...] = ()


class ProgramFacts(Model):
    """What the verifier said of one BPF program."""

    name: str
    section: str = ""
    instructions: int | None = None
    verified_instructions: int | None = None


class BaselineFacts(Model):
    """What the candidate's figures are compared with. Thresholds and what excuses from them are always EEVDF's."""

    kind: Literal["eevdf", "source", "object", "program"] = "eevdf"
    name: str = "EEVDF"
    sha256: str = Field(default="", description="of the canonical manifest over all parts; empty for EEVDF")
    options: tuple[str, ...] = ()
    note: str = Field(default="", description="of a case: what it was judged under, where that differs")


class Measurement(Model):
    """One figure of one run."""

    name: str
    unit: str
    value: float
    samples: int
    labels: dict[str, str] = Field(default_factory=dict)


class RunResult(Model):
    """One guest boot as the judge saw it."""

    run: str = Field(description="directory below the case, e.g. `runs/003`")
    role: Role
    status: Status
    accelerator: str
    topology: Topology
    seed: int
    repeats: str | None = None
    ended: str
    virtual_ms: int | None = Field(default=None, description="guest time at the last event")
    measurements: tuple[Measurement, ...] = ()


class ScenarioResult(Model):
    """What one scenario said under one clock."""

    name: str
    clock: Clock
    required: bool
    status: Status
    reason: str = ""
    runs: tuple[RunResult, ...] = ()


class ControlResult(Model):
    """What a scheduler got whose answer is known: it judges the testbed."""

    name: str
    run: str
    expected: Literal["pass", "fail"]
    got: str = Field(description="`pass`, `fail`, `error`; empty: the case ended before it ran")

    def __str__(self) -> str:
        if self.got == self.expected:
            return f"{self.name} {'passed' if self.got == 'pass' else 'was caught'}"
        return f"{self.name}: expected {self.expected}, got {self.got}" if self.got else f"{self.name} did not run"


class EvidenceRef(Model):
    """A place in the case."""

    file: str
    line: int | None = Field(default=None, ge=1)
    text: str = Field(default="", max_length=400)


class Finding(Model):
    """One thing that was found, with its code (`testbed explain CODE`)."""

    code: str
    status: Status
    title: str = Field(description="stable fingerprint: no numbers that vary from run to run")
    scenario: str = ""
    clock: Clock | None = None
    message: str
    evidence: tuple[EvidenceRef, ...] = ()
    cause: str
    hint: str
    confirmed: bool = Field(default=False, description="seen again when its run was repeated")


class NotChecked(Model):
    """Something that this verdict says nothing about."""

    code: str
    reason: str
    how: str
    mode: int | None = Field(default=None, description="number of a failure mode (docs/reference/failure-modes.md)")


class WorkloadFacts(Model):
    """A benchmark program of the runs."""

    origin: Literal["image", "given"] = Field(description="`image`: our own; `given`: by option or on PATH")
    name: str = Field(description="file name without directories")
    sha256: str = Field(description="of the program; of a workload with a file: over all that travels")
    libraries: dict[str, str] = Field(default_factory=dict, description="soname → sha256 of what it brought along")


class ToolFacts(Model):
    """Who judged."""

    testbed: str
    judge: int = Field(description="version of the judging rules")
    qemu: str
    qemu_sha256: str
    clang: str
    runner_sha256: str
    schbench: WorkloadFacts | None = Field(default=None, description="null: no scenario runs it")
    workload: WorkloadFacts | None = Field(default=None, description="the user's own (`--workload`); null: none")


class KernelFacts(Model):
    """The kernel that the guest booted."""

    release: str
    version: str = Field(description="package version")
    sha256: str


class ImageFacts(Model):
    """The image that the guest booted."""

    id: str
    recipe: str


class PolicyFacts(Model):
    """What was demanded."""

    name: str
    sha256: str


class Verdict(Model):
    """The whole answer. Holds no absolute path and no time of the host."""

    schema_: Literal["testbed.verdict/1"] = Field(default="testbed.verdict/1", alias="schema")
    id: str = Field(description="sha256 over everything below except `id`, first 16 hex digits")
    verdict: Outcome
    exit_code: int
    complete: bool
    title: str
    safety: Safety
    benefit: Benefit
    candidate: CandidateFacts
    baseline: BaselineFacts
    kernel: KernelFacts | None
    image: ImageFacts | None
    tool: ToolFacts
    policy: PolicyFacts
    scenarios: tuple[ScenarioResult, ...]
    controls: tuple[ControlResult, ...] = ()
    findings: tuple[Finding, ...]
    not_checked: tuple[NotChecked, ...]
