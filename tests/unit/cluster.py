# SPDX-License-Identifier: Apache-2.0
"""A cluster of processes on this machine, as a user starts one, and guests for it that need no image."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from testbed.errors import UsageError
from testbed.image import Image
from testbed.vm.fake import FakeGuest, Script
from testbed.vm.guest import Boot, Guest
from tests.unit.test_run import GOOD, HELLO

ROOT = Path(__file__).parent.parent.parent
IMAGE = cast(Image, SimpleNamespace(id="i" * 64, manifest=SimpleNamespace(qemu=SimpleNamespace(version="10"))))
#: Where guests leave what tests ask about; in the environment of all processes.
PLACE = "TESTBED_TEST_PLACE"


@dataclass
class Started:
    """A scheduler and its workers."""

    address: str
    scratch: Path
    more: tuple[str, ...] = ()
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def add_worker(self, resources: str = "GUEST_MB=4000", threads: int = 2) -> subprocess.Popen[bytes]:
        """A worker without a nanny: what is killed stays dead."""
        number = len(self.processes)
        words = ["distributed.cli.dask_worker", self.address, "--no-nanny", "--nthreads", str(threads)]
        words += ["--resources", resources] if resources else []
        words += ["--local-directory", str(self.scratch / f"worker{number}"), "--no-dashboard", "--name", f"w{number}"]
        words += self.more
        self.processes.append(_start(words, self.scratch, f"worker{number}.log"))
        return self.processes[-1]

    def wait_for_workers(self, count: int) -> None:
        """Wait until so many have registered."""
        log = self.scratch / "scheduler.log"
        deadline = time.monotonic() + 60
        while len(re.findall("Register worker", log.read_text())) < count:
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.05)


def _start(words: list[str], scratch: Path, log: str) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        PLACE: str(scratch),
        "DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "spawn",
    }
    with (scratch / log).open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *words], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )


@contextmanager
def cluster(scratch: Path, *more: str) -> Iterator[Started]:
    """A scheduler on a free port; ended with everything that belongs to it. `more` are words for all processes."""
    scratch.mkdir(parents=True, exist_ok=True)
    words = ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show"]
    scheduler = _start([*words, *more], scratch, "scheduler.log")
    started = Started("", scratch, more, [scheduler])
    try:
        deadline = time.monotonic() + 60
        while not (found := re.search(r"Scheduler at:\s+(t(?:cp|ls)://\S+)", (scratch / "scheduler.log").read_text())):
            assert time.monotonic() < deadline and scheduler.poll() is None, (scratch / "scheduler.log").read_text()
            time.sleep(0.05)
        started.address = found[1]
        yield started
    finally:
        for process in started.processes:
            process.send_signal(signal.SIGKILL)
        for process in started.processes:
            process.wait()


# --- what workers do; importable by them --------------------------------------------------------------------


def find(image_id: str) -> Image:
    """Every machine has the image."""
    return IMAGE


def find_on_disk(image_id: str) -> Image:
    """A machine has the image once it was brought."""
    if not (Path(os.environ[PLACE]) / f"image-{os.getpid()}").exists():
        raise UsageError("there is no image")
    return IMAGE


def take(file: Path) -> Image:
    """Take the image that was brought."""
    (Path(os.environ[PLACE]) / f"image-{os.getpid()}").write_bytes(file.read_bytes())
    return IMAGE


def good(boot: Boot) -> Guest:
    """Says that all is well, and that it ran here."""
    note(boot, "ran")
    return FakeGuest(boot, GOOD)


def hangs(boot: Boot) -> Guest:
    """Never ends by itself; leaves word of its beginning and its end."""
    note(boot, "hangs")
    guest = FakeGuest(boot, Script(events=(HELLO,), hang=True))
    ending = guest.close

    def close() -> None:
        note(boot, "closed")
        ending()

    guest.close = close  # type: ignore[method-assign]  # a guest that tells of its end
    return guest


def hangs_once(boot: Boot) -> Guest:
    """The first guest of a run never ends, the next one is a good one."""
    before = notes("hangs", Path(os.environ[PLACE]))
    return good(boot) if any(boot.spec.name in one for one in before) else hangs(boot)


def kills_its_worker(boot: Boot) -> Guest:
    """Takes its worker with it."""
    note(boot, "killed")
    os.kill(os.getpid(), signal.SIGKILL)
    return FakeGuest(boot, GOOD)


def note(boot: Boot, what: str) -> None:
    """Leave word in the place that the test looks at."""
    place = Path(os.environ[PLACE])
    (place / f"{what}-{boot.spec.name}-{os.getpid()}-{time.monotonic_ns()}").touch()


def notes(what: str, place: Path) -> list[str]:
    """What was left there."""
    return sorted(path.name for path in place.glob(f"{what}-*"))


def wait_for(what: str, place: Path, count: int = 1) -> list[str]:
    """Wait until so many notes are there."""
    deadline = time.monotonic() + 60
    while len(found := notes(what, place)) < count:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found
