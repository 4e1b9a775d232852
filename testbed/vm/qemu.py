# SPDX-License-Identifier: Apache-2.0
"""One QEMU process in its sandbox, watched until it ends: what `sim` and `live` share."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from testbed.case import CONSOLE_FILE, QEMU_LOG_FILE, STREAM_FILE, Ended, GuestOutcome
from testbed.errors import HostError
from testbed.image import Image
from testbed.sandbox import Bind, Limits, Sandbox
from testbed.spec import Topology
from testbed.vm.guest import STREAM_LIMIT, Boot
from testbed.vm.qmp import Monitor

POLL_S = 0.02
# What vm/wrapper.py writes into QEMU's log begins with this.
WORD_OF_OURS = "testbed: "
# How much of the log's end is looked at.
LAST_WORDS = 8000
# After QEMU said that the guest is lost, a late oops may still be on its way to the console.
LATE_OOPS_S = 5.0
# How long a killed process may take to be gone.
REAP_S = 10.0
# Room that the evidence of one run may need; less than this is a full disk.
ROOM = 2 * STREAM_LIMIT + (64 << 20)
# QEMU's own memory beside the guest's: translation buffer, devices, libraries.
OVERHEAD = 3 << 30


def sandbox(boot: Boot, *devices: str, read_only: Sequence[Bind] = ()) -> Sandbox:
    """The sandbox of a run: the job and its files beside what `room` has."""
    job = (Bind(boot.directory / "in", "/job"), Bind(boot.files, "/tmp/files"))
    return room(boot.image, boot.directory, boot.spec.topology, *devices, read_only=(*job, *read_only))


def room(image: Image, directory: Path, topology: Topology, *devices: str, read_only: Sequence[Bind] = ()) -> Sandbox:
    """QEMU's sandbox: its own root, the image, and one directory that it can write."""
    return Sandbox(
        root=image.qemu,
        read_only=(Bind(image.path, "/image"), *read_only),
        writable=(Bind(directory, "/out"),),
        devices=devices,
        limits=Limits(
            file_bytes=STREAM_LIMIT,
            memory_bytes=(topology.memory_mb << 20) + OVERHEAD,
        ),
    )


def machine(cpus_and_memory: Sequence[str]) -> list[str]:
    """QEMU options that both clocks share: the doors of the guest protocol, and nothing that is not needed.

    `cpus_and_memory` is what testbed/vm/topology.py says of the machine.

    Console and stream go to files, because a reader could slow down the guest or wake another thread of QEMU.
    """
    return [
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        *cpus_and_memory,
        "-chardev", f"file,id=console,path=/out/{CONSOLE_FILE}",
        "-serial", "chardev:console",
        "-chardev", f"file,id=stream,path=/out/{STREAM_FILE}",
        "-device", "isa-debugcon,iobase=0x402,chardev=stream",
        "-qmp", "unix:/out/qmp,server=on,wait=off",
        # Where the kernel says what a memory dump needs to be read.
        "-device", "vmcoreinfo",
        # Expiry is a non-maskable interrupt, and that a panic: the console then says where the CPU was.
        "-device", "i6300esb", "-action", "watchdog=inject-nmi",
    ]  # fmt: skip


#: What a run reads; a machine that is being prepared for a snapshot has none of it.
JOB_ITEMS = (
    "-fw_cfg", "name=opt/testbed/job,file=/job/job",
    "-fw_cfg", "name=opt/testbed/key,file=/job/key",
    "-fw_cfg", "name=opt/testbed/files,file=/tmp/files",
)  # fmt: skip

#: Kernel command line that both clocks share.
KERNEL_OPTIONS = (
    "console=ttyS0",
    "panic=-1",  # a panic resets at once, and -no-reboot makes that the end
    "oops=panic",
    "console_msg_format=syslog",  # tells the kernel's own words from what somebody wrote to /dev/kmsg
    "unknown_nmi_panic=1",
    "nokaslr",
)


