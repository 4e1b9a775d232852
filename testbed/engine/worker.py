# SPDX-License-Identifier: Apache-2.0
"""What a Dask worker does for `testbed/engine/dask.py`: one run at a time, from inputs that it holds by their hash.

A worker keeps inputs in its own scratch directory. What it lacks it says, and gets it in parts, out of band, so that a
worker full of guests gets it too. It looks every half second whether anybody still wants the run.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import platform
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import distributed
from distributed.utils import sync

import testbed
from testbed.engine.cached import EVIDENCE
from testbed.engine.local import LocalEngine
from testbed.errors import HostError, UsageError
from testbed.image import Image
from testbed.spec import RunSpec, sha256
from testbed.vm.guest import Boot, Guest

#: The resource of which each guest takes its memory and `OVERHEAD_MB`, so that a worker takes as many as fit.
TOKEN = "GUEST_MB"
#: QEMU beside the guest's memory; measured: at most 195 MB resident with all that a guest has touched.
OVERHEAD_MB = 128
#: Inputs beyond this are dropped, the ones that were used the longest time ago first.
KEPT_BYTES = 4 << 30
INPUTS_DIR = "testbed-inputs"
POLL_S = 0.5


@dataclass(frozen=True)
class About:
    """What somebody has to be to run our runs: `code` is over every source file of the testbed."""

    testbed: str
    code: str
    distributed: str
    python: str

    def __str__(self) -> str:
        return f"testbed {self.testbed} ({self.code[:12]}), distributed {self.distributed}, python {self.python}"


@dataclass(frozen=True)
class Order:
    """One run that is wanted.

    Attributes:
        about: whoever wants it.
        ticket: names the run, however often it is tried.
        topic: where it is told that the run began.
        guest: makes the machine for a spec's clock.
        find: the image of an id, here; raises UsageError if there is none.
    """

    about: About
    spec: RunSpec
    key: bytes
    ticket: str
    topic: str
    guest: Callable[[Boot], Guest]
    find: Callable[[str], Image]


@dataclass(frozen=True)
class Lacks:
    """The worker would run it if it had an input: an archive by its sha256, or the image."""

    worker: str
    files: str = ""
    image: str = ""


@dataclass(frozen=True)
class Refused:
    """The worker's machine can't run it."""

    worker: str
    message: str
    hint: str


@dataclass(frozen=True)
class Evidence:
    """What a run left, file by file, with a hash of each; none: nobody wanted it any more."""

    worker: str
    files: dict[str, bytes]
    hashes: dict[str, str]


@functools.cache
def about() -> About:
    """Who we are."""
    root = Path(testbed.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(f"{file.relative_to(root).as_posix()}\n{sha256(file.read_bytes())}\n".encode())
    return About(
        testbed.__version__,
        digest.hexdigest(),
        version("distributed"),
        ".".join(platform.python_version_tuple()[:2]),
    )


def work(order: Order) -> Evidence | Lacks | Refused:
    """Run one guest. The task of the cluster."""
    worker = distributed.get_worker()
    here = str(worker.address)
    task = str(worker.get_current_task())
    if order.about != about():
        return Refused(here, f"it has {about()}, and {order.about} asks", "install the same testbed on all machines")
    files = _place(worker, order.spec.files)
    if not files.is_file():
        return Lacks(here, files=order.spec.files)
    files.touch()
    try:
        image = order.find(order.spec.image)
    except UsageError:
        return Lacks(here, image=order.spec.image)
    except HostError as error:
        return Refused(here, error.message, error.hint)
    # Waits until the scheduler knows: a guest that takes this machine with it must not do so unseen.
    sync(worker.loop, worker.scheduler.log_event, topic=order.topic, msg={"ticket": order.ticket, "worker": here})
    with (
        tempfile.TemporaryDirectory(prefix="testbed-run-", dir=worker.local_directory) as scratch,
        _wanted(worker, task) as stop,
    ):
        directory = Path(scratch) / order.spec.name
        engine = LocalEngine(image, {order.spec.files: files}, order.guest, key=order.key)
        try:
            executed = engine.execute(order.spec, directory, stop, _unheard)
        except HostError as error:
            return Refused(here, error.message, error.hint)
        if executed is None:
            return Evidence(here, {}, {})
        found = {name: (directory / name).read_bytes() for name in EVIDENCE if (directory / name).is_file()}
    return Evidence(here, found, {name: sha256(data) for name, data in found.items()})


def _unheard(line: str) -> None:
    """Nobody listens here; the lines are in the evidence."""


@contextmanager
def _wanted(worker: distributed.Worker, task: str) -> Iterator[threading.Event]:
    """An event that is set once the cluster has given the task up: cancelled, its client gone, or the worker ends."""
    stop, over = threading.Event(), threading.Event()

    def watch() -> None:
        while not over.wait(POLL_S):
            state = worker.state.tasks.get(task)
            if state is None or state.state == "cancelled" or worker.status not in _AT_WORK:
                stop.set()

    watcher = threading.Thread(target=watch, name="wanted", daemon=True)
    watcher.start()
    try:
        yield stop
    finally:
        over.set()
        watcher.join()


_AT_WORK = (distributed.Status.running, distributed.Status.paused, distributed.Status.closing_gracefully)


# --- inputs: called out of band, on the worker's event loop --------------------------------------------------


def _place(worker: distributed.Worker, digest: str) -> Path:
    return Path(worker.local_directory) / INPUTS_DIR / digest


def here(dask_worker: distributed.Worker) -> About:
    """Who a worker is."""
    return about()


def has(digest: str, dask_worker: distributed.Worker) -> bool:
    """Whether the worker has an input."""
    return _place(dask_worker, digest).is_file()


def has_image(image_id: str, find: Callable[[str], Image], dask_worker: distributed.Worker) -> bool:
    """Whether the worker's machine has an image."""
    try:
        find(image_id)
    except UsageError:
        return False
    return True


