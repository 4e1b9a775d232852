# SPDX-License-Identifier: Apache-2.0
"""The deterministic back end: instruction-counted, parallel virtual time (docs/parallel_time.md), from a snapshot."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from testbed import digest
from testbed.case import TRACE_FILE, Ended, GuestOutcome
from testbed.errors import Interrupted
from testbed.vm import qemu, snapshot
from testbed.vm.guest import STREAM_LIMIT, Boot
from testbed.vm.qmp import MonitorLostError

ACCELERATOR = "tcg-parallel-icount"


def command(
    boot: Boot, saved: snapshot.Snapshot | None = None, *, until_ns: int | None = None, extra: Sequence[str] = ()
) -> list[str]:
    """The sandboxed QEMU command: everything in it is a function of the spec and the image.

    Args:
        boot: the run.
        saved: what it starts from; without one, the command as it would be, for people who want to see it.
        until_ns: virtual time at which QEMU stops the machine.
        extra: QEMU's options for somebody who looks on; nothing that the guest sees.
    """
    spec = boot.spec
    timing = f",seed={spec.seed},trace=/out/{TRACE_FILE}"
    if until_ns is not None:
        timing += f",until={until_ns}"
    argv = [
        *snapshot.machine(spec.topology, snapshot.rate_of(spec), timing=timing),
        *qemu.JOB_ITEMS,
        "-seed", str(spec.seed & 0xFFFFFFFF),
        *snapshot.LOAD_OPTIONS,
        *extra,
    ]  # fmt: skip
    binds = snapshot.loading(saved) if saved is not None else ()
    sandbox = qemu.sandbox(boot, read_only=binds)
    if until_ns is not None:
        sandbox = sandbox.with_limits(file_bytes=(spec.topology.memory_mb << 20) + STREAM_LIMIT)  # a memory dump
    return sandbox.command(argv)


class SimGuest:
    """One guest under virtual time."""

    def __init__(self, boot: Boot) -> None:
        self._process = qemu.Process(boot, ACCELERATOR)
        self._boot = boot
        self._interrupted = False
        self._memory = ""

    def boot(self) -> None:
        """Load the machine from its snapshot, which is made first if there is none yet.

        Raises:
            HostError: it can't be made, loaded or started.
        """
        spec = self._boot.spec
        try:
            saved = snapshot.ensure_for(self._boot.image, spec, self._boot.files, self._boot.cancelled)
        except Interrupted:
            self._interrupted = True
            return
        self._memory = saved.facts.ram
        self._process.prepare()
        self._process.start(command(self._boot, saved))
        with contextlib.suppress(MonitorLostError):  # how it ended says more, and `run` finds out
            snapshot.load(self._process.connect())

    def run(self) -> GuestOutcome:
        """Wait for the guest's end."""
        if self._interrupted:
            return GuestOutcome(
                accelerator=ACCELERATOR, qemu=self._boot.image.manifest.qemu.version, ended=Ended.INTERRUPTED
            )
        outcome = self._process.wait()
        changes = {"snapshot": self._memory}
        if self._process.ended_by_itself:
            changes["digest"] = digest.of(self._boot.directory)
        return outcome.model_copy(update=changes)

    def diagnose(self) -> str:
        """QEMU's last words."""
        return self._process.diagnose()

    def close(self) -> None:
        """End QEMU."""
        self._process.close()
