# SPDX-License-Identifier: Apache-2.0
"""Scenarios: what is done to a guest while a candidate schedules it, and what is looked at.

A scenario is a YAML file (docs/reference/scenarios.md). It is checked when it is loaded, so that a mistake of its
author costs no guest, and compiled into the job of docs/reference/guest-protocol.md.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from testbed.errors import Bug, ScenarioError, UsageError
from testbed.spec import Model, Topology
from testbed.topology import PRESETS
from testbed.yamlfile import Document, DurationMs, Percent, did_you_mean, read

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

PROGRAM_TIMEOUT_MS = 5_000
"""`timeout_ms` of the kernel's own example schedulers; assumed of a program, whose ops we can't see beforehand."""

WATCHDOG_SLACK = 1.5
"""The kernel looks every half timeout, so a stall shows between one timeout and one and a half."""

ATTACH_STRETCH = 5
"""A scheduler may take so many times a step's `within` to be enabled. The wait ends when it is enabled, refused or
gone, so patience costs good ones nothing. The verifier alone takes 64 s of guest time (250 MIPS) for scx_lavd."""

CYCLE_PAUSE_MS = 50
STOP_MS = 6_000
"""The runner's own bounds: SIGTERM for 1 s, SIGKILL for 5 s; 5 s for a fork and 5 s for its sign of life."""
START_MS = 10_000
EXEC_MS = 5_000
CGROUP_MS = 10_000
HEALTH_PROBES_BESIDE_CPUS = 3  # write, kworker, rcu
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
CALLBACK_FIGURES = ("callbacks", "callback", "oracle")
"""Figures that rest on the kernel's statistics of BPF programs, which are off unless a scenario names one of these."""
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


# --- loading -------------------------------------------------------------------------------------------------


def data_directory(kind: Literal["scenarios", "policies", "vm_images", "bpf", "host"]) -> Path:
    """Where the files that travel with the package are: inside a wheel, or at the top of a clone."""
    package = Path(__file__).resolve().parent
    for folder in (package / "data" / kind, package.parent / kind):
        if folder.is_dir():
            return folder
    raise Bug(f"the package has no `{kind}`")


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


Mistake = tuple[tuple[str | int, ...], str, str]


def mistakes(scenario: Scenario, stem: str) -> Iterator[Mistake]:
    """What a model of single values can't see: place, message, hint; `stem` is the name that it must have."""
    from testbed.judge.catalogue import CODES

    if scenario.name != stem:
        yield ("name",), f"`name` is `{scenario.name}`, expected the file's name `{stem}`", ""
    for index, code in enumerate(scenario.catches):
        if code not in CODES:
            yield ("catches", index), f"unknown finding code `{code}`", did_you_mean(code, CODES)
    for index, program in enumerate(scenario.needs.programs):
        if program not in PROGRAMS:
            yield (
                ("needs", "programs", index),
                f"the image has no program `{program}`",
                did_you_mean(program, PROGRAMS),
            )
    yield from _step_mistakes(scenario)
    yield from _group_mistakes(scenario)
    yield from _reference_mistakes(scenario, CODES)
    yield from _limit_mistakes(scenario)


def _step_mistakes(scenario: Scenario) -> Iterator[Mistake]:
    started: set[str] = set()
    executed: set[str] = set()
    open_windows: list[str] = []
    attached = False
    for index, step in enumerate(scenario.steps):
        place = ("steps", index, step.verb)
        match step.verb, step.value:
            case (("start" | "exec"), value):
                if value.name in started | executed or value.name in scenario.windows():
                    yield (*place, "name"), f"`{value.name}` is used twice", "names of loads are unique"
                (started if step.start else executed).add(value.name)
                if step.exec and not step.exec.is_given:
                    program = Path(value.argv[0]).name
                    if program not in PROGRAMS:
                        yield (
                            (*place, "argv"),
                            f"the image has no program `{program}`",
                            did_you_mean(program, PROGRAMS),
                        )
                    elif program not in scenario.needs.programs:
                        yield (*place, "argv"), f"`{program}` is not among `needs.programs`", ""
            case "wait", value:
                if value.name not in executed:
                    yield (*place, "name"), f"`{value.name}` was not started by `exec`", ""
            case "stop", names:
                for position, name in enumerate(names):
                    if name not in started | executed:
                        yield (
                            (*place, position),
                            f"`{name}` was not started",
                            did_you_mean(name, started | executed) if started | executed else "",
                        )
            case "begin", name:
                if open_windows:
                    yield place, f"window `{open_windows[0]}` is still open", "one window at a time"
                open_windows.append(name)
            case "end", name:
                if name not in open_windows:
                    yield place, f"window `{name}` is not open", ""
                else:
                    open_windows.remove(name)
            case (("attach" | "cycle"), _):
                if attached:
                    yield place, f"`{step.verb}` while attached", "`detach` first"
                attached = step.verb == "attach"
            case "detach", _:
                if not attached:
                    yield place, "`detach` without `attach`", ""
                attached = False
            case "cpu", value:
                present = scenario.topology.cpus
                if value.which != "others" and value.which >= present:
                    yield (*place, value.how), f"there is no CPU {value.which}", f"the machine has {present}, from 0"
            case "sysctl", values:
                for name in values:
                    if not re.fullmatch(r"[a-z0-9_]+([./][a-z0-9_]+)+", name):
                        yield (*place, name), f"`{name}` is not the name of a sysctl", ""
            case _:
                pass
    if open_windows:
        yield ("steps",), f"window `{open_windows[0]}` is never closed", f"add `end: {open_windows[0]}`"


