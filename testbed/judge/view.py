# SPDX-License-Identifier: Apache-2.0
"""A run as the checks look at it: what was attached when, which step an event belongs to, what was measured."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf

from testbed.case import CONSOLE_FILE, OUTCOME_FILE, STREAM_FILE, Event, RunEvidence, printable
from testbed.judge import workloads
from testbed.judge.catalogue import CODES
from testbed.scenario import Job, Scenario, parse_job
from testbed.scenario.model import CLASSES, THROUGHPUT, FigureSpec
from testbed.status import Status
from testbed.verdict import EvidenceRef, Finding, Measurement

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
MAX_REFS = 6
SPREAD = "spread"
WORK = "work"
CPUTIME = "cputime"
COUNTS = frozenset(("runs", "preemptions", "migrations"))
"""What the oracle counts of a load's tasks, and the time that they had (`cputime`): told for each second."""


@dataclass(frozen=True)
class Metric:
    """One figure of a run, over its tasks and windows."""

    name: str
    unit: str
    value: float
    samples: int
    ref: EvidenceRef


@dataclass(frozen=True)
class _Measure:
    """One `measure` event and the window in which it stands, None at `stop`."""

    event: Event
    window: str | None


class View:
    """A run with its scenario; everything here is computed once and only from evidence."""

    def __init__(self, run: RunEvidence, scenario: Scenario, sources: Mapping[str, str] | None = None) -> None:
        """Look at `run`; `sources` are the candidate's C files, for messages that quote a line."""
        self.run = run
        self.scenario = scenario
        self.sources = sources or {}

    # --- what happened -----------------------------------------------------------------------------------

    @cached_property
    def job(self) -> Job:
        """The job that the runner was given."""
        try:
            return parse_job(self.run.spec.job)
        except ValueError:
            return Job(settings=(), steps=())

    @property
    def has_candidate(self) -> bool:
        """Whether this run attaches anything; a baseline does not."""
        return bool(self.run.spec.candidate)

    @cached_property
    def attach_begun(self) -> Event | None:
        """The step that first touched the candidate; what happens before it is never the candidate's fault."""
        if not self.has_candidate:
            return None
        first = next((event for event in self.run.stream.of("step") if event.text("verb") in ("attach", "cycle")), None)
        # A stream with a hole there still shows that something was attached.
        return first or self.run.stream.first("attach")

    @cached_property
    def end(self) -> Event | None:
        """The runner's last word."""
        return self.run.stream.first("end")

    @cached_property
    def last_ms(self) -> int | None:
        """Guest time of the last event."""
        events = self.run.stream.events
        return events[-1].t // NS_PER_MS if events else None

    @cached_property
    def steps(self) -> tuple[tuple[Event, Event | None], ...]:
        """`step` events, each with its `done`."""
        done = {event.integer("i", -1): event for event in self.run.stream.of("done")}
        return tuple((step, done.get(step.integer("i", -2))) for step in self.run.stream.of("step"))

    def during(self, event: Event) -> tuple[str, ...]:
        """The words of the step in which an event lies, empty if it lies in none."""
        for step, done in reversed(self.steps):
            if step.seq <= event.seq and (done is None or event.seq <= done.seq):
                index = step.integer("i", -1)
                known = self.job.steps[index] if 0 <= index < len(self.job.steps) else ()
                return known or (step.text("verb"),)
        return ()

    @cached_property
    def ejection(self) -> Event | None:
        """The first exit that nobody asked for and that is no request for a restart."""
        exits = self.run.stream.of("exit")
        return next((event for event in exits if not clean_exit(event) and not self.asks_for_restart(event)), None)

    @cached_property
    def restart(self) -> Event | None:
        """The first exit that asks for a restart because a CPU went or came."""
        return next((event for event in self.run.stream.of("exit") if self.asks_for_restart(event)), None)

    def asks_for_restart(self, event: Event) -> bool:
        """Whether an exit is sched_ext's way to say: the CPUs are others now, start me again.

        The kernel says so for a scheduler without ops.cpu_online() and ops.cpu_offline(), in words of its own; a
        scheduler that has them may say so by scx_bpf_exit() with the bit in its code. Neither counts but while a step
        takes a CPU away or brings it back, or right after it: later on, who leaves has a reason of its own.
        """
        if not self.cpus_moved(event.t):
            return False
        if event.integer("kind") == UNREG_KERN:
            return HOTPLUG.fullmatch(event.text("message")) is not None
        return event.integer("kind") == UNREG_BPF and bool(event.integer("code") & ACT_RESTART)

    def cpus_moved(self, t: int, slack: int = 0) -> bool:
        """Whether a `cpu` step was under way at `t` ns of guest time, or had ended a moment before.

        A scheduler that was attached after it knows the CPUs as they are, so what came before does not count.

        Args:
            t: the time of an event, or of a message on the console.
            slack: how many ns early the clock of `t` may be.
        """
        until: float | None = None
        for step, done in self.steps:
            verb = step.text("verb")
            if verb in ("attach", "cycle") and step.t <= t:
                until = None
            elif verb == "cpu" and step.t <= t + slack:
                until = inf if done is None else done.t + RESTART_PATIENCE
        return until is not None and t <= until

    def log(self, source: str) -> str:
        """Everything that one source said, in order."""
        return "".join(event.text("text") for event in self.run.stream.of("log") if event.text("source") == source)

    def lost(self, source: str) -> int:
        """Bytes of what one source said that the guest did not pass on."""
        return max(
            (event.integer("lost") for event in self.run.stream.of("log") if event.text("source") == source), default=0
        )

    def log_line(self, source: str) -> int | None:
        """The stream's line where a source begins to speak."""
        return next(
            (event.line for event in self.run.stream.of("log") if event.text("source") == source),
            None,
        )

    # --- what was measured -------------------------------------------------------------------------------

    @cached_property
    def _measures(self) -> tuple[_Measure, ...]:
        found: list[_Measure] = []
        for event in self.run.stream.of("measure"):
            words = self.during(event)
            window = event.text("window") or (words[1] if len(words) > 1 and words[0] == "end" else None)
            found.append(_Measure(event, window))
        return tuple(found)

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """Figures by name: `LOAD.MEASURE[.STAT]`, `WINDOW.idle`, `PROGRAM.…`, `@CLASS.…`.

        `PROGRAM.time` is what the program says of itself, or how long it took where a scenario asks for that.
        `LOAD.work.spread` is the most work that one of several equal tasks did, in times of the least, and
        `LOAD.cputime.spread` the most CPU time. What the oracle counted and CPU time are told for each second.
        Waiting times are the worst over tasks and windows. Work is a rate over the windows in which it was counted,
        or the total where it was counted in none.
        """
        groups: dict[tuple[str, str, str], list[_Measure]] = defaultdict(list)
        for measure in self._measures:
            event = measure.event
            groups[event.text("load"), event.text("name"), event.text("stat")].append(measure)
        result: dict[str, Metric] = {}
        for (load, name, stat), measures in groups.items():
            metric = self._metric(load, name, stat, measures)
            if metric is not None:
                result[metric.name] = metric
        for load, start in self.scenario.loads().items():
            for name in (WORK, CPUTIME) if start.tasks_are_equal else ():
                spread = self._spread(load, name)
                if spread is not None:
                    result[spread.name] = spread
        for exec_name, program in self.scenario.programs().items():
            source = f"exec:{exec_name}"
            for one in workloads.measurements(program.argv[0], exec_name, self.log(source)):
                ref = EvidenceRef(file=f"{self.run.name}/{STREAM_FILE}", line=self.log_line(source))
                result[one.name] = Metric(one.name, one.unit, one.value, one.samples, ref)
            lasted = self._lasted(exec_name)
            if lasted is not None and any(figure.name == lasted.name for figure in self.scenario.figures):
                result.setdefault(lasted.name, lasted)
        for figure in self.scenario.figures:
            read = self._read(figure) if figure.read is not None else None
            if read is not None:
                result[read.name] = read
        return result

    def _read(self, figure: FigureSpec) -> Metric | None:
        """A figure of which the scenario says how it is read."""
        assert figure.read is not None
        if figure.read.duration:
            lasted = self._lasted(figure.program)
            return lasted and replace(lasted, name=figure.name)
        source = f"exec:{figure.program}"
        one = None if self.lost(source) else workloads.read_figure(figure.name, figure.read, self.log(source))
        if one is None:
            return None
        ref = EvidenceRef(file=f"{self.run.name}/{STREAM_FILE}", line=self.log_line(source))
        return Metric(one.name, one.unit, one.value, one.samples, ref)

    def _lasted(self, program: str) -> Metric | None:
        """How long a program took, from its `exec` to the end of the `wait` for it; the runner looks each 5 ms."""
        begun: Event | None = None
        for step, done in self.steps:
            words = self.during(step)
            if words[:2] == ("exec", program):
                begun = step
            elif words[:2] == ("wait", program) and begun is not None and done is not None and done.flag("ok"):
                return Metric(f"{program}.time", "s", (done.t - begun.t) / NS_PER_S, 1, self.ref(done))
        return None

    def _metric(self, load: str, name: str, stat: str, measures: list[_Measure]) -> Metric | None:
        full = ".".join(printable(part, 60) for part in (load, name, stat) if part)
        in_windows = [measure for measure in measures if measure.window is not None]
        if load in self.scenario.windows():
            # Figures of the window itself: `cpu` -1 is all CPUs together.
            whole = [measure for measure in measures if measure.event.integer("cpu", -1) == -1] or measures
            event = whole[-1].event
            return Metric(full, event.text("unit"), event.number("value"), event.integer("samples"), self.ref(event))
        if load in CLASSES:
            # Outside of windows they are those of the whole life of the machine, whoever ruled it.
            measures = in_windows
        if not measures or load not in (*self.scenario.loads(), *self.scenario.programs(), *CLASSES):
            return None
        if name == CPUTIME or name in COUNTS:
            return self._rate(full, name, measures)
        if name in set(THROUGHPUT.values()):
            chosen = in_windows or measures
            total = sum(measure.event.number("value") for measure in chosen)
            duration = sum(self._duration_s(window) for window in {measure.window for measure in chosen} if window)
            unit = chosen[-1].event.text("unit") or "1"
            if in_windows and duration > 0:
                total, unit = total / duration, f"{unit}/s"
            return Metric(full, unit, total, len(chosen), self.ref(chosen[-1].event))
        chosen = measures if stat in ("", "max") else in_windows or measures
        # Task -1 is all tasks together; a load of one task has no such line.
        together = [measure for measure in chosen if measure.event.integer("task") == -1] or chosen
        if stat not in ("", "max"):
            chosen = together
        worst = max(chosen, key=lambda measure: measure.event.number("value"))
        if name == "errors":
            value = sum(measure.event.number("value") for measure in measures if measure.window is None)
            value = max(value, worst.event.number("value"))
        else:
            value = worst.event.number("value")
        counted = [measure for measure in together if measure.window is None] or together
        samples = sum(measure.event.integer("samples") for measure in counted)
        return Metric(full, worst.event.text("unit"), value, samples, self.ref(worst.event))

    def _rate(self, full: str, name: str, measures: list[_Measure]) -> Metric | None:
        """What all tasks of a load had together in each second of the windows: CPU time in CPUs, or times."""
        chosen = [one for one in measures if one.window is not None and one.event.integer("task", -1) == -1]
        duration = sum(self._duration_s(window) for window in {measure.window for measure in chosen} if window)
        if duration <= 0:
            return None
        total = sum(measure.event.number("value") for measure in chosen)
        samples = sum(measure.event.integer("samples") for measure in chosen)
        value, unit = (total / NS_PER_S / duration, "CPUs") if name == CPUTIME else (total / duration, "1/s")
        return Metric(full, unit, value, samples, self.ref(chosen[-1].event))

    def _duration_s(self, window: str) -> float:
        return sum(
            measure.event.number("value") / NS_PER_S
            for measure in self._measures
            if measure.event.text("load") == window and measure.event.text("name") == "duration"
        )

    def worst_gap(self, load: str) -> Metric | None:
        """The longest wait of a load, in µs."""
        return self.metrics.get(f"{load}.gap.max") or self.metrics.get(f"{load}.gap")

    def worst_wait(self, load: str) -> Metric | None:
        """The longest wait of a load's, program's or class' tasks that the oracle saw, in µs."""
        return self.metrics.get(f"{load}.wait.max")

    def throughput(self, load: str) -> Metric | None:
        """Work done by a load or program; more is better."""
        start = self.scenario.loads().get(load)
        if start is not None:
            return self.metrics.get(f"{load}.{THROUGHPUT.get(start.kind, 'work')}")
        program = self.scenario.programs().get(load)
        time = self.metrics.get(f"{load}.time")
        if program is not None and time is not None:
            return Metric(f"{load}.rate", "1/s", 1 / time.value, time.samples, time.ref) if time.value > 0 else None
        return self.metrics.get(f"{load}.rps.avg") or self.metrics.get(f"{load}.rps.p50")

    def spread(self, load: str, at_least_ms: int, of: str) -> Metric | None:
        """The most that one task of a load had, in times of the least; None if that says nothing.

        `of` is what it had: the CPU time that the oracle saw, or the work that it says it did. It says something of
        two or more tasks that want the same, over windows that last `at_least_ms` together: a scheduler may give turns
        in any order, and only long windows hold many of them.
        """
        metric = self.metrics.get(f"{load}.{of}.{SPREAD}")
        windows = {measure.window for measure in self._of_tasks(load, of)}
        lasted = sum(self._duration_s(window) for window in windows if window) * 1000
        return metric if lasted >= at_least_ms else None

    def _of_tasks(self, load: str, name: str) -> list[_Measure]:
        """What each task of a load did, or had, in each window."""
        return [
            measure
            for measure in self._measures
            if measure.event.text("load") == load
            and measure.event.text("name") == name
            and measure.window is not None
            and measure.event.integer("task", -1) >= 0
        ]

    def _spread(self, load: str, name: str) -> Metric | None:
        tasks: dict[int, float] = defaultdict(float)
        for measure in self._of_tasks(load, name):
            tasks[measure.event.integer("task")] += measure.event.number("value")
        if len(tasks) < 2:
            return None
        least = min(tasks, key=lambda task: (tasks[task], task))
        where = next(measure for measure in self._of_tasks(load, name) if measure.event.integer("task") == least)
        ratio = max(tasks.values()) / max(tasks[least], 1.0)  # of one that had nothing: in times of one iteration or ns
        return Metric(f"{load}.{name}.{SPREAD}", "1", ratio, len(tasks), self.ref(where.event))

    def measurements(self) -> tuple[Measurement, ...]:
        """All figures, for the verdict."""
        return tuple(
            Measurement(name=metric.name, unit=metric.unit, value=metric.value, samples=metric.samples)
            for _, metric in sorted(self.metrics.items())
        )

    # --- words for findings ------------------------------------------------------------------------------

    def ref(self, event: Event) -> EvidenceRef:
        """A place in the stream."""
        return EvidenceRef(file=f"{self.run.name}/{STREAM_FILE}", line=event.line, text=printable(_summary(event), 200))

    def stream_ref(self, line: int, text: str = "") -> EvidenceRef:
        """A line of the stream that is no event."""
        return EvidenceRef(file=f"{self.run.name}/{STREAM_FILE}", line=max(1, line), text=printable(text, 200))

    def console_ref(self, index: int) -> EvidenceRef:
        """A line of the console, by its index from 0."""
        return EvidenceRef(
            file=f"{self.run.name}/{CONSOLE_FILE}",
            line=index + 1,
            text=printable(self.run.console.lines[index], 200),
        )

    def outcome_ref(self) -> EvidenceRef:
        """How the host saw the guest end."""
        outcome = self.run.outcome
        text = f"{outcome.ended}: {outcome.reason}" if outcome.reason else str(outcome.ended)
        return EvidenceRef(file=f"{self.run.name}/{OUTCOME_FILE}", line=1, text=printable(text, 200))

    def found(
        self,
        code: str,
        message: str,
        evidence: Iterable[EvidenceRef] = (),
        *,
        cause: str = "",
        hint: str = "",
        status: Status | None = None,
    ) -> Finding:
        """A finding of this run, in the words of the catalogue where no better ones are given."""
        entry = CODES[code]
        return Finding(
            code=code,
            status=status or entry.status,
            title=f"{entry.title} in {self.scenario.name}",
            scenario=self.scenario.name,
            clock=self.run.clock,
            message="\n".join(printable(line, 2000) for line in message.split("\n")),
            evidence=tuple(evidence)[:MAX_REFS],
            cause=cause or entry.cause,
            hint=hint or entry.fix,
        )

    def owner(self, pid: int) -> str:
        """Whose process that is, in words that begin with a space; empty if it is no load's."""
        for event in self.run.stream.of("task"):
            if event.integer("pid") == pid:
                return f" (task {event.integer('task')} of load `{printable(event.text('load'), 60)}`)"
        return ""

    def since_attach(self, event: Event) -> str:
        """Guest time between the attach step and an event, in words."""
        begun = self.attach_begun
        return f"{(event.t - begun.t) / NS_PER_S:.2f} s after attaching began" if begun else ""


UNREG = 64
UNREG_BPF = 65
UNREG_KERN = 66
ACT_RESTART = 1 << 48
RESTART_PATIENCE = NS_PER_S
"""From the end of a `cpu` step to the exit that it may have caused; the runner looks many times in that time."""
HOTPLUG = re.compile(r"(?:cpu \d+ going (?:online|offline), exiting scheduler)?")
"""What comes with kind 66, the kernel's alone, after hotplug: 7.3 gives no message. Its other reason, an outdated
`hotplug_seq`, has one."""


def clean_exit(event: Event) -> bool:
    """The exit that we asked for: unregistered from user space, by us; 0 where the kernel's word came too late."""
    return event.flag("by_us") and event.integer("kind") in (0, UNREG)


def _summary(event: Event) -> str:
    """An event in a line: its name and its fields."""
    fields = " ".join(f"{key}={value}" for key, value in event.fields.items() if key not in ("t", "e"))
    return f"{event.name} {fields}"
