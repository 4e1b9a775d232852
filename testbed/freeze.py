# SPDX-License-Identifier: Apache-2.0
"""A run stopped at a moment of its own time, for somebody who wants to look: gdb, QEMU's monitor, a memory dump."""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed import judge
from testbed.case import Case, DamagedCaseError, RunEvidence, read_key
from testbed.errors import HostError, Interrupted, UsageError
from testbed.image import Image
from testbed.vm import qemu, snapshot
from testbed.vm.guest import Boot
from testbed.vm.qmp import Monitor
from testbed.vm.sim import ACCELERATOR, command

GDB = "gdb"
MONITOR = "monitor"
DUMP = "vmcore"
#: Host time that a dump of the whole memory may take.
DUMP_WALL_S = 300.0


@dataclass(frozen=True)
class Moment:
    """A point in a run.

    Attributes:
        guest_ns: by the guest's CLOCK_MONOTONIC, as events of the stream tell it.
        virtual_ns: by QEMU's virtual clock.
    """

    run: RunEvidence
    guest_ns: int
    virtual_ns: int


def moment(case: Case, runs: tuple[RunEvidence, ...], what: str) -> Moment:
    """The moment that somebody means: a finding's code, or seconds of guest time with an `s` behind them.

    Raises:
        UsageError: the case has no such finding, or no such time.
    """
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)s", what):
        return _at(runs[0], round(float(found[1]) * 1e9))
    verdict = case.verdict or judge.judge(case)
    codes = [finding.code for finding in verdict.findings]
    by_name = {run.name: run for run in runs}
    for finding in verdict.findings:
        if finding.code != what:
            continue
        for ref in finding.evidence:
            name, _, file = ref.file.rpartition("/")
            run = by_name.get(name)
            if run is None or file != "stream":
                continue
            event = next((one for one in run.stream.events if one.line == ref.line), None)
            if event is not None:
                return _at(run, event.t)
        raise UsageError(
            f"finding `{what}` does not point at a moment of a run under virtual time",
            hint="give the moment as seconds of guest time, e.g. `--until 10.3s`",
        )
    raise UsageError(
        f"the case has no finding `{what}`",
        hint=f"it has {', '.join(dict.fromkeys(codes)) or 'none'}; or give seconds of guest time, e.g. `10.3s`",
    )


def _at(run: RunEvidence, guest_ns: int) -> Moment:
    hello = next(iter(run.stream.of("hello")), None)
    if hello is None or not hello.integer("tsc"):
        raise DamagedCaseError(f"`{run.name}` does not say how its time is QEMU's", hint="run the candidate again")
    # Both clocks count the same virtual nanoseconds (the guest's TSC is QEMU's clock), from other beginnings.
    return Moment(run, guest_ns, hello.integer("tsc") + guest_ns - hello.t)


@dataclass(frozen=True)
class Frozen:
    """A guest that stands still.

    Attributes:
        directory: private to its owner; holds the sockets and the evidence so far.
    """

    directory: Path
    monitor: Monitor

    @property
    def gdb(self) -> Path:
        """Socket of QEMU's gdbstub."""
        return self.directory / GDB

    @property
    def console(self) -> Path:
        """Socket of QEMU's monitor, for people."""
        return self.directory / MONITOR

    def dump(self, file: Path) -> None:
        """Write the guest's memory as an ELF vmcore.

        Raises:
            HostError: QEMU can't, or the disk is full.
        """
        self.monitor.ask("dump-guest-memory", paging=False, protocol=f"file:/out/{DUMP}", detach=True)
        deadline = time.monotonic() + DUMP_WALL_S
        while (answer := self.monitor.ask("query-dump")).get("status") != "completed":
            if answer.get("status") == "failed" or time.monotonic() > deadline:
                raise HostError("QEMU can't dump the guest's memory", hint=f"is the disk of `{self.directory}` full?")
            time.sleep(0.05)
        temporary = file.with_name(f".{file.name}.new")
        try:
            shutil.copyfile(self.directory / DUMP, temporary)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
            (self.directory / DUMP).unlink(missing_ok=True)


@contextmanager
def frozen(image: Image, at: Moment, case: Case, files: Path, cancelled: threading.Event) -> Iterator[Frozen]:
    """Run up to a moment and stand still there until the block ends.

    Raises:
        HostError: it can't be run here, or ends before.
        Interrupted: `cancelled` was set meanwhile.
    """
    spec = at.run.spec
    with tempfile.TemporaryDirectory(prefix="testbed-frozen-") as name:
        directory = Path(name)
        boot = Boot(spec, image, directory, files, read_key(case.path / at.run.name), cancelled, lambda line: None)
        saved = snapshot.ensure_for(image, spec, files, cancelled)
        process = qemu.Process(boot, ACCELERATOR)
        extra = ["-chardev", f"socket,id=person,path=/out/{MONITOR},server=on,wait=off", "-mon", "chardev=person"]
        process.prepare()
        try:
            process.start(command(boot, saved, until_ns=at.virtual_ns, extra=extra))
            monitor = process.connect()
            snapshot.load(monitor)
            _wait_for_stop(process, monitor, at, cancelled)
            words = f"gdbserver unix:/out/{GDB},server=on,wait=off"
            monitor.ask("human-monitor-command", **{"command-line": words})
            yield Frozen(directory, monitor)
        finally:
            process.close()


def _wait_for_stop(process: qemu.Process, monitor: Monitor, at: Moment, cancelled: threading.Event) -> None:
    deadline = time.monotonic() + at.run.spec.wall_limit_s
    while not any(message.get("event") == "STOP" for message in monitor.messages()):
        if cancelled.wait(qemu.POLL_S):
            raise Interrupted("interrupted before the moment was reached")
        if not process.running or time.monotonic() > deadline:
            raise HostError(
                f"the guest never came to {at.guest_ns / 1e9:.6f} s of its time",
                hint="`testbed replay` compares the run",
            )