def _group_mistakes(scenario: Scenario) -> Iterator[Mistake]:
    """Cgroups that are used, removed or made below another one, and are not there."""
    groups: set[str] = set()
    for index, step in enumerate(scenario.steps):
        place = ("steps", index, step.verb)
        if step.start and step.start.cgroup is not None and step.start.cgroup not in groups:
            hint = did_you_mean(step.start.cgroup, groups) if groups else "add a step `cgroup: {make: …}` before it"
            yield (*place, "cgroup"), f"cgroup `{step.start.cgroup}` was not made", hint
        if step.cgroup is None:
            continue
        if step.cgroup.make is None:
            assert step.cgroup.remove is not None
            if step.cgroup.remove not in groups:
                yield (*place, "remove"), f"cgroup `{step.cgroup.remove}` was not made", ""
            groups.discard(step.cgroup.remove)
            continue
        parent = step.cgroup.make.rpartition("/")[0]
        if step.cgroup.make in groups:
            yield (*place, "make"), f"cgroup `{step.cgroup.make}` is made twice", ""
        if parent and parent not in groups:
            yield (*place, "make"), f"cgroup `{parent}` was not made", f"add `cgroup: {{make: {parent}}}` before it"
        groups.add(step.cgroup.make)


def _reference_mistakes(scenario: Scenario, codes: object) -> Iterator[Mistake]:
    loads, programs, windows = scenario.loads(), scenario.programs(), scenario.windows()
    known = {*loads, *programs, *windows, *CLASSES}
    for index, check in enumerate(scenario.checks):
        place = ("checks", index)
        allowed = {
            "gap": {name for name, start in loads.items() if start.kind in GAP_KINDS},
            "wait": {*loads, *programs, *CLASSES},
            "idle": set(windows),
            "work": {name for name, start in loads.items() if start.kind in THROUGHPUT} | set(programs),
            "share": {name for name, start in loads.items() if start.tasks_are_equal},
        }[check.check]
        if check.load not in allowed:
            yield (
                (*place, "load"),
                f"`{check.load}` has no `{check.check}` to check",
                did_you_mean(check.load, allowed) if allowed else "",
            )
        if check.code not in codes:  # type: ignore[operator]
            yield (
                (*place, "code"),
                f"unknown finding code `{check.code}`",
                did_you_mean(check.code, codes),  # type: ignore[arg-type]
            )
    for index, figure in enumerate(scenario.figures):
        load = figure.program
        if figure.read is not None and load not in programs:
            yield ("figures", index, "read"), f"`{load}` is no program whose output could be read", ""
        elif load not in known:
            yield (
                ("figures", index, "name"),
                f"`{load}` is neither a load nor a window",
                did_you_mean(load, known) if known else "",
            )


def _limit_mistakes(scenario: Scenario) -> Iterator[Mistake]:
    limits = scenario.limits
    total = sum(step_limit_ms(scenario, step, "object", None, stretch=1) for step in scenario.steps)
    if total > limits.virtual_ms:
        yield (
            ("limits", "virtual"),
            f"the steps may take {total} ms, more than `limits.virtual` of {limits.virtual_ms} ms",
            f"raise it to {-(-total // 1000)}s, or shorten a step",
        )
    if limits.starved_ms < WATCHDOG_SLACK * limits.timeout_ms:
        yield (
            ("limits", "starved"),
            f"`starved` is {limits.starved_ms} ms, before the kernel's own watchdog has looked",
            f"at least {int(WATCHDOG_SLACK * limits.timeout_ms)}ms, 1.5 × `timeout`",
        )
    if not limits.starved_ms < limits.watchdog_ms < limits.virtual_ms:
        yield (
            ("limits",),
            "limits do not nest",
            "`starved` < `watchdog` < `virtual`",
        )


