# SPDX-License-Identifier: Apache-2.0
"""What a scenario file may say: its steps, windows, checks, figures and limits (docs/reference/scenarios.md)."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from testbed.spec import Model, Topology
from testbed.topology import PRESETS
from testbed.yamlfile import DurationMs, Percent, did_you_mean

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,47}$")]
Kind = Literal[
    "hog", "canary", "pipe", "kworker", "rcu", "fork", "churn", "migration", "renice", "yield", "lock", "cgroup"
]
Group = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,40}(/[a-z0-9_-]{1,40}){0,3}$")]
CandidateKind = Literal["object", "program"]

PROGRAMS = {
    "stress-ng": "/usr/bin/stress-ng",
    "hackbench": "/usr/bin/hackbench",
    "cyclictest": "/usr/bin/cyclictest",
    "rt-app": "/usr/bin/rt-app",
    "schbench": "/usr/bin/schbench",
    "busybox": "/usr/bin/busybox",
    "bpftool": "/usr/sbin/bpftool",
}
"""Programs of the image, by the name that a scenario may use."""

GIVEN = "/job/workload/"
"""Where a workload of the user's lies in the guest."""

THROUGHPUT = {
    "hog": "work",
    "churn": "work",
    "migration": "work",
    "renice": "work",
    "yield": "work",
    "lock": "work",
    "pipe": "roundtrips",
    "fork": "forks",
    "cgroup": "forks",
}
"""What a built-in load calls the work that it did."""
GAP_KINDS = ("canary", "pipe", "kworker", "rcu", "fork", "lock", "cgroup")
CLASSES = ("@others", "@kthreads", "@candidate")
"""Tasks of no load or program, as the guest's oracle names them (docs/reference/guest-protocol.md)."""


class Within(Model):
    """A step with a bound."""

    within: DurationMs


class Detach(Within):
    """The end of a candidate; `kill` ends a program by SIGKILL, so that it can't tidy up behind itself."""

    kill: bool = False


class Cycle(Model):
    """Attach and detach, many times."""

    times: int = Field(ge=1, le=1000)
    within: DurationMs


class Start(Model):
    """A built-in load."""

    name: Name
    kind: Kind
    count: int | None = Field(default=None, ge=1, le=1024)
    per_cpu: int | None = Field(default=None, ge=1, le=64, description="count per CPU of the topology")
    cpu: int | Literal["each", "any"] | None = None
    nice: int | None = Field(default=None, ge=-20, le=19)
    policy: Literal["other", "batch", "idle", "ext", "fifo"] | None = None
    period: DurationMs | None = None
    cgroup: Group | None = Field(default=None, description="where its tasks are, made by a step before")

    @model_validator(mode="after")
    def _one_count(self) -> Start:
        if self.count is not None and self.per_cpu is not None:
            raise ValueError("`count` and `per_cpu` exclude each other")
        return self

    @property
    def tasks_are_equal(self) -> bool:
        """Whether all tasks of the load want the same of every CPU, so that they ought to get the same."""
        return self.kind == "hog" and self.cpu in (None, "any")


class Exec(Model):
    """A program of the image, or of the workload that travels with the job, in the background."""

    name: Name
    argv: tuple[str, ...] = Field(min_length=1)

    @property
    def is_given(self) -> bool:
        """Whether it is the user's own, and not of the image."""
        return self.argv[0].startswith(GIVEN)


class Wait(Model):
    """Wait for a program."""

    name: Name
    within: DurationMs


class Hold(Model):
    """Let the candidate work; ends at once when it is no longer enabled."""

    at_least: DurationMs
    timeouts: float = Field(default=0.0, ge=0, le=10, description="and at least so many times `timeout_ms`")


class Write(Model):
    """Write a file of the guest."""

    path: str = Field(pattern=r"^/(sys|proc|dev)/")
    value: str | int


