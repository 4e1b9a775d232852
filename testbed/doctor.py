# SPDX-License-Identifier: Apache-2.0
"""What this machine can do, and for each thing that it can't the command that mends it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from testbed import image as images
from testbed import sandbox
from testbed.case import Ended, GuestOutcome
from testbed.errors import HostError, TestbedError
from testbed.image import Image
from testbed.image.cache import Cache, cache_root
from testbed.image.recipe import Sources
from testbed.spec import Clock
from testbed.vm import probe
from testbed.vm.live import Accelerator, LiveGuest
from testbed.vm.sim import SimGuest

SIM_WALL_S = 40
LIVE_WALL_S = 60
# An image with its parts while it is being built; the evidence of a few cases.
ROOM_TO_BUILD = 8 << 30
ROOM_TO_RUN = 1 << 30
# A guest of the usual size, and QEMU's own memory beside it.
GUEST_MEMORY = 800 << 20
VIRTME_NG = ((1, 42), (2,))
PYTHON = (3, 11)


class Status(StrEnum):
    """`warn`: something is slower or left out. `fail`: the testbed can't work before it is mended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: stable, one word or two.
        found: what is there.
        expected: what should be there.
        cure: what to do, often a command; empty where nothing has to be done.
    """

    name: str
    status: Status
    found: str
    expected: str
    cure: str = ""

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return {name: str(value) for name, value in asdict(self).items()}


def current_image() -> Image | None:
    """The image of this version of the testbed, if it is whole and in the cache; never builds one."""
    with contextlib.suppress(TestbedError):
        known = Cache.open().read_key(Sources.load().key())
        if known is not None:
            return images.load(known)
    return None


def checks(image: Image | None, probe_boots: bool) -> list[Check]:
    """Look at everything. The order is that in which things have to be mended.

    Args:
        image: the image to boot; `current_image()`.
        probe_boots: boot guests (about half a minute); without it only what lies there is looked at.
    """
    found = list(_machine(image))
    works = all(check.status is not Status.FAIL for check in found)
    found.append(image_check(image, thorough=probe_boots))
    if image is not None and probe_boots and works and found[-1].status is Status.OK:
        found += [sim_check(image), kvm_check(lambda: probe.kvm_boot(image)), live_check(image)]
    else:
        found.append(kvm_check(None))
    found.append(schbench_check())
    return found


def _machine(image: Image | None) -> Iterator[Check]:
    yield python_check()
    yield architecture_check()
    working = bubblewrap_check()
    yield working
    yield apparmor_check(working.status is Status.OK)
    yield mmdebstrap_check(image is not None)
    yield cache_check(image is not None)
    yield memory_check()
    yield virtme_ng_check()


def python_check(version: tuple[int, ...] | None = None) -> Check:
    """The interpreter that runs us."""
    version = version or sys.version_info[:3]
    found = ".".join(map(str, version))
    if version >= PYTHON:
        return Check("python", Status.OK, found, "3.11 or newer")
    return Check("python", Status.FAIL, found, "3.11 or newer", "make setup PYTHON=python3.11")


def architecture_check(machine: str = "", system: str = "") -> Check:
    """Images exist for one architecture."""
    found = f"{system or platform.system()} {machine or platform.machine()}"
    if found == "Linux x86_64":
        return Check("machine", Status.OK, found, "Linux x86_64")
    return Check("machine", Status.FAIL, found, "Linux x86_64", "use another machine; there are no images for this one")


def bubblewrap_check(try_it: Callable[[], None] = sandbox.probe) -> Check:
    """The one sandbox."""
    expected = "bubblewrap can make namespaces"
    try:
        try_it()
    except HostError as error:
        return Check("bubblewrap", Status.FAIL, error.message, expected, error.hint)
    return Check("bubblewrap", Status.OK, "works", expected)


def apparmor_check(bubblewrap_works: bool, value: str | None = None) -> Check:
    """Ubuntu forbids user namespaces to programs without a profile."""
    value = _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") if value is None else value
    expected = "user namespaces for bubblewrap"
    if value != "1":
        return Check("apparmor", Status.OK, "does not restrict user namespaces", expected)
    if bubblewrap_works:
        return Check("apparmor", Status.OK, "restricts user namespaces, and lets bubblewrap have them", expected)
    cure = sandbox.cure("", lambda name: value if name.endswith("restrict_unprivileged_userns") else "")
    return Check("apparmor", Status.FAIL, "restricts user namespaces", expected, cure)


def mmdebstrap_check(has_image: bool) -> Check:
    """Only whoever builds an image needs it."""
    place = shutil.which("mmdebstrap")
    expected = "mmdebstrap, to build an image"
    if place:
        return Check("mmdebstrap", Status.OK, place, expected)
    status = Status.WARN if has_image else Status.FAIL
    cure = "apt-get install mmdebstrap" + ("" if has_image else ", or `testbed image import FILE`")
    return Check("mmdebstrap", status, "not installed", expected, cure)


def cache_check(has_image: bool) -> Check:
    """Where images live, and room for one."""
    root = cache_root()
    needed = ROOM_TO_RUN if has_image else ROOM_TO_BUILD
    expected = f"writable, {needed >> 20} MiB free"
    cure = "set TESTBED_CACHE to a directory on another disk"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
        free = shutil.disk_usage(root).free
    except OSError as error:
        found = f"`{root}`: {(error.strerror or str(error)).lower()}"
        return Check("cache", Status.FAIL, found, expected, f"{cure}, or mend its owner or its disk")
    found = f"`{root}`, {free >> 20} MiB free"
    if free >= needed:
        return Check("cache", Status.OK, found, expected)
    return Check("cache", Status.FAIL, found, expected, f"{cure}, or free some space (`testbed image prune`)")


def memory_check(available: int | None = None, guests: int | None = None) -> Check:
    """Room for as many guests as run side by side."""
    available = _available_memory() if available is None else available
    guests = guests or len(os.sched_getaffinity(0))
    found = f"{available >> 20} MiB available"
    expected = f"{GUEST_MEMORY * guests >> 20} MiB for {guests} guests side by side"
    fit = available // GUEST_MEMORY
    if fit >= guests:
        return Check("memory", Status.OK, found, expected)
    if fit >= 1:
        return Check("memory", Status.WARN, found, expected, f"testbed run -j {fit} …")
    return Check("memory", Status.FAIL, found, expected, "end other programs, or use a larger machine")


def virtme_ng_check(version: str | None = None) -> Check:
    """The `live` clock's launcher, a dependency of the Python package."""
    expected = "virtme-ng 1.42 or newer, below 2"
    cure = f"{shutil.which('pip') or 'pip'} install 'virtme-ng>=1.42,<2'"
    if version is None:
        try:
            version = importlib.metadata.version("virtme-ng")
        except importlib.metadata.PackageNotFoundError:
            return Check("virtme-ng", Status.WARN, "not installed, so no live clock", expected, cure)
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if VIRTME_NG[0] <= numbers < VIRTME_NG[1]:
        return Check("virtme-ng", Status.OK, version, expected)
    return Check("virtme-ng", Status.WARN, version, expected, cure)


