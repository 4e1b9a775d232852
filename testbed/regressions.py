# SPDX-License-Identifier: Apache-2.0
"""Minimal runs that failed once, to be run first from then on (docs/guides/minimize.md).

Each entry becomes a scenario of its own that the verdict requires, under the one seed and on the one machine on which
it failed. The policy that lies in a case holds them, so that a case can be judged without the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from testbed.case import Case, write_atomic
from testbed.errors import UsageError
from testbed.policy import Demand, Policy
from testbed.scenario import Scenario, mistakes
from testbed.spec import Clock, Model, Role
from testbed.yamlfile import Document, plain, read, write

PREFIX = "regression-"
_Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,35}$")]


class Regression(Model):
    """One run that failed.

    Attributes:
        name: of the entry; its scenario is called `regression-NAME`.
        candidate: whom it is for: `any`, or the sha256 of one candidate as a verdict names it.
        title: under which it failed, for the reader.
        seed: of the run.
        scenario: the steps, with the machine.
    """

    name: _Slug
    candidate: str = Field(default="any", pattern=r"^(any|[0-9a-f]{64})$")
    title: str = Field(min_length=1)
    seed: int = Field(ge=0, lt=2**63)
    scenario: Scenario

    @property
    def own_scenario(self) -> Scenario:
        """The scenario under the entry's name."""
        return self.scenario.model_copy(update={"name": f"{PREFIX}{self.name}"})


class Regressions(Model):
    """A regression file."""

    schema_: Literal["testbed.regressions/1"] = Field(alias="schema")
    runs: tuple[Regression, ...] = Field(min_length=1)


def load(path: Path) -> Regressions:
    """Read and check a file.

    Raises:
        UsageError: it can't be read, or can't be meant; the message names the line.
    """
    document = Document(read(path), str(path))
    found = document.model(Regressions)
    for place, message, hint in _mistakes(found):
        raise document.error(place, message, hint)
    return found


def _mistakes(found: Regressions) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    seen: set[str] = set()
    for index, one in enumerate(found.runs):
        if one.name in seen:
            yield ("runs", index, "name"), f"`{one.name}` is used twice", "names of entries are unique"
        seen.add(one.name)
        for place, message, hint in mistakes(one.scenario, one.scenario.name):
            yield ("runs", index, "scenario", *place), message, hint


def demanded(
    policy: Policy, data: bytes, found: Regressions | None, candidate: str | None
) -> tuple[Policy, bytes, dict[str, Scenario]]:
    """A policy that requires the runs of a file first, its bytes, and their scenarios by name.

    Args:
        policy: as it was given.
        data: its bytes.
        found: the file; None leaves the policy as it is.
        candidate: sha256 of the candidate; None: not known yet, so that every entry counts.
    """
    ones = [one for one in found.runs if candidate is None or one.candidate in ("any", candidate)] if found else []
    if not ones:
        return policy, data, {}
    scenarios = {one.own_scenario.name: one.own_scenario for one in ones}
    demands = tuple(
        Demand(
            name=one.own_scenario.name,
            clock=Clock.SIM,
            required=True,
            seed=one.seed,
            reason=f"a candidate failed in it once: {one.title}",
        )
        for one in ones
    )
    overrides = dict(policy.thresholds.overrides)
    for one in ones:
        if one.scenario.name in overrides:
            overrides[one.own_scenario.name] = overrides[one.scenario.name]
    thresholds = policy.thresholds.model_copy(update={"overrides": overrides})
    longer = policy.model_copy(update={"scenarios": (*demands, *policy.scenarios), "thresholds": thresholds})
    return longer, write(plain(longer)), scenarios


def add(path: Path, minimal: Path) -> str:
    """Put the run of a minimal case into a file, which is made if there is none; returns the entry's name.

    A run that the file has already is not added again.

    Raises:
        UsageError: the file is something else, or can't be written.
    """
    case = Case.open(minimal)
    run = next(one for one in case.runs if one.spec.role is Role.CANDIDATE)
    own = case.scenarios()[run.spec.scenario]
    known = load(path).runs if path.exists() else ()
    for one in known:
        if (one.scenario.steps, one.scenario.topology, one.seed) == (own.steps, own.topology, run.spec.seed):
            return one.name
    assert case.artifact is not None
    assert case.verdict is not None
    stem = f"{case.artifact.candidate.name.partition('.')[0]}-{own.name}".lower()
    stem = re.sub(r"[^a-z0-9_-]+", "-", stem).strip("-_")[:32] or "run"
    names = [stem, *(f"{stem}-{number}" for number in range(2, 1000))]
    name = next(one for one in names if one not in {entry.name for entry in known})
    entry = Regression(name=name, candidate="any", title=case.verdict.title, seed=run.spec.seed, scenario=own)
    try:
        write_atomic(path, _text((*known, entry)))
    except OSError as error:
        raise UsageError(f"`{path}` can't be written: {(error.strerror or '').lower()}") from error
    return name


def _text(runs: tuple[Regression, ...]) -> bytes:
    data: dict[str, Any] = {"schema": "testbed.regressions/1", "runs": [plain(one) for one in runs]}
    return b"# Runs in which a candidate failed; made by `testbed minimize --add`.\n" + write(data)
