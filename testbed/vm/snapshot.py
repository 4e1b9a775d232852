# SPDX-License-Identifier: Apache-2.0
"""Warm start: a machine that has booted and waits for its job, saved once and loaded for every sim run.

The guest's runner stops the machine itself, by a write to a port, so the moment is a function of the image and the
machine's options like everything else in `sim`: two snapshots of the same have the same memory, wherever they are made.
Memory is a file that every guest maps privately, so loading reads only what a run touches, and guests share the rest.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from testbed.case import CONSOLE_FILE, QEMU_LOG_FILE, STREAM_FILE, canonical_json
from testbed.errors import HostError, Interrupted
from testbed.image import Image
from testbed.image.cache import Cache, disk_errors
from testbed.report.events import Listener, StageEnded, StageLine, StageStarted
from testbed.sandbox import Bind, Sandbox, kill_group
from testbed.spec import Model, RunSpec, Topology, sha256
from testbed.status import Status
from testbed.vm import qemu
from testbed.vm import topology as topologies
from testbed.vm.qmp import Monitor

#: Every guest begins at the same moment; its seed then moves the date.
EPOCH = "2026-01-01T00:00:00"
#: Raised when the same options would give another snapshot.
VERSION = 3
BOOT_SEED = 1
MANIFEST_FILE = "manifest.json"
RAM_FILE = "ram"
STATE_FILE = "state"
#: Where a run's sandbox has the snapshot.
PLACE = "/work"
#: The runner's last words before it stops the machine.
READY = b"testbed-runner: ready\n"
#: Host time; booting takes 8 s on a slow machine of its own.
BOOT_WALL_S = 300.0
LOAD_WALL_S = 60.0
_BLOCK = 1 << 16
_ZEROES = bytes(_BLOCK)


class Rate(Model):
    """How instructions become time.

    Attributes:
        shift: one instruction takes 2**shift virtual ns.
        quantum: instructions that one vCPU may run ahead of another.
    """

    shift: int
    quantum: int


class Facts(Model):
    """`manifest.json` of a snapshot."""

    schema_: str = Field(default="testbed.snapshot/1", alias="schema")
    key: str
    image: str
    topology: Topology
    rate: Rate
    ram: str
    state: str


@dataclass(frozen=True)
class Snapshot:
    """A saved machine on disk; never changed."""

    path: Path
    facts: Facts


def machine(topology: Topology, rate: Rate, *, timing: str = "", saving: bool = False) -> list[str]:
    """QEMU's options of a sim guest: the same for the machine that is saved and for all that are loaded from it.

    What differs between these is `timing`, further words of `-icount` with a comma before each, and the memory: files
    that are written, or mapped privately so that they stay as they are.
    """
    # Clocks of two vCPUs differ by up to the quantum, which the kernel's own test takes for a broken TSC.
    options = [*qemu.KERNEL_OPTIONS, "tsc=reliable"]
    folder, sharing = ("/out", "share=on") if saving else (PLACE, "share=off,readonly=on,rom=off")

    def memory(node: int, size_mb: int) -> str:
        return f"memory-backend-file,size={size_mb}M,mem-path={folder}/{RAM_FILE}{node},{sharing}"

    return [
        "qemu-system-x86_64", *qemu.machine(topologies.options(topology, memory)),
        "-machine", "pc", "-cpu", topologies.cpu("max", topology), "-accel", "tcg,thread=single",
        "-icount", f"shift={rate.shift},sleep=off,parallel={rate.quantum}{timing}",
        "-rtc", f"base={EPOCH},clock=vm",
        # The runner's way to stop the machine when it is ready for a job.
        "-device", "pvpanic", "-action", "panic=pause",
        "-kernel", "/image/vmlinuz", "-initrd", "/image/initramfs.cpio",
        "-append", " ".join(options),
        # What a machine draws at random while it boots; a run is given its own seed (sim.py).
        *(("-seed", str(BOOT_SEED)) if saving else ()),
    ]  # fmt: skip


def rate_of(spec: RunSpec) -> Rate:
    """A run's rate."""
    return Rate(shift=spec.icount_shift, quantum=spec.parallel_quantum)


def key_of(image_id: str, topology: Topology, rate: Rate) -> str:
    """What a snapshot is a function of, as a hash."""
    return sha256(canonical_json([VERSION, image_id, *machine(topology, rate, saving=True)]))