@dataclass
class Process:
    """The process group of one guest.

    Attributes:
        boot: what runs in it.
        accelerator: the name that goes into the outcome.
        launched: virtme-ng started QEMU, so its exit status says nothing, and QMP is asked which accelerator runs.
            Never asked in `sim`: a question while it runs could change the run.
    """

    boot: Boot
    accelerator: str
    launched: bool = False
    _process: subprocess.Popen[bytes] | None = None
    _monitor: Monitor | None = None
    _events: list[str] = field(default_factory=list)
    _reason: str = ""
    _asked: bool = False
    _kvm: bool | None = None
    _alone: bool = False
    _read: int = 0
    _partial: bytes = b""

    def prepare(self) -> None:
        """Lay out what QEMU reads.

        Raises:
            HostError: no room for the evidence.
        """
        directory = self.boot.directory
        free = shutil.disk_usage(directory).free
        if free < ROOM:
            raise HostError(
                f"found {free >> 20} MiB free for a run's evidence, expected at least {ROOM >> 20} MiB",
                hint="free some space (`testbed cases prune`, `testbed image prune`) or choose another --out",
            )
        (directory / "in").mkdir()
        (directory / "in" / "job").write_text(self.boot.spec.job, encoding="ascii")
        (directory / "in" / "key").write_bytes(self.boot.key)

    def start(self, argv: Sequence[str]) -> None:
        """Start `argv` (a sandboxed QEMU, or virtme-ng around one) in a session of its own.

        Raises:
            HostError: it can't be started.
        """
        directory = self.boot.directory
        (directory / "command.txt").write_text(shlex.join(argv) + "\n", encoding="utf-8")
        with (directory / QEMU_LOG_FILE).open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    # Python ignores SIGXFSZ and QEMU inherits that: a file at its limit is cut, not fatal.
                    restore_signals=False,
                )
            except OSError as error:
                raise HostError(f"`{argv[0]}` can't be started: {error.strerror}") from error
        self._monitor = Monitor(directory, "qmp")

    def connect(self) -> Monitor:
        """The monitor of a QEMU that was just started.

        Raises:
            MonitorLostError: QEMU has ended, or the guest is not wanted any more.
        """
        assert self._monitor is not None
        self._monitor.connect_while(lambda: self.running and not self.boot.cancelled.is_set())
        return self._monitor

    def wait(self) -> GuestOutcome:
        """Watch until the guest ended, whoever ended it."""
        assert self._process is not None
        deadline = time.monotonic() + self.boot.spec.wall_limit_s
        late: float | None = None
        ended: Ended | None = None
        while self._process.poll() is None:
            self._listen()
            now = time.monotonic()
            if self.boot.cancelled.is_set():
                ended = Ended.INTERRUPTED
                break
            if late is None and self._lost() is not None:
                late = now + LATE_OOPS_S
            if late is not None and now > late:
                break
            if self._mistaken():
                ended = Ended.QEMU_DIED
                break
            if now > deadline:
                ended = Ended.WALL_LIMIT
                self._reason = f"more than {self.boot.spec.wall_limit_s} s of host time"
                break
            time.sleep(POLL_S)
        self._listen()
        status = self._process.poll()
        self._alone = status is not None and ended is None
        self._kill()
        if ended is None:
            ended = self._by_itself(status)
            if self.launched and self._kvm is None and ended is not Ended.QEMU_DIED:
                ended, self._reason = Ended.QEMU_DIED, "QEMU never said which accelerator runs the guest"
        return self._outcome(ended)

    @property
    def running(self) -> bool:
        """QEMU is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def ended_by_itself(self) -> bool:
        """The guest ended the machine, and nothing that it said was cut: the host had no hand in it."""
        if not self._alone or not {"SHUTDOWN:guest-shutdown", "SHUTDOWN:guest-reset"} & set(self._events):
            return False  # a QEMU that was ended early has not even made its files
        return all((self.boot.directory / name).stat().st_size < STREAM_LIMIT for name in (STREAM_FILE, CONSOLE_FILE))

    def _mistaken(self) -> bool:
        """QEMU runs the guest by another accelerator than the one that was asked for."""
        if self._kvm is None or self._kvm == (self.accelerator == "kvm"):
            return False
        self._reason = f"asked for {self.accelerator}, and QEMU says that KVM is {'on' if self._kvm else 'off'}"
        return True

    def _by_itself(self, status: int | None) -> Ended:
        """How a machine ended that nobody had to stop."""
        if (lost := self._lost()) is not None:
            return lost
        if "SHUTDOWN:guest-shutdown" in self._events:
            return Ended.FINISHED if self._wrote(STREAM_FILE, b'"e":"end"') else Ended.POWEROFF
        if "SHUTDOWN:guest-reset" in self._events:
            panicked = self._wrote(CONSOLE_FILE, b"Kernel panic - not syncing")
            return Ended.PANIC if panicked else Ended.POWEROFF
        words = self.diagnose()
        self._reason = self._reason or (words if self.launched and words else f"exit status {status}; {words}")
        return Ended.QEMU_DIED

    def _lost(self) -> Ended | None:
        if any(event.startswith("WATCHDOG") for event in self._events):
            return Ended.WATCHDOG
        return Ended.PAUSED if "STOP" in self._events else None

    def _outcome(self, ended: Ended) -> GuestOutcome:
        silent = not self._wrote(STREAM_FILE, b'"e":"hello"')
        if silent and ended in (Ended.WALL_LIMIT, Ended.POWEROFF, Ended.PANIC, Ended.WATCHDOG):
            self._reason = f"{ended} before the runner's hello; {self._reason}".rstrip("; ")
            ended = Ended.NEVER_CONNECTED
        return GuestOutcome(
            accelerator=self.accelerator,
            qemu=self.boot.image.manifest.qemu.version,
            ended=ended,
            reason=self._reason,
            qmp=tuple(self._events),
        )

    def diagnose(self) -> str:
        """The last words of QEMU's own log, without control characters; how it ended comes first."""
        with contextlib.suppress(OSError):
            text = (self.boot.directory / QEMU_LOG_FILE).read_bytes()[-LAST_WORDS:].decode("utf-8", "replace")
            lines = [line for line in text.splitlines() if line.strip()]
            ours = [line.removeprefix(WORD_OF_OURS) for line in lines if line.startswith(WORD_OF_OURS)]
            theirs = [line for line in lines if not line.startswith(WORD_OF_OURS)]
            errors = [line for line in theirs if "error: " in line]
            words = "; ".join([*ours[-1:], *(errors or theirs)[-1:]])
            return "".join(c for c in words if c.isprintable())[:300]
        return ""

    def close(self) -> None:
        """Kill what is left and remove what is no evidence."""
        self._kill()
        if self._monitor is not None:
            self._monitor.close()
        shutil.rmtree(self.boot.directory / "in", ignore_errors=True)
        (self.boot.directory / "qmp").unlink(missing_ok=True)

    def _listen(self) -> None:
        """Take in what QMP and the stream have said since the last time."""
        assert self._monitor is not None
        if self._monitor.connect() and self.launched and not self._asked:
            self._monitor.send("query-kvm")
            self._monitor.send("query-status")  # it may have stopped before anybody listened
            self._asked = True
        for message in self._monitor.messages():
            data = message.get("data") or {}
            match message.get("event"):
                case "SHUTDOWN":
                    self._events.append(f"SHUTDOWN:{data.get('reason', '')}")
                case "WATCHDOG":
                    self._events.append(f"WATCHDOG:{data.get('action', '')}")
                case "STOP" | "GUEST_PANICKED" | "BLOCK_IO_ERROR" as event:
                    self._events.append(event)
                    self._monitor.send("query-status")
            answer = message.get("return")
            if isinstance(answer, dict) and answer.get("status", "running") not in ("running", "prelaunch"):
                self._reason = f"QEMU says: {answer['status']}"
                if "STOP" not in self._events:
                    self._events.append("STOP")
            if isinstance(answer, dict) and isinstance(answer.get("enabled"), bool):
                self._kvm = answer["enabled"]
        with contextlib.suppress(OSError), (self.boot.directory / STREAM_FILE).open("rb") as stream:
            stream.seek(self._read)
            data = stream.read(1 << 20)
            self._read += len(data)
            *lines, self._partial = (self._partial + data).split(b"\n")
            for line in lines:
                self.boot.line(line.decode("ascii", "replace"))

    def _kill(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        # The guest is in a process namespace of its own, so its init's death takes everything with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(REAP_S)

    def _wrote(self, name: str, text: bytes) -> bool:
        with contextlib.suppress(OSError):
            return text in (self.boot.directory / name).read_bytes()
        return False