# --- compiling -----------------------------------------------------------------------------------------------


def encode_word(word: str) -> str:
    """One word of a job: what could end it or confuse it is percent-encoded."""
    if not word:
        return "%"
    return "".join(
        chr(byte) if 0x21 <= byte <= 0x7E and byte != ord("%") else f"%{byte:02X}"
        for byte in word.encode("utf-8", "surrogateescape")
    )


def decode_word(word: str) -> str:
    """The inverse of `encode_word`; raises ValueError for what it never writes."""
    if word == "%":
        return ""
    if not re.fullmatch(r"(?:[!-$&-~]|%[0-9A-F]{2})+", word):
        raise ValueError(f"`{word}` is not a word of a job")
    raw = re.sub(rb"%([0-9A-F]{2})", lambda found: bytes([int(found[1], 16)]), word.encode("ascii"))
    return raw.decode("utf-8", "surrogateescape")


def line(*words: str | int) -> str:
    """One line of a job."""
    return " ".join(encode_word(str(word)) for word in words) + "\n"


def effective_timeout_ms(scenario: Scenario, kind: CandidateKind, candidate_timeout_ms: int | None) -> int:
    """The `timeout_ms` that the kernel will keep: capped for an object, the program's own for a program."""
    if kind == "program":
        return candidate_timeout_ms or PROGRAM_TIMEOUT_MS
    return min(candidate_timeout_ms or scenario.limits.timeout_ms, scenario.limits.timeout_ms)


