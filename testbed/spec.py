# SPDX-License-Identifier: Apache-2.0
"""What one guest boot is to do: everything that a sim run is a function of, by content."""

from __future__ import annotations

import hashlib
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Model(BaseModel):
    """A frozen value that refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Clock(StrEnum):
    """`sim`: deterministic, parallel virtual time. `live`: real time."""

    SIM = "sim"
    LIVE = "live"


class Role(StrEnum):
    """Why a run is part of a case."""

    CANDIDATE = "candidate"
    BASELINE = "baseline"
    CONTROL = "control"


class Topology(Model):
    """The machine that the guest sees."""

    cpus: int = Field(ge=1, le=64)
    memory_mb: int = Field(ge=128, le=65536)


class RunSpec(Model):
    """One guest boot. In `sim` its evidence is a pure function of this value and the bytes that it names.

    Attributes:
        number: place in the case, also the name of the run's directory (`runs/007`).
        repeats: number of the run that this one repeats to confirm it, or None.
        candidate: sha256 of the artifact that is attached; empty for EEVDF.
        job: the job text for the guest runner (docs/reference/guest-protocol.md).
        files: sha256 of the cpio archive that travels with the job.
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