_guard = threading.Lock()
_known: dict[Path, Snapshot] = {}


def _nothing(text: str) -> None:
    """Tell nobody."""


def ensure(
    image: Image,
    topology: Topology,
    rate: Rate,
    *,
    cancelled: threading.Event | None = None,
    told: Callable[[str], None] = _nothing,
) -> Snapshot:
    """The snapshot for this machine, made now if it is not in the cache.

    Args:
        image: kernel, root and QEMU.
        topology: the machine.
        rate: how its instructions become time.
        cancelled: ends the making.
        told: called with a line for people.

    Raises:
        HostError: it can't be made here.
        Interrupted: `cancelled` was set.
    """
    cache = Cache.open()
    key = key_of(image.id, topology, rate)
    place = cache.snapshots / key
    with _guard:
        if place in _known:
            return _known[place]
    with cache.lock(f"snapshot-{key[:16]}", lambda: told("another process prepares this guest, waiting for it")):
        found = _read(place)
        if found is None and place.exists():
            told(f"warning: snapshot {key[:12]} is damaged; it is made again")
            with disk_errors("the snapshot", cache.root), cache.workspace() as work:
                place.rename(work / "gone")
        if found is None:
            with disk_errors("a snapshot", cache.root), cache.workspace() as work:
                directory = work / "snapshot"
                directory.mkdir()
                _make(image, topology, rate, key, directory, cancelled or threading.Event())
                cache.publish(directory, place)
            found = _read(place)
            if found is None:
                raise HostError(f"snapshot {key[:12]} can't be read back", hint="look at the disk that holds the cache")
    with _guard:
        _known[place] = found
    return found


def prepare(image: Image, spec: RunSpec, listener: Listener, cancelled: threading.Event) -> None:
    """Have a run's snapshot, and tell as a stage if it has to be made.

    Raises:
        HostError: it can't be made here.
        Interrupted: `cancelled` was set.
    """
    topology, rate = spec.topology, rate_of(spec)
    if (Cache.open().snapshots / key_of(image.id, topology, rate) / MANIFEST_FILE).is_file():
        ensure(
            image, topology, rate, cancelled=cancelled, told=lambda text: listener(StageLine(stage="cache", text=text))
        )
        return
    stage, title = "prepare", f"prepare the guest that runs start from ({topology.cpus} CPUs)"
    started = time.monotonic()
    listener(StageStarted(stage=stage, title=title))
    ensure(image, topology, rate, cancelled=cancelled, told=lambda text: listener(StageLine(stage=stage, text=text)))
    elapsed = time.monotonic() - started
    listener(StageEnded(stage=stage, title=title, status=Status.DONE, elapsed_s=elapsed))


def _read(place: Path) -> Snapshot | None:
    """A snapshot whose bytes are what they were, else None."""
    try:
        facts = Facts.model_validate_json((place / MANIFEST_FILE).read_bytes())
        sound = facts.key == place.name and facts.ram == _memory_hash(place, facts.topology)
        sound = sound and facts.state == _hash(place / STATE_FILE)
    except (OSError, ValidationError):
        return None
    return Snapshot(place, facts) if sound else None


def _memory_hash(place: Path, topology: Topology) -> str:
    """One hash over the memory of all nodes."""
    return sha256(" ".join(_hash(place / f"{RAM_FILE}{node}") for node in range(topology.nodes)).encode("ascii"))