def hold_ms(hold: Hold, timeout_ms: int) -> int:
    """How long a `hold` lasts, so that a stall under `timeout_ms` shows in it."""
    return max(hold.at_least, -(-int(hold.timeouts * timeout_ms * 10) // 10))


def step_limit_ms(
    scenario: Scenario,
    step: Step,
    kind: CandidateKind,
    candidate_timeout_ms: int | None,
    cpus: int | None = None,
    stretch: int = ATTACH_STRETCH,
) -> int:
    """The longest that a step may take."""
    match step.verb, step.value:
        case "attach", value:
            return int(value.within) * stretch
        case (("detach" | "wait"), value):
            return int(value.within)
        case "cycle", value:
            return int(value.times * (2 * value.within * stretch + CYCLE_PAUSE_MS))
        case "cpu", value:
            return int(len(value.numbers(cpus or scenario.topology.cpus)) * value.within)
        case "health", value:
            return int(((cpus or scenario.topology.cpus) + HEALTH_PROBES_BESIDE_CPUS) * value.within)
        case "hold", value:
            return hold_ms(value, effective_timeout_ms(scenario, kind, candidate_timeout_ms))
        case "sleep", value:
            return int(value)
        case "stop", names:
            return STOP_MS * len(names)
        case "start", _:
            return START_MS
        case "exec", _:
            return EXEC_MS
        case "cgroup", _:
            return CGROUP_MS
        case _:
            return 0


def virtual_limit_ms(
    scenario: Scenario, kind: CandidateKind, candidate_timeout_ms: int | None = None, cpus: int | None = None
) -> int:
    """`limits.virtual`, and what patience, a program's longer timeout or a larger machine adds to the steps."""

    def total(kind: CandidateKind, timeout_ms: int | None, cpus: int | None, stretch: int) -> int:
        return sum(step_limit_ms(scenario, step, kind, timeout_ms, cpus, stretch) for step in scenario.steps)

    extra = total(kind, candidate_timeout_ms, cpus, ATTACH_STRETCH) - total("object", None, None, 1)
    return scenario.limits.virtual_ms + max(0, extra)


def wall_limit_s(scenario: Scenario) -> int:
    """Host seconds after which a run is given up; says nothing about a candidate."""
    return scenario.limits.wall_s


def job_text(
    scenario: Scenario,
    *,
    seed: int,
    candidate: Sequence[str],
    kind: CandidateKind,
    cpus: int | None = None,
    candidate_timeout_ms: int | None = None,
    programs: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """The job of one run.

    Args:
        scenario: what to do.
        seed: seed of the run.
        candidate: words after `candidate`: `("none",)`, `("object", PATH)` or `("program", PATH, ARG…)`.
        kind: what the *case's* candidate is. A baseline gets it too, so that it runs the same steps as long.
        cpus: CPUs of the guest, where they are not the scenario's own.
        candidate_timeout_ms: `timeout_ms` of the candidate's ops, where it is known.
        programs: words that stand for a program of the image, where another one takes its place.
    """
    if not candidate or candidate[0] not in ("none", *get_args(CandidateKind)):
        raise UsageError(f"`{' '.join(candidate)}` is no candidate line", hint="none, object PATH, program PATH")
    count = cpus or scenario.topology.cpus
    timeout_ms = effective_timeout_ms(scenario, kind, candidate_timeout_ms)
    lines = [
        line("testbed-job", 1),
        line("seed", seed),
        line("limit", virtual_limit_ms(scenario, kind, candidate_timeout_ms, cpus)),
        line("watchdog", scenario.limits.watchdog_ms),
        line("candidate", *candidate),
        line("timeout_ms", scenario.limits.timeout_ms if kind == "object" else 0),
        line("starved", scenario.limits.starved_ms),
    ]
    if any(figure.name.split(".")[1] in CALLBACK_FIGURES for figure in scenario.figures):
        lines.append(line("callbacks", 1))
    for step in scenario.steps:
        lines.extend(_step_lines(step, count, timeout_ms, programs or {}))
    return "".join(lines)


def _step_lines(step: Step, cpus: int, timeout_ms: int, programs: Mapping[str, Sequence[str]]) -> Iterator[str]:
    match step.verb, step.value:
        case "attach", value:
            yield line("attach", value.within * ATTACH_STRETCH)
        case "detach", value:
            yield line("detach", value.within, *(("kill",) if value.kill else ()))
        case "health", value:
            yield line("health", value.within)
        case "cycle", value:
            yield line("cycle", value.times, value.within * ATTACH_STRETCH)
        case "start", value:
            yield line("start", value.name, value.kind, *_options(value, cpus))
        case "exec", value:
            name = Path(value.argv[0]).name
            known = not value.is_given
            words = (known and programs.get(name)) or (PROGRAMS.get(name, value.argv[0]) if known else value.argv[0],)
            yield line("exec", value.name, *words, *value.argv[1:])
        case "wait", value:
            yield line("wait", value.name, value.within)
        case "stop", names:
            yield line("stop", *names)
        case ("sleep" | "begin" | "end") as verb, value:
            yield line(verb, value)
        case "hold", value:
            yield line("hold", hold_ms(value, timeout_ms))
        case "sysctl", values:
            for name, value in values.items():
                yield line("sysctl", name.replace(".", "/"), value)
        case "write", value:
            yield line("write", value.path, value.value)
        case "cpu", value:
            for number in value.numbers(cpus):
                yield line("cpu", value.how, number, value.within)
        case "cgroup", value:
            files = [f"{name}={content}" for name, content in value.files.items()]
            yield line("cgroup", *(("make", value.make, *files) if value.make else ("remove", value.remove)))
        case verb, _:
            raise ScenarioError(f"no such verb: `{verb}`")


def _options(start: Start, cpus: int) -> Iterator[str]:
    if start.per_cpu is not None:
        yield f"count={start.per_cpu * cpus}"
    for key, value in (("count", start.count), ("cpu", start.cpu), ("nice", start.nice)):
        if value is not None:
            yield f"{key}={value}"
    if start.policy is not None:
        yield f"policy={start.policy}"
    if start.period is not None:
        yield f"period_us={start.period * 1000}"
    if start.cgroup is not None:
        yield f"cgroup={start.cgroup}"


# --- reading a job back --------------------------------------------------------------------------------------


class Job(Model):
    """A job, taken apart."""

    settings: tuple[tuple[str, ...], ...]
    steps: tuple[tuple[str, ...], ...]

    def setting(self, name: str) -> tuple[str, ...]:
        """The words behind a setting, empty if it is not set."""
        return next((words[1:] for words in self.settings if words[0] == name), ())


SETTINGS = frozenset(
    ("seed", "limit", "heartbeat", "watchdog", "candidate", "timeout_ms", "starved", "oracle", "callbacks")
)


def parse_job(text: str) -> Job:
    """Take a job apart; raises ValueError with the line for whatever is none."""
    lines = text.split("\n")
    if lines.pop() != "":
        raise ValueError("the last line of the job does not end")
    if not lines or lines[0] != "testbed-job 1":
        raise ValueError("line 1: expected `testbed-job 1`")
    settings: list[tuple[str, ...]] = []
    steps: list[tuple[str, ...]] = []
    for number, content in enumerate(lines[1:], start=2):
        try:
            words = tuple(decode_word(word) for word in content.split(" "))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        if words[0] in SETTINGS:
            if steps:
                raise ValueError(f"line {number}: setting `{words[0]}` after the first step")
            settings.append(words)
        else:
            steps.append(words)
    return Job(settings=tuple(settings), steps=tuple(steps))