class Cpu(Model):
    """CPUs go offline or come online, one after the other."""

    offline: int | Literal["others"] | None = Field(default=None, description="a CPU, or all but CPU 0")
    online: int | Literal["others"] | None = None
    within: DurationMs = 5_000

    @model_validator(mode="after")
    def _one_way(self) -> Cpu:
        if (self.offline is None) == (self.online is None):
            raise ValueError("expected one of `offline` and `online`")
        if self.which != "others" and self.which < 1:
            raise ValueError("CPU 0 always stays online, expected a number from 1, or `others`")
        return self

    @property
    def how(self) -> str:
        """`offline` or `online`."""
        return "online" if self.offline is None else "offline"

    @property
    def which(self) -> int | Literal["others"]:
        """The CPU, or `others`."""
        which = self.online if self.offline is None else self.offline
        assert which is not None
        return which

    def numbers(self, cpus: int) -> range:
        """The CPUs of a machine that has `cpus`."""
        return range(1, cpus) if self.which == "others" else range(self.which, self.which + 1)


class Cgroup(Model):
    """A control group is made, with what is written into its files, or removed."""

    make: Group | None = None
    remove: Group | None = None
    files: dict[Annotated[str, StringConstraints(pattern=r"^[a-z]+(\.[a-z]+)+$")], str | int] = Field(
        default_factory=dict
    )

    @model_validator(mode="after")
    def _one_way(self) -> Cgroup:
        if (self.make is None) == (self.remove is None):
            raise ValueError("expected one of `make` and `remove`")
        if self.remove is not None and self.files:
            raise ValueError("`files` belong to `make`")
        return self


def _short_hold(value: object) -> object:
    return value if isinstance(value, dict) else {"at_least": value}


class Step(Model):
    """One step: exactly one verb."""

    attach: Within | None = None
    detach: Detach | None = None
    cycle: Cycle | None = None
    start: Start | None = None
    exec: Exec | None = None
    wait: Wait | None = None
    stop: tuple[Name, ...] | None = None
    sleep: DurationMs | None = None
    hold: Annotated[Hold, BeforeValidator(_short_hold)] | None = None
    begin: Name | None = None
    end: Name | None = None
    health: Within | None = None
    sysctl: dict[str, str | int] | None = None
    write: Write | None = None
    cpu: Cpu | None = None
    cgroup: Cgroup | None = None

    @model_validator(mode="after")
    def _one_verb(self) -> Step:
        if len(self.model_fields_set) != 1:
            raise ValueError("a step has exactly one verb")
        return self

    @property
    def verb(self) -> str:
        """The step's verb."""
        return next(iter(self.model_fields_set))

    @property
    def value(self) -> Any:
        """What stands behind the verb."""
        return getattr(self, self.verb)


class Check(Model):
    """A threshold check; the numbers are the policy's."""

    check: Literal["gap", "wait", "idle", "work", "share"]
    load: Annotated[str, StringConstraints(pattern=r"^@?[a-z0-9][a-z0-9_-]{0,47}$")]
    code: str


class Reading(Model):
    """How a figure is read from what a program printed, or that it is the time that the program took.

    Attributes:
        regex: its one group is the number; the last line that matches counts.
        json_path: keys with dots between them; the last JSON object on a line, or the output as one, counts.
        duration: seconds of guest time from the program's start to its end.
        unit: of the number.
    """

    regex: str | None = Field(default=None, min_length=1, max_length=400)
    json_path: str | None = Field(default=None, pattern=r"^[^.\s]{1,100}(\.[^.\s]{1,100}){0,9}$")
    duration: Literal[True] | None = None
    unit: str = Field(default="1", pattern=r"^[!-~]{1,20}$")

    @model_validator(mode="after")
    def _one_way(self) -> Reading:
        if sum(one is not None for one in (self.regex, self.json_path, self.duration)) != 1:
            raise ValueError("expected one of `regex`, `json_path` and `duration`")
        if self.regex is not None:
            check_regex(self.regex)
        return self


_REPEATED_TWICE = re.compile(r"(?:[+*]|\{\d*,\d*\})\??\)(?:[+*]|\{\d*,\d*\})")