def _hash(path: Path) -> str:
    """SHA-256 over a file's size and its blocks that are not all zero, each with its place; holes cost nothing."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(b"%d\n" % size)
        at = 0
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA) // _BLOCK * _BLOCK
            except OSError:  # ENXIO: nothing but a hole up to the end
                break
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            end = max(end, at + 1)
            while at < end:
                block = os.pread(file.fileno(), _BLOCK, at)
                if block != _ZEROES[: len(block)]:
                    digest.update(b"%d\n" % at + block)
                at += _BLOCK
    return digest.hexdigest()


def _make(image: Image, topology: Topology, rate: Rate, key: str, directory: Path, cancelled: threading.Event) -> None:
    """Boot the machine, wait until the runner stops it, save it.

    Raises:
        HostError: it did not get there.
        Interrupted: `cancelled` was set.
    """
    argv = _sandbox(image, topology, directory).command(machine(topology, rate, saving=True))
    (directory / "command.txt").write_text(shlex.join(argv) + "\n", encoding="utf-8")
    with (directory / QEMU_LOG_FILE).open("wb") as log:
        try:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            raise HostError(f"`{argv[0]}` can't be started: {error.strerror}") from error
    monitor = Monitor(directory, "qmp")
    try:
        _wait_until_ready(process, monitor, directory, cancelled)
        ignore_shared(monitor)
        monitor.ask("migrate", uri=f"file:/out/{STATE_FILE}")
        wait_for_migration(monitor)
    finally:
        kill_group(process)
        monitor.close()
    (directory / "qmp").unlink(missing_ok=True)
    facts = Facts(
        schema="testbed.snapshot/1",
        key=key,
        image=image.id,
        topology=topology,
        rate=rate,
        ram=_memory_hash(directory, topology),
        state=_hash(directory / STATE_FILE),
    )
    (directory / MANIFEST_FILE).write_bytes(canonical_json(facts.model_dump(mode="json", by_alias=True)))
    for file in directory.iterdir():
        file.chmod(0o444)


def _sandbox(image: Image, topology: Topology, directory: Path) -> Sandbox:
    """The sandbox of the machine that is saved; it writes a file as large as its memory."""
    return qemu.room(image, directory, topology).with_limits(file_bytes=(topology.memory_mb << 20) + (64 << 20))


def _wait_until_ready(
    process: subprocess.Popen[bytes], monitor: Monitor, directory: Path, cancelled: threading.Event
) -> None:
    deadline = time.monotonic() + BOOT_WALL_S
    while True:
        if cancelled.wait(qemu.POLL_S):
            raise Interrupted("interrupted while a guest was prepared")
        connected = monitor.connect()
        events = {str(message.get("event")) for message in monitor.messages()}
        if connected and "GUEST_PANICKED" in events and _said(directory / STREAM_FILE).endswith(READY):
            return
        ended = process.poll()
        if ended is not None or "GUEST_PANICKED" in events or time.monotonic() > deadline:
            how = f"QEMU ended with status {ended}" if ended is not None else "it never became ready"
            last = _said(directory / QEMU_LOG_FILE) or _said(directory / CONSOLE_FILE)
            words = last.decode("utf-8", "replace").strip().splitlines()[-1:] or ["nothing"]
            raise HostError(
                f"the guest that all runs start from can't be prepared: {how}; its last words: "
                + "".join(char for char in words[0] if char.isprintable())[:200],
                hint="`testbed doctor` boots one and says more",
            )


def _said(path: Path) -> bytes:
    try:
        return path.read_bytes()[-4096:]
    except OSError:
        return b""


def loading(snapshot: Snapshot) -> tuple[Bind, ...]:
    """What a run's sandbox needs beside its job."""
    return (Bind(snapshot.path, PLACE),)


#: QEMU's options of a machine that waits to be loaded.
LOAD_OPTIONS = ("-incoming", "defer")


def load(monitor: Monitor) -> None:
    """Load the state into a waiting QEMU, and let it run.

    No virtual time passes before: how long this takes on the host leaves no trace in the guest.

    Raises:
        HostError: QEMU refuses the snapshot.
    """
    ignore_shared(monitor)
    monitor.ask("migrate-incoming", uri=f"file:{PLACE}/{STATE_FILE}")
    wait_for_migration(monitor)
    monitor.ask("cont")
    monitor.messages()  # about loading; what comes from here on is the guest's


def ignore_shared(monitor: Monitor) -> None:
    """Memory is in a file of its own and not in the state."""
    monitor.ask("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])


def wait_for_migration(monitor: Monitor) -> None:
    """Wait for QEMU to have written or read the state.

    Raises:
        HostError: it could not.
    """
    deadline = time.monotonic() + LOAD_WALL_S
    while time.monotonic() < deadline:
        answer = monitor.ask("query-migrate")
        if answer.get("status") == "completed":
            return
        if answer.get("status") in ("failed", "cancelled"):
            raise HostError(f"QEMU can't save or load a machine: {answer.get('error-desc', answer['status'])}")
        time.sleep(0.001)
    raise HostError(f"QEMU has not saved or loaded a machine in {LOAD_WALL_S:.0f} s")
