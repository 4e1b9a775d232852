# SPDX-License-Identifier: Apache-2.0
"""Run a plan: guests side by side, failures confirmed, the first confirmed failure ends it.

The order of the runs never changes what a run says; it only decides how soon the answer is known.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from testbed import judge
from testbed.case import RUNS_DIR, Control, RunEvidence, read_run
from testbed.engine import Engine, Executed
from testbed.engine.cached import spot_check
from testbed.judge import Assessment, assess
from testbed.policy import Policy
from testbed.report.events import Listener, StageEnded, StageLine, StageStarted
from testbed.scenario import Scenario
from testbed.spec import Clock, Role, RunSpec
from testbed.status import Status
from testbed.vm import snapshot

ATTACH_WORTH_NS = 5_000_000_000
"""Guest time of an attach from which on the runs that follow begin with the candidate attached. Saving and checking
another snapshot takes the host some 2 s, the first second of an attach less than one."""


def _in_words(line: str) -> str:
    """A line of the stream for somebody who looks on; not verified, and nothing is decided by it."""
    try:
        event = json.loads(line.split(" ", 2)[2])
        at = f"{event['t'] / 1e9:7.3f} "
        match event["e"]:
            case "step":
                return f"{at}{event['verb']}"
            case "log" if event["source"] != "kernel":  # the console has those
                return f"{at}{event['source']}: {event['text'].rstrip()}"
            case "exit":
                return f"{at}scheduler left: {event['reason']} {event['message']}"
            case "starving":
                return f"{at}{event['comm']}[{event['tid']}] has waited for {event['waited_ms']} ms"
            case "attach" | "detach" | "limit" | "tampered" | "end":
                return f"{at}{event['e']} {event.get('detail') or event.get('what') or event.get('ok', '')}"
    except (ValueError, IndexError, KeyError, TypeError, AttributeError):
        pass
    return ""


@dataclass
class Pool:
    """Runs specs on a few threads until all are done, or the first confirmed failure.

    Attributes:
        engine: makes evidence of a spec.
        case: the case's directory.
        listener: is told what happens.
        cancelled: set by whoever wants the work to end.
        jobs: guests side by side.
        run_all: go on after a confirmed failure.
        sources: the candidate's sources, for findings that quote a line.
        spot_check: says of a run in which nothing failed whether it is repeated all the same.
        early_repeat: run the first run twice at once: if it fails it is confirmed in the same time, and if not it was a
            spot check of the cheapest run. Only where a second guest would otherwise wait for nothing better.
        controls: runs whose answer is known.
    """

    engine: Engine
    case: Path
    listener: Listener
    cancelled: threading.Event
    policy: Policy
    scenarios: Mapping[str, Scenario]
    jobs: int
    run_all: bool
    sources: Mapping[str, str]
    spot_check: Callable[[RunSpec], bool] = spot_check
    early_repeat: bool = False
    controls: tuple[Control, ...] = ()
    stopped_early: bool = False
    _stop: threading.Event = field(default_factory=threading.Event)
    _evidence: dict[tuple[int, Role], RunEvidence] = field(default_factory=dict)
    _judged: set[int] = field(default_factory=set)
    _failed: set[int] = field(default_factory=set)
    _failed_again: set[int] = field(default_factory=set)
    _repeated: set[int] = field(default_factory=set)
    _executed: dict[int, Executed] = field(default_factory=dict)
    _attach_ns: dict[str, int] = field(default_factory=dict)
    _round: dict[int, int] = field(default_factory=dict)
    _next: int = 0
    _begin: float = field(default_factory=time.monotonic)
    _started: dict[int, float] = field(default_factory=dict)
    _elapsed: dict[int, float] = field(default_factory=dict)

    def run(self, specs: tuple[RunSpec, ...]) -> None:
        """Run everything; the evidence is in the case.

        Raises:
            HostError: from the first run that could not be had; the others are ended before.
        """
        waiting = deque(specs)
        self._next = len(specs)
        number = -1
        for planned in specs:
            number += planned.role is Role.CANDIDATE  # the plan lists what belongs to it right behind it
            self._round[planned.number] = number
        if self.early_repeat and self.jobs > 1 and specs and specs[0].clock is Clock.SIM:
            waiting.insert(1, self._repeat(specs[0]))
        running: dict[Future[Executed | None], RunSpec] = {}
        with self._stop_with_engine(), ThreadPoolExecutor(self.jobs, thread_name_prefix="guest") as threads:
            try:
                while (waiting or running) and not self._stop.is_set():
                    while len(running) < self.jobs and (spec := self._take(waiting, running.values())) is not None:
                        if spec.repeats in self._repeated:
                            continue  # it was to be spot-checked, and has failed and been repeated since
                        if spec.repeats is not None:
                            self._repeated.add(spec.repeats)
                        self._say_started(spec)
                        running[threads.submit(self._execute, spec)] = spec
                    done, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                    for future in done:
                        spec = running.pop(future)
                        executed = future.result()
                        self._elapsed[spec.number] = time.monotonic() - self._started[spec.number]
                        if executed is None:
                            continue
                        self._executed[spec.number] = executed
                        evidence = read_run(self.case / RUNS_DIR / spec.name)
                        if spec.candidate not in self._attach_ns and snapshot.may_begin_attached(spec):
                            attach = evidence.stream.first("attach")
                            self._attach_ns[spec.candidate] = attach.integer("elapsed_ns") if attach is not None else 0
                        if (repeat := self._look(spec, evidence)) is not None:
                            waiting.appendleft(repeat)
                        elif self._to_be_checked(spec):
                            waiting.append(self._repeat(spec))
            finally:
                self._stop.set()

    def _take(self, waiting: deque[RunSpec], running: Iterable[RunSpec]) -> RunSpec | None:
        """The next run that may start.

        The first of a candidate goes ahead: how long its attach takes decides what the others begin with. That must not
        depend on how many guests run side by side.
        """
        ahead = {spec.candidate for spec in running if snapshot.may_begin_attached(spec)} - self._attach_ns.keys()
        for place, spec in enumerate(waiting):
            if spec.repeats is not None or not snapshot.may_begin_attached(spec):
                del waiting[place]
                return spec
            if spec.candidate not in ahead:
                del waiting[place]
                long = self._attach_ns.get(spec.candidate, 0) >= ATTACH_WORTH_NS
                return spec.model_copy(update={"attached": True}) if long else spec
        return None

    def _execute(self, spec: RunSpec) -> Executed | None:
        stage = f"{RUNS_DIR}/{spec.name}"

        def tell(line: str) -> None:
            if text := _in_words(line):
                self.listener(StageLine(stage=stage, text=text))

        return self.engine.execute(spec, self.case / RUNS_DIR / spec.name, self._stop, tell)

    def _to_be_checked(self, spec: RunSpec) -> bool:
        """A stated share of the runs is repeated although nothing failed, to see whether they are repeatable."""
        known = self._executed[spec.number].confirmed
        return spec.repeats is None and spec.role is not Role.CONTROL and not known and self.spot_check(spec)

    def _repeat(self, spec: RunSpec) -> RunSpec:
        repeat = spec.model_copy(update={"number": self._next, "repeats": spec.number})
        self._next += 1
        return repeat

    @contextmanager
    def _stop_with_engine(self) -> Iterator[None]:
        """The pool stops when the engine is cancelled; a signal handler can only set one event."""
        watcher = threading.Thread(target=self._follow, name="cancel", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            self._stop.set()
            watcher.join()

    def _follow(self) -> None:
        while not self._stop.wait(0.1):
            if self.cancelled.is_set():
                self._stop.set()

    def _look(self, spec: RunSpec, evidence: RunEvidence) -> RunSpec | None:
        """Take in a finished run; returns its repeat if a failure has to be confirmed."""
        pair = self._round[spec.number if spec.repeats is None else spec.repeats]
        if spec.repeats is not None:
            again = self._assess(pair, evidence)
            early = again.status is not Status.FAIL and (pair, Role.BASELINE) not in self._evidence
            # Ended before its baseline: then it is only known that it failed nowhere by itself.
            self._say_ended(spec, Status.DONE if early else again.status, "" if early else _told(again))
            if again.status is Status.FAIL:
                self._failed_again.add(spec.repeats)
                self._stop_if_confirmed(spec.repeats)
            return None
        if spec.role is Role.CONTROL:
            self._look_at_control(spec, self._assess(pair, evidence))
            return None
        self._evidence[pair, spec.role] = evidence
        if spec.role is not Role.CANDIDATE:
            own = self._assess(pair, evidence)
            self._say_ended(spec, own.status, _told(own))
        if spec.role is Role.REFERENCE:
            return None  # no word about the candidate depends on it
        candidate = self._evidence.get((pair, Role.CANDIDATE))
        if candidate is None or pair in self._judged:
            return None
        assessment = self._assess(pair, candidate)
        if assessment.status is not Status.FAIL and (pair, Role.BASELINE) not in self._evidence:
            return None  # half of the checks compare it with its baseline, so its word has to wait
        self._judged.add(pair)
        self._say_ended(candidate.spec, assessment.status, _told(assessment))
        if assessment.status is not Status.FAIL:
            return None
        self._failed.add(candidate.spec.number)
        self._stop_if_confirmed(candidate.spec.number)
        return None if candidate.spec.number in self._repeated else self._repeat(candidate.spec)

    def _look_at_control(self, spec: RunSpec, own: Assessment) -> None:
        """Say whether a run whose answer is known gave it; a surprise ends nothing, the judge draws its conclusion."""
        known = next(control for control in self.controls if control.run == spec.number)
        got = judge.answer(own.status)
        words = f"{known.name}: {'caught' if got == 'fail' else got}, as it must be"
        if got != known.expect:
            words = f"{known.name}: expected {known.expect}, got {got}"
        self._say_ended(spec, Status.DONE if got == known.expect else Status.ERROR, words)

    def _stop_if_confirmed(self, number: int) -> None:
        """End the work when a run and its repetition have failed, in whatever order they ended."""
        if number in self._failed & self._failed_again and not self.run_all:
            self.stopped_early = True
            self._stop.set()

    def _assess(self, pair: int, evidence: RunEvidence) -> Assessment:
        baseline = self._evidence.get((pair, Role.BASELINE))
        if baseline is not None and baseline.spec.scenario != evidence.spec.scenario:
            baseline = None  # a control stands in the first round, whatever that is about
        return assess(
            evidence,
            scenario=self.scenarios[evidence.spec.scenario],
            policy=self.policy,
            baseline=None if evidence.spec.role is Role.BASELINE else baseline,
            sources=dict(self.sources),
        )

    def _say_started(self, spec: RunSpec) -> None:
        stage = f"{RUNS_DIR}/{spec.name}"
        self._started[spec.number] = time.monotonic()
        self.listener(StageStarted(stage=stage, title=_title(spec), at_s=time.monotonic() - self._begin))

    def _say_ended(self, spec: RunSpec, status: Status, summary: str) -> None:
        self.listener(
            StageEnded(
                stage=f"{RUNS_DIR}/{spec.name}",
                title=_title(spec) + (", cached" if self._executed[spec.number].cached else ""),
                status=status,
                elapsed_s=self._elapsed[spec.number],
                summary=summary,
            )
        )


def _told(own: Assessment) -> str:
    return ", ".join(dict.fromkeys(finding.title for finding in own.findings))


def _title(spec: RunSpec) -> str:
    what = "EEVDF" if spec.role is Role.BASELINE else str(spec.role)
    again = ", again" if spec.repeats is not None else ""
    return f"{spec.scenario} ({spec.clock}, {what}{again})"
