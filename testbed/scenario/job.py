# SPDX-License-Identifier: Apache-2.0
"""The job of a run (docs/reference/guest-protocol.md): compiled from a scenario, and read back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

from testbed.errors import ScenarioError, UsageError
from testbed.scenario.model import PROGRAMS, CandidateKind, Hold, Scenario, Start, Step
from testbed.spec import Model

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
CALLBACK_FIGURES = ("callbacks", "callback", "oracle")
"""Figures that rest on the kernel's statistics of BPF programs, which are off unless a scenario names one of these."""


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
