# SPDX-License-Identifier: Apache-2.0
"""Policies: what a verdict demands, with a reason beside every number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from testbed.data import data_directory
from testbed.errors import UsageError
from testbed.scenario.model import Name
from testbed.spec import Clock, Model, sha256
from testbed.verdict import PolicyFacts
from testbed.yamlfile import Document, DurationMs, did_you_mean, read

Reason = Annotated[str, StringConstraints(min_length=12, strip_whitespace=True)]


class Demand(Model):
    """A scenario under a clock, and whether the verdict needs it.

    Attributes:
        seed: this one order of events (sim), and the scenario's own machine, whatever an option says; None: the
            policy's `seeds`.
        seeds: so many orders of events at least (sim), even where the policy has fewer.
    """

    name: Name
    clock: Clock
    required: bool
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    seeds: int = Field(default=1, ge=1, le=100)
    reason: Reason


class GapThreshold(Model):
    """Found when above the floor and above factor × baseline."""

    floor: DurationMs
    factor: float = Field(ge=1)
    reason: Reason


class IdleThreshold(Model):
    """Found when above the floor (share of CPU time) and above factor × baseline."""

    floor: float = Field(ge=0, le=1)
    factor: float = Field(ge=1)
    reason: Reason


class WorkThreshold(Model):
    """Found when below floor × baseline."""

    floor: float = Field(gt=0, le=1)
    reason: Reason


class ShareThreshold(Model):
    """Found when the most work of one of several equal tasks, in times of the least, is above both.

    Attributes:
        floor: so many times the least is never too much.
        factor: and so many times what it is under the baseline.
        window: guest time over which it is looked at, at least.
    """

    floor: float = Field(ge=1)
    factor: float = Field(ge=1)
    window: DurationMs
    reason: Reason


class Override(Model):
    """Other thresholds for one scenario."""

    gap: GapThreshold | None = None
    wait: GapThreshold | None = None
    idle: IdleThreshold | None = None
    wasted: IdleThreshold | None = None
    work: WorkThreshold | None = None
    share: ShareThreshold | None = None


class Thresholds(Model):
    """The numbers behind a scenario's checks.

    Attributes:
        wait: of waits that the oracle saw; the numbers of `gap` where there are none.
        wasted: of CPUs that the oracle saw idle beside a waiting task; the numbers of `idle` where there are none.
    """

    gap: GapThreshold
    wait: GapThreshold | None = None
    idle: IdleThreshold
    wasted: IdleThreshold | None = None
    work: WorkThreshold
    share: ShareThreshold
    overrides: dict[str, Override] = Field(default_factory=dict)


class BenefitDemand(Model):
    """How much worse than the baseline a candidate may be.

    Attributes:
        required: `nothing`: figures are told only; `not-collapsed`: a collapse rejects.
        collapse: a figure that is so many times worse than the baseline's has collapsed.
        latency_floor: a latency below this has not collapsed, whatever the baseline's is.
        indistinct: differences up to this share mean nothing, however far the noise floor has fallen.
    """

    required: Literal["nothing", "not-collapsed"]
    collapse: float = Field(gt=1)
    latency_floor: DurationMs
    indistinct: float = Field(default=0.02, ge=0, lt=1)
    reason: Reason


class Policy(Model):
    """A verdict policy."""

    schema_: Literal["testbed.policy/1"] = Field(alias="schema")
    kind: Literal["verdict"]
    name: Name
    description: str = Field(min_length=1)
    seeds: int = Field(default=1, ge=1, le=100)
    seeds_reason: Reason
    live_pairs: int = Field(default=5, ge=1, le=100)
    live_pairs_reason: Reason
    scenarios: tuple[Demand, ...] = Field(min_length=1)
    thresholds: Thresholds
    benefit: BenefitDemand

    def demand(self, scenario: str, clock: Clock) -> Demand | None:
        """What is demanded of a scenario under a clock, None if nothing."""
        return next(
            (one for one in self.scenarios if one.name == scenario and one.clock == clock),
            None,
        )

    def gap(self, scenario: str) -> GapThreshold:
        """The threshold for waiting times in a scenario."""
        override = self.thresholds.overrides.get(scenario)
        return (override and override.gap) or self.thresholds.gap

    def wait(self, scenario: str) -> GapThreshold:
        """The threshold for the oracle's waiting times in a scenario."""
        override = self.thresholds.overrides.get(scenario)
        return (override and (override.wait or override.gap)) or self.thresholds.wait or self.thresholds.gap

    def idle(self, scenario: str) -> IdleThreshold:
        """The threshold for idle CPUs in a scenario."""
        override = self.thresholds.overrides.get(scenario)
        return (override and override.idle) or self.thresholds.idle

    def wasted(self, scenario: str) -> IdleThreshold:
        """The threshold for CPUs that idle beside waiting tasks in a scenario."""
        override = self.thresholds.overrides.get(scenario)
        return (override and (override.wasted or override.idle)) or self.thresholds.wasted or self.thresholds.idle

    def work(self, scenario: str) -> WorkThreshold:
        """The threshold for work done in a scenario."""
        override = self.thresholds.overrides.get(scenario)
        return (override and override.work) or self.thresholds.work

    def share(self, scenario: str) -> ShareThreshold:
        """The threshold for the shares of equal tasks in a scenario."""
        override = self.thresholds.overrides.get(scenario)
        return (override and override.share) or self.thresholds.share


def facts(data: bytes, policy: Policy) -> PolicyFacts:
    """What a verdict says about its policy."""
    return PolicyFacts(name=policy.name, sha256=sha256(data))


def load_all(directory: Path | None = None) -> dict[str, Policy]:
    """All verdict policies of a folder (default: the ones that travel with the package), by name."""
    folder = directory or data_directory("policies") / "verdict"
    return {path.stem: parse(read(path), str(path)) for path in sorted(folder.glob("*.yaml"))}


def load(name_or_path: str) -> tuple[Policy, bytes]:
    """A policy by name, or by file if it looks like one, and its bytes."""
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
    else:
        folder = data_directory("policies") / "verdict"
        path = folder / f"{name_or_path}.yaml"
        if not path.is_file():
            known = [file.stem for file in folder.glob("*.yaml")]
            raise UsageError(f"there is no policy `{name_or_path}`", hint=did_you_mean(name_or_path, known))
    data = read(path)
    return parse(data, str(path)), data


def parse(data: bytes, file: str) -> Policy:
    """Check a policy's bytes; `file` is how messages name it."""
    document = Document(data, file)
    if isinstance(document.data, dict) and document.data.get("kind", "verdict") != "verdict":
        raise document.error(("kind",), f"this is a `{document.data['kind']}` policy, expected `kind: verdict`")
    policy = document.model(Policy)
    for place, message, hint in _mistakes(policy):
        raise document.error(place, message, hint)
    return policy


def _mistakes(policy: Policy) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    seen: set[tuple[str, Clock]] = set()
    names = {demand.name for demand in policy.scenarios}
    for index, demand in enumerate(policy.scenarios):
        if (demand.name, demand.clock) in seen:
            yield ("scenarios", index), f"`{demand.name}` under `{demand.clock}` is demanded twice", ""
        seen.add((demand.name, demand.clock))
    for name in policy.thresholds.overrides:
        if name not in names:
            yield (
                ("thresholds", "overrides", name),
                f"override for `{name}`, which the policy does not name",
                did_you_mean(name, names),
            )