def check_regex(pattern: str) -> None:
    """Raise ValueError for a pattern that gives no number, or may take for ever."""
    try:
        groups = re.compile(pattern, re.ASCII).groups
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"not a regular expression: {error}") from None
    if groups != 1:
        raise ValueError(f"the pattern has {groups} groups, expected one around the number; others are `(?:…)`")
    if _REPEATED_TWICE.search(pattern):
        raise ValueError("a repetition of a repetition, as in `(a+)+`, may take for ever")


class FigureSpec(Model):
    """A measurement that the benefit is told from.

    Attributes:
        read: of a program whose output the testbed does not know; `name` is then `PROGRAM.WORD`.
        allow_worse: share of the baseline's by which it may be worse; more than that, and more than noise, rejects.
    """

    name: str = Field(pattern=r"^@?[a-z0-9_-]+(\.[a-z0-9_-]+)+(\.p\d+(\.\d+)?|\.max)?$")
    better: Literal["lower", "higher"]
    required: bool = Field(default=False, description="a run without it says nothing: inconclusive, never passed")
    read: Reading | None = None
    allow_worse: Percent | None = None

    @property
    def program(self) -> str:
        """The first part of its name: a program, load, window or class."""
        return self.name.partition(".")[0]


class Needs(Model):
    """What the guest must have, and which kind of candidate it is about; others do not run it.

    Attributes:
        workload: sha256 of the workload of the user's that it runs (testbed/workload.py).
    """

    programs: tuple[str, ...] = ()
    candidate: CandidateKind | None = None
    workload: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


class Limits(Model):
    """Limits that nest: a timeout's ejection fits in `starved`, `starved` in `watchdog`, the steps in `virtual`."""

    virtual: DurationMs
    wall: DurationMs
    watchdog: DurationMs = 20_000
    starved: DurationMs = 5_000
    timeout: DurationMs = 3_000

    @property
    def virtual_ms(self) -> int:
        """Guest time that the whole job may take."""
        return self.virtual

    @property
    def wall_s(self) -> int:
        """Host time after which the run says nothing."""
        return -(-self.wall // 1000)

    @property
    def watchdog_ms(self) -> int:
        """Period of the virtual watchdog device."""
        return self.watchdog

    @property
    def starved_ms(self) -> int:
        """A runnable task that waits longer is reported."""
        return self.starved

    @property
    def timeout_ms(self) -> int:
        """Upper bound for `timeout_ms` of an object's ops."""
        return self.timeout


def named_topology(value: object) -> object:
    """The machine of that name; what is no name is left as it is."""
    if not isinstance(value, str):
        return value
    if value not in PRESETS:
        raise ValueError(f"there is no topology `{value}`; {did_you_mean(value, PRESETS)}")
    return PRESETS[value]


class Scenario(Model):
    """A scenario file."""

    schema_: Literal["testbed.scenario/1"] = Field(alias="schema")
    name: Name
    title: str = Field(min_length=1, max_length=80)
    description: str = Field(min_length=1)
    catches: tuple[str, ...] = Field(min_length=1)
    needs: Needs = Needs()
    topology: Annotated[Topology, BeforeValidator(named_topology)] = PRESETS["two"]
    limits: Limits
    steps: tuple[Step, ...] = Field(min_length=1)
    checks: tuple[Check, ...] = ()
    figures: tuple[FigureSpec, ...] = ()

    def loads(self) -> dict[str, Start]:
        """The built-in loads by name."""
        return {step.start.name: step.start for step in self.steps if step.start}

    def programs(self) -> dict[str, Exec]:
        """The programs by name."""
        return {step.exec.name: step.exec for step in self.steps if step.exec}

    def is_bounded(self, group: str) -> bool:
        """Whether a cgroup, or one above it, has room for so many processes only."""
        made = [step.cgroup for step in self.steps if step.cgroup and step.cgroup.make]
        return any(f"{group}/".startswith(f"{one.make}/") and "pids.max" in one.files for one in made)

    def windows(self) -> tuple[str, ...]:
        """The measurement windows."""
        return tuple(step.begin for step in self.steps if step.begin)
