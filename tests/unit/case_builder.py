# SPDX-License-Identifier: Apache-2.0
"""Cases made of scripts: a runner that does its job as told, with valid MACs, and goes wrong where a test says so."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, settings

from testbed.case import (
    Artifact,
    Case,
    CaseFile,
    Control,
    Ended,
    GuestOutcome,
    LiveProbe,
    NotRun,
    canonical_json,
    stream_line,
    write_atomic,
    write_model,
)
from testbed.data import data_directory
from testbed.scenario import Scenario, job_text, load, parse_job
from testbed.scenario.model import CLASSES, GAP_KINDS, PROGRAMS, THROUGHPUT
from testbed.spec import Clock, Role, RunSpec, Topology, sha256
from testbed.verdict import BaselineFacts, CandidateFacts, Finding, ImageFacts, KernelFacts, ToolFacts
from testbed.yamlfile import plain, write

# Property tests share the machine with guests: how long an example takes says nothing.
settings.register_profile("shared", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

KEY = bytes(range(32))
CANDIDATE = sha256(b"candidate")
SEED = 7
MS = 1_000_000

TOOL = ToolFacts(testbed="0.1", judge=1, qemu="10.0", qemu_sha256="0" * 64, clang="19", runner_sha256="1" * 64)

GAPS = {"max": 2000.0, "p50": 60.0, "p99": 800.0, "p99.9": 1500.0}
WAITS = {"max": 1900.0, "p50": 50.0, "p99": 700.0, "p99.9": 1400.0}
SCHBENCH = (
    '{"normal": {"version": "7.3"}, "int": {"wakeup_latency_pct50.0": 6, "wakeup_latency_pct99.0": 40, '
    '"wakeup_latency_samples": 9000, "request_latency_pct99.0": 3000, "request_latency_samples": 9000, '
    '"rps_pct50.0": 900, "rps_samples": 40, "average_rps": 900.5, "runtime": 4}}\n'
)
CYCLICTEST = """{
"thread": {"0": {"histogram": {"20": 990, "900": 10}, "cycles": 1000, "max": 900}}
}
"""
OUTPUT = {
    "hackbench": "Running in process mode\nTime: 0.520\n",
    "schbench": SCHBENCH,
    "cyclictest": CYCLICTEST,
    "rt-app": "   0  5000  83  4966  15536659070  15536664036  345  3960  500  5000  145\n" * 25,
}


_Running = tuple[str, int]
"""Kind of a load, and how many tasks of it tell of their own work."""


@dataclass
class Script:
    """How one run goes.

    Attributes:
        during: extra events by verb: they come in the first step with that verb, before it is done.
        replace: events by name that take the place of those that would be sent, e.g. `attach`.
        failing: detail by verb: the step is done with `ok: false`.
        figures: measured values by `load.name` or `load.name.stat`; of one hog `load.work.TASK`. What is not given of
            CPU time and of CPUs idle beside waiting tasks is as work and idle time say.
            `PROGRAM.ran_ms`: how long a program is waited for.
        oracle: whether the guest's oracle watches.
        output_lost: bytes of programs' output that were dropped.
        lost_in: verb of the step in which the stream ends for good.
        tail: bytes behind the last line.
        insert: bytes before the line with this number (from 1).
    """

    during: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    replace: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    failing: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    oracle: bool = True
    output: Mapping[str, str] = field(default_factory=dict)
    output_lost: int = 0
    lost_in: str = ""
    tail: str = ""
    insert: Mapping[int, str] = field(default_factory=dict)
    drop: Sequence[int] = ()
    console: str = ""
    ended: str = "finished"
    reason: str = ""
    accelerator: str = "tcg-parallel-icount"
    qmp: Sequence[str] = ()
    samples: int = 5000
    stream_lost: int = 0
    no_stream: bool = False
    digest: str = ""


class _Writer:
    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.t = 2_000 * MS

    def send(self, event: str, **fields: Any) -> None:
        self.t += fields.pop("after_ms", 1) * MS
        self.t = fields.pop("t", self.t)
        self.lines.append(stream_line(len(self.lines), KEY, {"t": self.t, "e": event, **fields}))


def simulate(job: str, scenario: Scenario, script: Script, *, candidate: bool) -> bytes:
    """What a runner would say of a job."""
    if script.no_stream:
        return script.tail.encode()
    writer = _Writer()
    parsed = parse_job(job)
    writer.send(
        "hello", version=1, release="7.3.4", cpus=2, possible=2, memory_kb=500_000, clocksource="tsc", tsc=2_300 * MS
    )
    writer.send("job", steps=len(parsed.steps))
    running: dict[str, _Running] = {}
    window = ""
    sequence = 0
    told: set[str] = set()
    for index, words in enumerate(parsed.steps):
        verb = words[0]
        writer.send("step", i=index, verb=verb)
        if verb not in told:
            told.add(verb)
            for extra in script.during.get(verb, ()):
                fields = dict(extra)
                writer.send(fields.pop("e"), **fields)
        if verb == script.lost_in:
            break
        failed = script.failing.get(verb)
        match verb:
            case "attach" if candidate:
                sequence += 1
                send = {"ok": True, "stage": "enable", "errno": "", "detail": "", "ops": "sut", "timeout_ms": 3000}
                writer.send("attach", **{**send, "enable_seq": sequence, **script.replace.get("attach", {})})
                _beat(writer, "enabled", sequence)
            case "detach" if candidate:
                writer.send("exit", kind=64, name="SCX_EXIT_UNREG", code=0, by_us=True, source="kernel")
                fields = {"ok": True, "elapsed_ns": 9 * MS, "state": "disabled", "detail": ""}
                writer.send("detach", **{**fields, **script.replace.get("detach", {})})
            case "cycle" if candidate:
                sequence += int(words[1])
            case "start":
                count = next((word.partition("=")[2] for word in words if word.startswith("count=")), "1")
                running[words[1]] = (words[2], int(count) if words[2] == "hog" else 1)
            case "exec":
                running[words[1]] = ("exec", 1)
                program = next((name for name, path in PROGRAMS.items() if path == words[2]), "")
                text = script.output.get(words[1], OUTPUT.get(program, ""))
                writer.send("log", source=f"exec:{words[1]}", text=text, lost=script.output_lost)
            case "wait":
                writer.t += int(script.figures.get(f"{words[1]}.ran_ms", 0)) * MS
            case "begin":
                window = words[1]
            case "end":
                _window(writer, window, running, script)
            case "stop":
                for name in words[1:]:
                    _report(writer, name, running.pop(name), None, script)
            case "hold":
                writer.t += int(words[1]) * MS
                if candidate:
                    _beat(writer, "enabled", sequence)
            case "health":
                for probe in ("fork:0", "fork:1", "write", "kworker", "rcu"):
                    good = probe not in script.failing
                    writer.send("health", probe=probe, ok=good, elapsed_ns=MS)
        writer.send("done", i=index, ok=failed is None, detail=failed or "", elapsed_ns=MS)
    else:
        writer.send("end", ok=not script.failing)
    lines = [line for number, line in enumerate(writer.lines, start=1) if number not in script.drop]
    for number, text in sorted(script.insert.items(), reverse=True):
        raw = lines[0] if text == "0 REPLAY" else text.encode() + b"\n"
        lines.insert(number - 1, raw)
    return b"".join(lines) + script.tail.encode()


def _beat(writer: _Writer, state: str, sequence: int) -> None:
    fields = {"state": state, "ops": "sut", "enable_seq": sequence, "rejected": 0}
    writer.send("beat", **fields, runnable=2, worst_us=0, late_us=0)


def _window(writer: _Writer, window: str, running: Mapping[str, _Running], script: Script) -> None:
    for name, unit, value in (("duration", "ns", 2_000 * MS), ("switches", "1/s", 900), ("idle", "1", 0.01)):
        value = script.figures.get(f"{window}.{name}", value)
        writer.send("measure", name=name, load=window, task=0, cpu=-1, unit=unit, value=value, samples=1)
    for name, one in running.items():
        _report(writer, name, one, window, script)
    if script.oracle:
        for name in CLASSES[:2]:
            _waits(writer, name, window, script)
        value = script.figures.get(f"{window}.wasted", script.figures.get(f"{window}.idle", 0.01))
        writer.send("measure", name="wasted", load=window, task=-1, cpu=-1, unit="1", value=value, samples=1)


def _waits(writer: _Writer, name: str, window: str | None, script: Script) -> None:
    extra = {"window": window} if window else {}
    for stat, usual in WAITS.items():
        value = script.figures.get(f"{name}.wait.{stat}", usual)
        fields = {"name": "wait", "load": name, "task": -1, "cpu": -1, "unit": "us", "stat": stat}
        writer.send("measure", **fields, value=value, samples=script.samples, **extra)


def _report(writer: _Writer, name: str, running: _Running, window: str | None, script: Script) -> None:
    kind, tasks = running
    extra = {"window": window} if window else {}
    if kind in GAP_KINDS:
        for stat, usual in GAPS.items():
            value = script.figures.get(f"{name}.gap.{stat}", usual)
            fields = {"name": "gap", "load": name, "task": 0, "cpu": -1, "unit": "us", "stat": stat}
            writer.send("measure", **fields, value=value, samples=script.samples, **extra)
    if work := THROUGHPUT.get(kind):
        total = script.figures.get(f"{name}.{work}", 1_000_000)
        for task in range(tasks):
            value = script.figures.get(f"{name}.{work}.{task}", total / tasks)
            fields = {"name": work, "load": name, "task": task, "cpu": -1, "unit": "iterations"}
            writer.send("measure", **fields, value=value, samples=1, **extra)
            if script.oracle:
                value = script.figures.get(f"{name}.cputime.{task}", value)
                fields = {"name": "cputime", "load": name, "task": task, "cpu": -1, "unit": "ns"}
                writer.send("measure", **fields, value=value, samples=1, **extra)
    if kind in ("fork", "cgroup"):
        value = script.figures.get(f"{name}.errors", 0)
        writer.send("measure", name="errors", load=name, task=0, cpu=-1, unit="1", value=value, samples=1, **extra)
    if script.oracle:
        _waits(writer, name, window, script)


def scenario_file(name: str) -> Path:
    return data_directory("scenarios") / f"{name}.yaml"


def policy_text(*demands: tuple[str, str, bool], seeds: int = 1) -> str:
    """The default policy with other demands."""
    raw = yaml.safe_load((data_directory("policies") / "verdict" / "default.yaml").read_text())
    raw["scenarios"] = [
        {"name": name, "clock": str(clock), "required": required, "reason": "a test wants it so"}
        for name, clock, required in demands
    ]
    raw["seeds"] = seeds
    raw["thresholds"]["overrides"] = {
        name: value
        for name, value in raw["thresholds"]["overrides"].items()
        if name in {demand[0] for demand in demands}
    }
    return yaml.safe_dump(raw, sort_keys=False)


@dataclass
class CaseBuilder:
    """Writes a case directory."""

    path: Path
    number: int = 0
    clock: str = "sim"
    selected: tuple[str, ...] | None = None
    not_run: tuple[NotRun, ...] = ()
    interrupted: bool = False
    stopped_early: bool = False
    controls: list[Control] = field(default_factory=list)
    demands: list[tuple[str, str, bool]] = field(default_factory=list)
    seeds: int = 1
    own: dict[str, Scenario] = field(default_factory=dict)
    files: str = "f" * 64
    baseline: BaselineFacts = field(default_factory=BaselineFacts)
    live: LiveProbe = field(default_factory=lambda: LiveProbe(available=False, reason="no KVM"))

    def __post_init__(self) -> None:
        (self.path / "runs").mkdir(parents=True)
        (self.path / "scenarios").mkdir()
        (self.path / "candidate").mkdir()
        self.artifact()

    def artifact(self, *findings: Finding) -> None:
        facts = CandidateFacts(kind="source", name="sut.bpf.c", sha256="a" * 64, object_sha256=CANDIDATE)
        write_model(self.path / "candidate/artifact.json", Artifact(candidate=facts, findings=findings))

    def demand(self, name: str, clock: str = "sim", *, required: bool = True, own: Scenario | None = None) -> None:
        """Ask for a scenario; `own` is one that is not among ours."""
        self.demands.append((name, clock, required))
        if own is not None:
            self.own[name] = own
        data = scenario_file(name).read_bytes() if own is None else write(plain(own))
        write_atomic(self.path / "scenarios" / f"{name}.yaml", data)

    def run(
        self,
        name: str,
        script: Script | None = None,
        *,
        role: Role = Role.CANDIDATE,
        clock: Clock = Clock.SIM,
        seed: int = SEED,
        repeats: int | None = None,
    ) -> int:
        script = script or Script()
        scenario = self.own.get(name) or load(scenario_file(name))
        candidate = role is not Role.BASELINE
        words = ("object", "candidate.bpf.o") if candidate else ("none",)
        spec = RunSpec(
            number=self.number,
            role=role,
            scenario=name,
            clock=clock,
            topology=Topology(cpus=2, memory_mb=512),
            seed=seed,
            repeats=repeats,
            candidate=CANDIDATE if candidate else "",
            job=job_text(scenario, seed=seed, candidate=words, kind="object"),
            files=self.files,
            image="i",
            wall_limit_s=300,
        )
        folder = self.path / "runs" / spec.name
        folder.mkdir()
        write_model(folder / "spec.json", spec)
        write_atomic(folder / "key", KEY.hex() + "\n")
        write_atomic(folder / "stream", simulate(spec.job, scenario, script, candidate=candidate))
        write_atomic(folder / "console.log", script.console)
        outcome = GuestOutcome(
            accelerator=script.accelerator,
            qemu="10.0",
            ended=Ended(script.ended),
            reason=script.reason,
            qmp=tuple(script.qmp),
            stream_lost=script.stream_lost,
            digest=script.digest,
        )
        write_model(folder / "outcome.json", outcome)
        self.number += 1
        return spec.number

    def pair(self, name: str, script: Script | None = None, **options: Any) -> None:
        """Baseline, candidate and, if the script goes wrong, its repetition."""
        self.run(name, role=Role.BASELINE, **options)
        number = self.run(name, script, **options)
        if script is not None:
            self.run(name, script, repeats=number, **options)

    def finish(self) -> Case:
        facts = CaseFile.model_validate(
            {
                "clock": self.clock,
                "selected": self.selected,
                "not_run": self.not_run,
                "interrupted": self.interrupted,
                "stopped_early": self.stopped_early,
                "controls": tuple(self.controls),
                "baseline": self.baseline,
                "live": self.live,
                "image": ImageFacts(id="i", recipe="debian13"),
                "kernel": KernelFacts(release="7.3.4", version="7.3.4-1", sha256="2" * 64),
                "tool": TOOL,
            }
        )
        write_model(self.path / "case.json", facts)
        write_atomic(self.path / "policy.yaml", policy_text(*self.demands, seeds=self.seeds))
        return Case.open(self.path)


def script_from(raw: Mapping[str, Any]) -> Script:
    """A script as golden cases write it."""
    values = dict(raw)
    if "insert" in values:
        values["insert"] = {int(number): text for number, text in values["insert"].items()}
    return Script(**values)


def build_golden(folder: Path, target: Path) -> Case:
    """The case that a golden folder describes (`case.yaml`)."""
    raw = yaml.safe_load((folder / "case.yaml").read_text())
    name = raw["scenario"]
    clock = Clock(raw.get("clock", "sim"))
    builder = CaseBuilder(target, clock=str(clock))
    builder.demand(name, clock)
    builder.run(name, script_from(raw.get("baseline", {})), role=Role.BASELINE, clock=clock)
    script = script_from(raw.get("candidate", {}))
    number = builder.run(name, script, clock=clock)
    match raw.get("repeat", "same"):
        case "same":
            builder.run(name, script, clock=clock, repeats=number)
        case "good":
            builder.run(name, clock=clock, repeats=number)
        case "none":
            pass
        case other:
            raise ValueError(f"{folder.name}: repeat is {other!r}")
    return builder.finish()


def strip_numbers(text: str) -> str:
    return re.sub(r"\d+", "N", text)


def rewrite(path: Path, value: object) -> None:
    path.write_bytes(canonical_json(value))
