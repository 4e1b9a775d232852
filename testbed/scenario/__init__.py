# SPDX-License-Identifier: Apache-2.0
"""Scenarios: what is done to a guest while a candidate schedules it, and what is looked at.

A scenario is a YAML file (docs/reference/scenarios.md): `model` is what it may say. It is checked when it is loaded, so
that a mistake of its author costs no guest (`mistakes`), and compiled into the guest's job (`job`).
"""

from __future__ import annotations

import functools
from pathlib import Path

from testbed.data import data_directory
from testbed.scenario.job import (
    Job,
    effective_timeout_ms,
    hold_ms,
    job_text,
    parse_job,
    virtual_limit_ms,
    wall_limit_s,
)
from testbed.scenario.mistakes import mistakes
from testbed.scenario.model import CandidateKind, Scenario
from testbed.yamlfile import Document, read

__all__ = [
    "CandidateKind",
    "Job",
    "Scenario",
    "effective_timeout_ms",
    "hold_ms",
    "job_text",
    "load",
    "load_all",
    "mistakes",
    "parse",
    "parse_job",
    "virtual_limit_ms",
    "wall_limit_s",
]


def load_all(directory: Path | None = None) -> dict[str, Scenario]:
    """All scenarios of a folder (default: the ones that travel with the package), by name."""
    folder = directory or data_directory("scenarios")
    return {path.stem: load(path) for path in sorted(folder.glob("*.yaml"))}


def load(path: Path) -> Scenario:
    """Read and check one scenario file."""
    return parse(read(path), str(path))


@functools.lru_cache(maxsize=256)
def parse(data: bytes, file: str) -> Scenario:
    """Check a scenario's bytes; `file` is how messages name it."""
    document = Document(data, file)
    scenario = document.model(Scenario)
    for place, message, hint in mistakes(scenario, Path(file).stem):
        raise document.error(place, message, hint)
    return scenario
