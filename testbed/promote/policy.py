# SPDX-License-Identifier: Apache-2.0
"""Promotion policies: what must have been shown of a scheduler before a host takes it, and how long it is watched.

They demand verdicts and repeat no number of one: what is safe is said by the verdict policies that they accept.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from testbed import policy as verdict_policies
from testbed.data import data_directory
from testbed.errors import UsageError
from testbed.judge import modes, unseen
from testbed.policy import Reason
from testbed.scenario.model import Name
from testbed.spec import Clock, Model
from testbed.topology import PRESETS
from testbed.yamlfile import Document, DurationMs, did_you_mean, read

SCHEMA = "testbed.promotion/1"


class Accepted(Model):
    """A verdict policy whose pass counts. Its bytes and its scenarios must be the installed ones."""

    policy: Name
    reason: Reason


class Risk(Model):
    """Something that verdicts say nothing about, accepted by its name (`not_checked` of a verdict)."""

    code: str = Field(min_length=1)
    reason: Reason


class Runs(Model):
    """What must have been among the runs.

    Attributes:
        clocks: each of them.
        seeds: so many orders of events of every scenario, under `sim`.
        topologies: names of machines, each of them; empty: the scenarios' own are enough.
    """

    clocks: tuple[Clock, ...] = Field(min_length=1)
    seeds: int = Field(ge=1, le=1000)
    topologies: tuple[str, ...] = ()
    reason: Reason


class BenefitDemand(Model):
    """How the candidate must compare with the baseline."""

    demand: Literal["nothing", "not-worse", "better"]
    reason: Reason


class Signatures(Model):
    """Whose word counts. The keys themselves are the host's: a file that only its root can write."""

    self_signed: bool
    reason: Reason


class Stage(Model):
    """A part of a canary's life.

    Attributes:
        scope: `partial`: only tasks that ask for SCHED_EXT; `all`: every ordinary task.
        duration: how long it is watched before the next stage.
    """

    name: Name
    scope: Literal["partial", "all"]
    duration: DurationMs = Field(ge=1000)
    reason: Reason


class Limits(Model):
    """What takes a canary back.

    Attributes:
        watchdog: the kernel's own timeout for a runnable task, lowered to this.
        wait: a task of ordinary class that waits longer for a CPU.
        pressure: share of time in which some task waits for a CPU (PSI, avg10), in percent above what it was before.
        detach: how long the way back may take.
        attempts: how often the same scheduler may be tried again after a rollback, by whomever.
    """

    watchdog: DurationMs = Field(ge=100, le=30_000)
    wait: DurationMs = Field(ge=10)
    pressure: float = Field(gt=0, le=100)
    detach: DurationMs = Field(ge=100, le=10_000)
    attempts: int = Field(ge=1, le=10)
    reason: Reason


class PromotionPolicy(Model):
    """What a promotion demands."""

    schema_: Literal["testbed.promotion/1"] = Field(alias="schema")
    kind: Literal["promotion"]
    name: Name
    description: str = Field(min_length=1)
    accepts: tuple[Accepted, ...] = Field(min_length=1)
    runs: Runs
    max_age_days: int = Field(ge=1, le=3650)
    max_age_reason: Reason
    same_kernel: bool
    same_kernel_reason: Reason
    benefit: BenefitDemand
    risks: tuple[Risk, ...] = ()
    signatures: Signatures
    canary: tuple[Stage, ...] = Field(min_length=1, max_length=16)
    limits: Limits
    persist: bool
    persist_reason: Reason


def load_all(directory: Path | None = None) -> dict[str, PromotionPolicy]:
    """All promotion policies of a folder (default: the ones that travel with the package), by name."""
    folder = directory or data_directory("policies") / "promotion"
    return {path.stem: parse(read(path), str(path)) for path in sorted(folder.glob("*.yaml"))}


def load(name_or_path: str) -> PromotionPolicy:
    """A policy by name, or by file if it looks like one.

    Raises:
        UsageError: there is none of that name.
        ScenarioError: it is wrong.
    """
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
    else:
        folder = data_directory("policies") / "promotion"
        path = folder / f"{name_or_path}.yaml"
        if not path.is_file():
            known = [file.stem for file in folder.glob("*.yaml")]
            if name_or_path in verdict_policies.load_all():
                raise UsageError(
                    f"`{name_or_path}` is a verdict policy, expected a promotion policy",
                    hint=f"there are {', '.join(sorted(known))}",
                )
            raise UsageError(f"there is no promotion policy `{name_or_path}`", hint=did_you_mean(name_or_path, known))
    return parse(read(path), str(path))


def parse(data: bytes, file: str) -> PromotionPolicy:
    """Check a policy's bytes; `file` is how messages name it.

    Raises:
        ScenarioError: it is wrong; says where.
    """
    document = Document(data, file)
    if isinstance(document.data, dict) and document.data.get("kind", "promotion") != "promotion":
        raise document.error(("kind",), f"this is a `{document.data['kind']}` policy, expected `kind: promotion`")
    policy = document.model(PromotionPolicy)
    for place, message, hint in _mistakes(policy):
        raise document.error(place, message, hint)
    return policy


def _mistakes(policy: PromotionPolicy) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    known = set(verdict_policies.load_all())
    for index, one in enumerate(policy.accepts):
        if one.policy not in known:
            yield (
                ("accepts", index, "policy"),
                f"there is no verdict policy `{one.policy}`",
                did_you_mean(one.policy, known),
            )
    codes = {*unseen.CODES, *modes.CODES, modes.ANY_MODE}
    for index, risk in enumerate(policy.risks):
        if risk.code not in codes:
            yield ("risks", index, "code"), f"no verdict has the risk `{risk.code}`", did_you_mean(risk.code, codes)
    for index, name in enumerate(policy.runs.topologies):
        if name not in PRESETS:
            yield ("runs", "topologies", index), f"there is no topology `{name}`", did_you_mean(name, PRESETS)
    names = [stage.name for stage in policy.canary]
    for index, stage in enumerate(policy.canary):
        if stage.name in names[:index]:
            yield ("canary", index, "name"), f"two stages are called `{stage.name}`", ""
        if stage.scope == "partial" and index and policy.canary[index - 1].scope == "all":
            yield ("canary", index, "scope"), "a partial stage behind one for all tasks", "begin with the small one"
    if policy.limits.wait > policy.limits.watchdog:
        yield (
            ("limits", "wait"),
            f"{policy.limits.wait} ms is longer than the watchdog's {policy.limits.watchdog} ms",
            "limits nest: the kernel's watchdog would come first",
        )