async def receive(
    digest: str, token: str, offset: int, data: bytes, last: bool, dask_worker: distributed.Worker
) -> bool:
    """Take a part of an input; the last one is followed by a look at the hash. False: it is not what it should be."""
    place = _place(dask_worker, digest)
    half = place.with_name(f".{digest}.{token}")
    return await asyncio.to_thread(_receive, place, half, offset, data, last)


def _receive(place: Path, half: Path, offset: int, data: bytes, last: bool) -> bool:
    place.parent.mkdir(exist_ok=True)
    with half.open("ab") as file:
        file.truncate(offset)
        file.write(data)
    if not last:
        return True
    with half.open("rb") as file:
        sound = hashlib.file_digest(file, "sha256").hexdigest() == place.name
    if not sound:
        half.unlink()
        return False
    half.rename(place)
    make_room(place.parent, KEPT_BYTES)
    return True


def make_room(folder: Path, kept_bytes: int) -> None:
    """Drop inputs that were not used for the longest time; never the newest one."""
    files = sorted(
        ((path.stat().st_mtime, path) for path in folder.iterdir() if not path.name.startswith(".")), reverse=True
    )
    total = 0
    for number, (_, path) in enumerate(files):
        total += path.stat().st_size
        if number and total > kept_bytes:
            path.unlink(missing_ok=True)  # a guest that is loading it has it open already, or says that it lacks it


async def take_image(digest: str, image_id: str, take: Callable[[Path], Image], dask_worker: distributed.Worker) -> str:
    """Import an image that came as an input, every hash checked; returns what was wrong, empty if nothing."""
    place = _place(dask_worker, digest)
    try:
        image = await asyncio.to_thread(take, place)
    except (UsageError, HostError) as error:
        return error.message
    finally:
        await asyncio.to_thread(functools.partial(place.unlink, missing_ok=True))
    return "" if image.id == image_id else f"it holds image {image.id[:12]}"
