# SPDX-License-Identifier: Apache-2.0
"""Warm start: a machine that has booted and waits for its job, saved once and loaded for every sim run.

The guest's runner stops the machine itself, by a write to a port, so the moment is a function of the image and the
machine's options like everything else in `sim`: two snapshots of the same have the same memory, wherever they are made.
Memory is a file that every guest maps privately, so loading reads only what a run touches, and guests share the rest.

A second snapshot may be made from the first, with a candidate attached: where the verifier has minutes of guest time to
do, all runs but the first are spared it.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from testbed.case import CONSOLE_FILE, QEMU_LOG_FILE, STREAM_FILE, canonical_json
from testbed.errors import HostError, Interrupted
from testbed.image import Image
from testbed.image.cache import Cache, disk_errors
from testbed.report.events import Listener, StageEnded, StageLine, StageStarted
from testbed.sandbox import Bind, Sandbox, kill_group
from testbed.scenario import parse_job
from testbed.scenario.job import line
from testbed.spec import Clock, Model, RunSpec, Topology, sha256
from testbed.status import Status
from testbed.vm import qemu
from testbed.vm import topology as topologies
from testbed.vm.qmp import Monitor, MonitorLostError

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
#: The verifier takes 64 s of guest time for scx_lavd.
ATTACH_WALL_S = 1800.0
LOAD_WALL_S = 60.0
#: So many snapshots with a candidate attached are kept, the latest; each takes some 200 MB.
KEPT_ATTACHED = 12
#: Nobody judges what is said while a snapshot is made.
_PREFIX_KEY = bytes(32)
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
    attached: str = Field(default="", description="hash of what was done before it was saved")
    ram: str
    state: str


@dataclass(frozen=True)
class Prefix:
    """What a saved machine has done before it waits for its job.

    Attributes:
        job: the job's text, which ends with the candidate attached.
        files: sha256 of the archive that travels with it.
    """

    job: str
    files: str

    @property
    def sha256(self) -> str:
        """Name of it all."""
        return sha256(canonical_json([self.job, self.files]))


class _NotReadyError(HostError):
    """The machine that was to be saved never came to the point."""


class NotAttachedError(HostError):
    """The candidate did not attach in the machine that was to be saved."""


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


def key_of(image_id: str, topology: Topology, rate: Rate, prefix: Prefix | None = None) -> str:
    """What a snapshot is a function of, as a hash."""
    more = [] if prefix is None else [prefix.sha256]
    return sha256(canonical_json([VERSION, image_id, *machine(topology, rate, saving=True), *more]))


def may_begin_attached(spec: RunSpec) -> bool:
    """Whether the first thing that a run does is to attach its candidate."""
    if spec.clock is not Clock.SIM or not spec.candidate:
        return False
    steps = parse_job(spec.job).steps
    return bool(steps) and steps[0][0] == "attach"


def prefix_of(spec: RunSpec) -> Prefix | None:
    """What the machine that a run starts from has done, None if nothing but to boot."""
    if not spec.attached:
        return None
    job = parse_job(spec.job)
    attach = job.steps[0]
    lines = [
        line("testbed-job", 1),
        line("seed", 0),
        line("limit", int(attach[1]) + 10_000),
        *(line(*words) for words in job.settings if words[0] in ("candidate", "timeout_ms")),
        line(*attach),
        line("save"),
    ]
    return Prefix("".join(lines), spec.files)


_guard = threading.Lock()
_known: dict[Path, Snapshot] = {}
_hopeless: set[Path] = set()


def _nothing(text: str) -> None:
    """Tell nobody."""


def ensure(
    image: Image,
    topology: Topology,
    rate: Rate,
    *,
    prefix: Prefix | None = None,
    files: Path | None = None,
    cancelled: threading.Event | None = None,
    told: Callable[[str], None] = _nothing,
) -> Snapshot:
    """The snapshot for this machine, made now if it is not in the cache.

    Args:
        image: kernel, root and QEMU.
        topology: the machine.
        rate: how its instructions become time.
        prefix: what it does before it is saved, besides booting.
        files: the archive that the prefix needs.
        cancelled: ends the making.
        told: called with a line for people.

    Raises:
        HostError: it can't be made here.
        NotAttachedError: nor ever, because the candidate does not get there.
        Interrupted: `cancelled` was set.
    """
    cache = Cache.open()
    key = key_of(image.id, topology, rate, prefix)
    place = cache.snapshots / key
    with _guard:
        if place in _known:
            return _known[place]
        if place in _hopeless:
            raise NotAttachedError("the candidate did not attach")
    cancelled = cancelled or threading.Event()
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
                making = _Making(image, topology, rate, key, directory, cancelled)
                if prefix is None:
                    making.boot()
                else:
                    assert files is not None
                    _attach(making, prefix, files, place, told)
                    _make_room(cache)
                cache.publish(directory, place)
            found = _read(place)
            if found is None:
                raise HostError(f"snapshot {key[:12]} can't be read back", hint="look at the disk that holds the cache")
    with _guard:
        _known[place] = found
    return found


def _attach(making: _Making, prefix: Prefix, files: Path, place: Path, told: Callable[[str], None]) -> None:
    """Make a snapshot from the one that only booted; remember it if the candidate does not get there."""
    base = ensure(making.image, making.topology, making.rate, cancelled=making.cancelled, told=told)
    try:
        making.attach(base, prefix, files)
    except NotAttachedError:
        with _guard:
            _hopeless.add(place)
        raise


def ensure_for(image: Image, spec: RunSpec, files: Path, cancelled: threading.Event) -> Snapshot:
    """What a run starts from: with its candidate attached, if the spec says so and the candidate gets there.

    Raises:
        HostError: it can't be made here.
        Interrupted: `cancelled` was set.
    """
    prefix, rate = prefix_of(spec), rate_of(spec)
    if prefix is not None:
        try:
            return ensure(image, spec.topology, rate, prefix=prefix, files=files, cancelled=cancelled)
        except NotAttachedError:
            pass  # then the run's own attach says why, always in the same words
    return ensure(image, spec.topology, rate, cancelled=cancelled)


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


@dataclass(frozen=True)
class _Making:
    """A snapshot on its way."""

    image: Image
    topology: Topology
    rate: Rate
    key: str
    directory: Path
    cancelled: threading.Event

    def boot(self) -> None:
        """Boot the machine, wait until the runner stops it, save it.

        Raises:
            HostError: it did not get there.
            Interrupted: `cancelled` was set.
        """
        self._save(self._sandbox(), (), load_first=False, attached="")

    def attach(self, base: Snapshot, prefix: Prefix, files: Path) -> None:
        """Load a copy of `base`, wait until the candidate is attached, save it.

        Raises:
            NotAttachedError: it did not get there.
            Interrupted: `cancelled` was set.
        """
        for node in range(self.topology.nodes):
            _copy_sparse(base.path / f"{RAM_FILE}{node}", self.directory / f"{RAM_FILE}{node}")
        job = self.directory / "in"
        job.mkdir()
        (job / "job").write_text(prefix.job, encoding="ascii")
        (job / "key").write_bytes(_PREFIX_KEY)
        sandbox = self._sandbox(Bind(job, "/job"), Bind(files, "/tmp/files"), *loading(base))
        try:
            self._save(sandbox, (*qemu.JOB_ITEMS, *LOAD_OPTIONS), load_first=True, attached=prefix.sha256)
        except _NotReadyError as error:
            raise NotAttachedError(error.message, hint=error.hint) from error
        shutil.rmtree(job)

    def _sandbox(self, *more: Bind) -> Sandbox:
        """The sandbox of the machine that is saved; it writes a file as large as its memory."""
        room = qemu.room(self.image, self.directory, self.topology, read_only=more)
        return room.with_limits(file_bytes=(self.topology.memory_mb << 20) + (64 << 20))

    def _save(self, sandbox: Sandbox, options: Iterable[str], *, load_first: bool, attached: str) -> None:
        directory = self.directory
        argv = sandbox.command([*machine(self.topology, self.rate, saving=True), *options])
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
            if load_first:
                _wait_for_monitor(process, monitor, self.cancelled)
                load(monitor)
            _wait_until_ready(process, monitor, directory, self.cancelled, ATTACH_WALL_S if load_first else BOOT_WALL_S)
            ignore_shared(monitor)
            monitor.ask("migrate", uri=f"file:/out/{STATE_FILE}")
            wait_for_migration(monitor)
        finally:
            kill_group(process)
            monitor.close()
        (directory / "qmp").unlink(missing_ok=True)
        facts = Facts(
            schema="testbed.snapshot/1",
            key=self.key,
            image=self.image.id,
            topology=self.topology,
            rate=self.rate,
            attached=attached,
            ram=_memory_hash(directory, self.topology),
            state=_hash(directory / STATE_FILE),
        )
        (directory / MANIFEST_FILE).write_bytes(canonical_json(facts.model_dump(mode="json", by_alias=True)))
        for file in directory.iterdir():
            if file.is_file():
                file.chmod(0o444)


def _copy_sparse(source: Path, target: Path) -> None:
    """Copy what is no hole."""
    with source.open("rb") as old, target.open("xb") as new:
        size = os.fstat(old.fileno()).st_size
        new.truncate(size)
        at = 0
        while at < size:
            try:
                at = os.lseek(old.fileno(), at, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole up to the end
                break
            end = os.lseek(old.fileno(), at, os.SEEK_HOLE)
            while at < end:
                at += os.copy_file_range(old.fileno(), new.fileno(), end - at, at, at)


def _make_room(cache: Cache) -> None:
    """Drop the oldest snapshots with a candidate attached; a run that just maps one keeps its bytes."""
    found: list[tuple[float, Path]] = []
    for place in cache.snapshots.iterdir():
        try:
            if Facts.model_validate_json((place / MANIFEST_FILE).read_bytes()).attached:
                found.append((place.stat().st_mtime, place))
        except (OSError, ValidationError):
            continue
    for _, place in sorted(found)[: max(0, len(found) - KEPT_ATTACHED + 1)]:
        with cache.workspace() as work:
            place.rename(work / "gone")


def _wait_for_monitor(process: subprocess.Popen[bytes], monitor: Monitor, cancelled: threading.Event) -> None:
    try:
        monitor.connect_while(lambda: process.poll() is None and not cancelled.is_set())
    except MonitorLostError as error:
        if cancelled.is_set():
            raise Interrupted("interrupted while a guest was prepared") from None
        raise HostError(f"the guest that runs start from can't be prepared: {error.message}") from None


def _wait_until_ready(
    process: subprocess.Popen[bytes], monitor: Monitor, directory: Path, cancelled: threading.Event, patience_s: float
) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        if cancelled.wait(qemu.POLL_S):
            raise Interrupted("interrupted while a guest was prepared")
        connected = monitor.connect()
        events = {str(message.get("event")) for message in monitor.messages()}
        if connected and "GUEST_PANICKED" in events and _said(directory / STREAM_FILE).endswith(READY):
            return
        ended = process.poll()
        if ended is not None or "GUEST_PANICKED" in events:
            how = f"QEMU ended with status {ended}" if ended is not None else "it never became ready"
            raise _NotReadyError(_lost(directory, how), hint="`testbed doctor` boots one and says more")
        if time.monotonic() > deadline:
            how = f"it was not ready in {patience_s:.0f} s"
            raise HostError(_lost(directory, how), hint="try again when this machine is less busy")


def _lost(directory: Path, how: str) -> str:
    last = _said(directory / QEMU_LOG_FILE) or _said(directory / CONSOLE_FILE)
    words = last.decode("utf-8", "replace").strip().splitlines()[-1:] or ["nothing"]
    said = "".join(char for char in words[0] if char.isprintable())[:200]
    return f"the guest that runs start from can't be prepared: {how}; its last words: {said}"


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
