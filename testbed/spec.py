# SPDX-License-Identifier: Apache-2.0
"""What one guest boot is to do: everything that a sim run is a function of, by content."""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class Model(BaseModel):
    """A frozen value that refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def first_mistake(error: ValidationError, whole: str = "") -> tuple[str, str]:
    """The first thing that a model refused: its place, with dots (`whole` if it is in no field), and what is wrong."""
    first = error.errors(include_url=False)[0]
    return ".".join(str(part) for part in first["loc"]) or whole, first["msg"]


def published_schema(model: type[BaseModel], title: str, description: str) -> dict[str, Any]:
    """JSON Schema of a document as it is written."""
    result: dict[str, Any] = model.model_json_schema(by_alias=True, mode="serialization")
    return result | {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": description,
    }


def schema_text_of(schema: dict[str, Any]) -> str:
    """A published schema, byte for byte."""
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


class Clock(StrEnum):
    """`sim`: deterministic, parallel virtual time. `live`: real time."""

    SIM = "sim"
    LIVE = "live"


class Role(StrEnum):
    """Why a run is part of a case.

    `baseline` is always EEVDF. `reference` is what figures are compared with where that is something else.
    """

    CANDIDATE = "candidate"
    BASELINE = "baseline"
    REFERENCE = "reference"
    CONTROL = "control"


class Topology(Model):
    """The machine that the guest sees; the defaults are one package of cores that share everything.

    Attributes:
        cpus: hardware threads that are there when the guest starts.
        memory_mb: memory of all nodes together, in MiB.
        threads: hardware threads of a core.
        llcs: groups of cores that share a last-level cache.
        nodes: NUMA nodes, each a package with `llcs / nodes` caches and an equal share of the memory.
    """

    cpus: int = Field(ge=1, le=64)
    memory_mb: int = Field(ge=128, le=65536)
    threads: int = Field(default=1, ge=1, le=2)
    llcs: int = Field(default=1, ge=1, le=16)
    nodes: int = Field(default=1, ge=1, le=8)

    @model_validator(mode="after")
    def _adds_up(self) -> Topology:
        if self.llcs % self.nodes:
            raise ValueError(
                f"{self.llcs} last-level caches on {self.nodes} nodes, expected the same number of `llcs` on each"
            )
        if self.cpus % (self.threads * self.llcs):
            raise ValueError(
                f"{self.cpus} CPUs can't be shared out evenly: `cpus` must be a multiple of "
                f"{self.threads * self.llcs}, `threads` ({self.threads}) times `llcs` ({self.llcs})"
            )
        if self.memory_mb % self.nodes:
            raise ValueError(f"{self.memory_mb} MiB can't be shared out evenly among {self.nodes} nodes")
        return self

    @property
    def cores(self) -> int:
        """Cores of the CPUs that are there."""
        return self.cpus // self.threads

    @property
    def plain(self) -> bool:
        """Whether nothing but the number of CPUs tells this machine from another one."""
        return self.threads * self.llcs == 1

    def __str__(self) -> str:
        """The machine in a few words, without its memory."""
        words = [_counted(self.cpus, "CPU")]
        if self.threads > 1:
            words.append(f"{self.threads} threads a core")
        if self.llcs > 1:
            words.append(_counted(self.llcs, "LLC"))
        if self.nodes > 1:
            words.append(_counted(self.nodes, "node"))
        return ", ".join(words)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


class RunSpec(Model):
    """One guest boot. In `sim` its evidence is a pure function of this value and the bytes that it names.

    Attributes:
        number: place in the case, also the name of the run's directory (`runs/007`).
        repeats: number of the run that this one repeats to confirm it, or None.
        candidate: sha256 of the artifact that is attached; empty for EEVDF.
        job: the job text for the guest runner (docs/reference/guest-protocol.md).
        files: sha256 of the cpio archive that travels with the job.
        attached: begins in a machine that was saved with the candidate attached (testbed/vm/snapshot.py), so that the
            job's first step, `attach`, is done before anybody looks (sim only).
        parallel_quantum: instructions that one vCPU may run ahead of another (sim only). With the default shift 10 µs,
            which is the resolution of what a run may say about latencies.
        icount_shift: one instruction takes 2**icount_shift virtual ns (sim only). The default makes a CPU of 250
            million instructions per second: waiting costs the host a third of what it does at 2**0, and work the same.
        wall_limit_s: after this much host time the run is given up as ERROR.
    """

    schema_: str = Field(default="testbed.run/1", alias="schema")
    number: int = Field(ge=0)
    role: Role
    scenario: str
    clock: Clock
    topology: Topology
    seed: int = Field(ge=0, lt=2**63)
    repeats: int | None = None
    candidate: str = ""
    job: str
    files: str
    image: str
    attached: bool = False
    parallel_quantum: int = Field(default=2_500, ge=1, le=10_000_000)
    icount_shift: int = Field(default=2, ge=0, le=10)
    wall_limit_s: int = Field(gt=0)

    @property
    def name(self) -> str:
        """Directory name of the run inside `runs/`."""
        return f"{self.number:03d}"


def sha256(data: bytes) -> str:
    """Hex SHA-256, the one content hash of the testbed."""
    return hashlib.sha256(data).hexdigest()