def image_check(image: Image | None, *, thorough: bool = False) -> Check:
    """The guest image, with `thorough` every byte of it."""
    expected = "the image of this version of the testbed"
    if image is None:
        return Check("image", Status.WARN, "not built yet, or damaged", expected, "testbed image build")
    found = f"{image.id[:12]}, kernel {image.manifest.kernel.release}, QEMU {image.manifest.qemu.version}"
    if thorough:
        try:
            images.verify(image)
        except (HostError, OSError) as error:
            hint = error.hint if isinstance(error, HostError) else "testbed image build"
            return Check("image", Status.FAIL, str(error), expected, hint)
        found += ", every file as it was made"
    return Check("image", Status.OK, found, expected)


def sim_check(image: Image) -> Check:
    """Boot a guest in virtual time."""
    return _boot_check("sim", lambda: probe.boot_once(image, SimGuest, SIM_WALL_S, Clock.SIM), "deterministic time")


def live_check(image: Image) -> Check:
    """Boot a guest in real time, by the accelerator that works."""
    live = probe.probe(image)
    if not live.available:
        return Check("live", Status.WARN, live.reason, "a guest in real time", "see `virtme-ng`")
    accelerator = Accelerator(live.accelerator or Accelerator.TCG)
    return _boot_check(
        "live", lambda: probe.boot_once(image, lambda boot: LiveGuest(boot, accelerator), LIVE_WALL_S), accelerator
    )


def _boot_check(name: str, boot: Callable[[], GuestOutcome], how: str) -> Check:
    expected = "a guest boots and does its job"
    try:
        outcome = boot()
    except HostError as error:
        return Check(name, Status.FAIL, error.message, expected, error.hint)
    if outcome.ended is Ended.FINISHED:
        return Check(name, Status.OK, f"a guest booted ({how})", expected)
    found = f"the guest ended as `{outcome.ended}`" + (f": {outcome.reason}" if outcome.reason else "")
    cure = "try again on a quieter machine" if outcome.ended in _SLOW else "testbed image build, then report it to us"
    return Check(name, Status.FAIL, found, expected, cure)


_SLOW = (Ended.WALL_LIMIT, Ended.NEVER_CONNECTED)


def kvm_check(boot: Callable[[], probe.Remembered] | None) -> Check:
    """KVM, which only a boot can tell; without it nothing is missing but speed and truly concurrent CPUs."""
    expected = "KVM, for the live clock; without it live runs are emulated"
    refused = probe.device_refuses()
    if refused:
        denied = "permission denied" in refused
        cure = (
            "usermod -aG kvm $USER, and log in again" if denied else "turn on (nested) virtualisation, if there is any"
        )
        return Check("kvm", Status.WARN, refused, expected, cure)
    if boot is None:
        return Check("kvm", Status.WARN, "opens; whether it works only a probe boot tells", expected, "testbed doctor")
    try:
        said = boot()
    except HostError as error:
        return Check("kvm", Status.WARN, error.message, expected, error.hint)
    if said.works:
        return Check("kvm", Status.OK, said.reason, expected)
    cure = "none here: the machine around this one would have to give it complete nested virtualisation"
    return Check("kvm", Status.WARN, said.reason, expected, cure)


def schbench_check() -> Check:
    """Optional: ours is used where there is none."""
    place = shutil.which("schbench")
    return Check("schbench", Status.OK, place or "none on PATH, so our own is used", "optional")


def _available_memory() -> int:
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def _read(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    return ""
