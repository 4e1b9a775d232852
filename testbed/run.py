# SPDX-License-Identifier: Apache-2.0
"""Run a plan: guests side by side, failures confirmed, the first confirmed failure ends it.

The order of the runs never changes what a run says; it only decides how soon the answer is known.
"""

from __future__ import annotations

import json
import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from testbed.case import (
    KEY_FILE,
    OUTCOME_FILE,
    RUNS_DIR,
    SPEC_FILE,
    Ended,
    RunEvidence,
    canonical_json,
    read_run,
    write_atomic,
    write_model,
)
from testbed.image import Image
from testbed.judge import Assessment, assess
from testbed.policy import Policy
from testbed.report.events import Listener, StageEnded, StageLine, StageStarted
from testbed.scenario import Scenario
from testbed.spec import Role, RunSpec
from testbed.status import Status
from testbed.vm.guest import Boot, Guest

KEY_BYTES = 32
HOST_FILE = "host.json"


@dataclass(frozen=True)
class Engine:
    """What a run needs beside its spec; a distributed engine will have the same interface.

    Attributes:
        case: the case's directory.
        files: archive that travels with every job.
        guest: makes the machine for a spec's clock.
        listener: is told what happens.
        cancelled: set by whoever wants the work to end.
    """

    case: Path
    image: Image
    files: Path
    guest: Callable[[Boot], Guest]
    listener: Listener
    cancelled: threading.Event = field(default_factory=threading.Event)

    def execute(self, spec: RunSpec, stop: threading.Event) -> RunEvidence | None:
        """One guest boot from spec to evidence; None if it was interrupted, and then it leaves nothing behind.

        Raises:
            HostError: this machine can't run it, or can't keep its evidence.
        """
        directory = self.case / RUNS_DIR / spec.name
        directory.mkdir(parents=True)
        key = secrets.token_bytes(KEY_BYTES)
        write_model(directory / SPEC_FILE, spec)
        write_atomic(directory / KEY_FILE, key.hex() + "\n")
        stage = f"{RUNS_DIR}/{spec.name}"
        boot = Boot(
            spec=spec,
            image=self.image,
            directory=directory,
            files=self.files,
            key=key,
            cancelled=stop,
            line=lambda line: self._tell(stage, line),
        )
        guest = self.guest(boot)
        started = time.monotonic()
        try:
            guest.boot()
            outcome = guest.run()
        finally:
            guest.close()
        if outcome.ended is Ended.INTERRUPTED:
            shutil.rmtree(directory, ignore_errors=True)
            return None
        # Times of the host are for people; no judge reads them.
        write_atomic(directory / HOST_FILE, canonical_json({"seconds": round(time.monotonic() - started, 3)}))
        write_model(directory / OUTCOME_FILE, outcome)
        return read_run(directory)

    def _tell(self, stage: str, line: str) -> None:
        if text := _in_words(line):
            self.listener(StageLine(stage=stage, text=text))


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
        jobs: guests side by side.
        run_all: go on after a confirmed failure.
        sources: the candidate's sources, for findings that quote a line.
    """

    engine: Engine
    policy: Policy
    scenarios: Mapping[str, Scenario]
    jobs: int
    run_all: bool
    sources: Mapping[str, str]
    stopped_early: bool = False
    _stop: threading.Event = field(default_factory=threading.Event)
    _evidence: dict[tuple[int, Role], RunEvidence] = field(default_factory=dict)
    _judged: set[int] = field(default_factory=set)
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
        running: dict[Future[RunEvidence | None], RunSpec] = {}
        with self._stop_with_engine(), ThreadPoolExecutor(self.jobs, thread_name_prefix="guest") as threads:
            try:
                while (waiting or running) and not self._stop.is_set():
                    while waiting and len(running) < self.jobs:
                        spec = waiting.popleft()
                        self._say_started(spec)
                        running[threads.submit(self.engine.execute, spec, self._stop)] = spec
                    done, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                    for future in done:
                        spec = running.pop(future)
                        evidence = future.result()
                        self._elapsed[spec.number] = time.monotonic() - self._started[spec.number]
                        if evidence is not None and (repeat := self._look(spec, evidence)) is not None:
                            waiting.appendleft(repeat)
            finally:
                self._stop.set()

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
            if self.engine.cancelled.is_set():
                self._stop.set()

    def _look(self, spec: RunSpec, evidence: RunEvidence) -> RunSpec | None:
        """Take in a finished run; returns its repeat if a failure has to be confirmed."""
        pair = _pair(spec)
        if spec.repeats is not None:
            self._say_ended(spec, status := self._assess(pair, evidence))
            if status.status is Status.FAIL and not self.run_all:
                self.stopped_early = True
                self._stop.set()
            return None
        self._evidence[pair, spec.role] = evidence
        if spec.role is Role.BASELINE:
            self._say_ended(spec, self._assess(pair, evidence))
        candidate = self._evidence.get((pair, Role.CANDIDATE))
        if candidate is None or pair in self._judged:
            return None
        assessment = self._assess(pair, candidate)
        if assessment.status is not Status.FAIL and (pair, Role.BASELINE) not in self._evidence:
            return None  # half of the checks compare it with its baseline, so its word has to wait
        self._judged.add(pair)
        self._say_ended(candidate.spec, assessment)
        if assessment.status is not Status.FAIL:
            return None
        repeat = candidate.spec.model_copy(update={"number": self._next, "repeats": candidate.spec.number})
        self._next += 1
        return repeat

    def _assess(self, pair: int, evidence: RunEvidence) -> Assessment:
        baseline = self._evidence.get((pair, Role.BASELINE))
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
        self.engine.listener(StageStarted(stage=stage, title=_title(spec), at_s=time.monotonic() - self._begin))

    def _say_ended(self, spec: RunSpec, own: Assessment) -> None:
        self.engine.listener(
            StageEnded(
                stage=f"{RUNS_DIR}/{spec.name}",
                title=_title(spec),
                status=own.status,
                elapsed_s=self._elapsed[spec.number],
                summary=", ".join(dict.fromkeys(finding.title for finding in own.findings)),
            )
        )


def _pair(spec: RunSpec) -> int:
    """The plan lists a candidate's run and its baseline next to each other; a repeat belongs to what it repeats."""
    return (spec.number if spec.repeats is None else spec.repeats) // 2


def _title(spec: RunSpec) -> str:
    what = {Role.CANDIDATE: "candidate", Role.BASELINE: "EEVDF", Role.CONTROL: "control"}[spec.role]
    again = ", again" if spec.repeats is not None else ""
    return f"{spec.scenario} ({spec.clock}, {what}{again})"
