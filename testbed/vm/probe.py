# SPDX-License-Identifier: Apache-2.0
"""Which accelerator runs a guest in real time here: found by booting one.

A `/dev/kvm` that opens proves nothing. On a nested host KVM may lack what a kernel needs: QEMU then dies when it sets
up the CPU, or pauses the guest with an internal error while whoever started it waits for ever.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import secrets
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from testbed.case import Ended, GuestOutcome, LiveProbe, write_model
from testbed.errors import HostError
from testbed.image import Image
from testbed.image.cache import cache_root, remove_tree
from testbed.image.cpio import write_archive
from testbed.spec import Clock, Model, Role, RunSpec, Topology, sha256
from testbed.vm.guest import Boot, Guest
from testbed.vm.live import KVM_DEVICE, Accelerator, LiveGuest, packages

#: The least that the runner can be asked to do.
JOB = "testbed-job 1\nseed 1\nlimit 10000\nwatchdog 0\ncandidate none\ntimeout_ms 0\nstarved 0\nsleep 100\n"
KVM_WALL_S = 20
MEMORY_MB = 512
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_one_at_a_time = threading.Lock()


class Remembered(Model):
    """What a probe boot said, and what it depends on."""

    key: str
    works: bool
    reason: str


def probe(image: Image) -> LiveProbe:
    """What the live clock can do on this machine; boots a guest unless that was done since the machine started.

    Raises:
        HostError: bubblewrap doesn't work.
    """
    try:
        packages()
    except HostError as error:
        return LiveProbe(available=False, reason=f"{error.message}; {error.hint}")
    refused = device_refuses()
    if refused:
        return LiveProbe(available=True, accelerator=Accelerator.TCG, reason=f"emulation, because {refused}")
    kvm = kvm_boot(image)
    if kvm.works:
        return LiveProbe(available=True, accelerator=Accelerator.KVM, reason=kvm.reason)
    return LiveProbe(available=True, accelerator=Accelerator.TCG, reason=f"emulation, because {kvm.reason}")


def device_refuses(device: Path = KVM_DEVICE) -> str:
    """Why KVM can't even be tried; empty if it can."""
    if not device.exists():
        return f"there is no {device}"
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{device} can't be opened: {(error.strerror or str(error)).lower()}"
    return ""


def kvm_boot(image: Image) -> Remembered:
    """Whether a guest runs under KVM, from the cache if this machine was asked since it started."""
    key = key_of(image)
    place = cache_root() / "live" / f"{key[:32]}.json"
    with _one_at_a_time:
        with contextlib.suppress(OSError, ValidationError):
            known = Remembered.model_validate_json(place.read_bytes())
            if known.key == key:
                return known
        found = judge_kvm(key, boot_once(image, lambda boot: LiveGuest(boot, Accelerator.KVM), KVM_WALL_S))
        # A probe that can't be remembered is only repeated.
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            for old in place.parent.glob("*.json"):
                old.unlink(missing_ok=True)
            write_model(place, found)
        return found


def key_of(image: Image) -> str:
    """Everything that the answer depends on: the host's boot, the user, the guest's kernel, QEMU and virtme-ng."""
    parts = (
        _text(BOOT_ID),
        str(os.geteuid()),
        image.manifest.kernel.sha256,
        image.manifest.qemu.sha256,
        importlib.metadata.version("virtme-ng"),
    )
    return sha256("\0".join(parts).encode())


def judge_kvm(key: str, outcome: GuestOutcome) -> Remembered:
    """What the end of the probe's guest says about KVM, in plain words."""
    if outcome.ended is Ended.FINISHED:
        return Remembered(key=key, works=True, reason="a guest ran under KVM")
    what = {
        Ended.QEMU_DIED: "QEMU ends",
        Ended.PAUSED: "QEMU stops the guest (a nested host that lacks what the kernel needs)",
        Ended.PANIC: "the kernel panics",
        Ended.POWEROFF: "the guest ends before its job does",
    }.get(outcome.ended, f"nothing comes of the guest in {KVM_WALL_S} s")
    words = f": {outcome.reason}" if outcome.reason else ""
    return Remembered(key=key, works=False, reason=f"{KVM_DEVICE} opens, but with it {what}{words}")


def boot_once(image: Image, make: Callable[[Boot], Guest], wall_s: int, clock: Clock = Clock.LIVE) -> GuestOutcome:
    """Boot a guest with the smallest job and look how it ends. Leaves nothing behind.

    Raises:
        HostError: it can't be started.
    """
    work = Path(tempfile.mkdtemp(prefix="testbed-probe-"))
    try:
        directory = work / "000"
        directory.mkdir()
        files = work / "files"
        digest = write_archive(files, {})
        spec = RunSpec(
            schema="testbed.run/1",
            number=0,
            role=Role.CONTROL,
            scenario="probe",
            clock=clock,
            topology=Topology(cpus=2, memory_mb=MEMORY_MB),
            seed=1,
            job=JOB,
            files=digest,
            image=image.id,
            wall_limit_s=wall_s,
        )
        boot = Boot(spec, image, directory, files, secrets.token_bytes(32), threading.Event(), lambda _: None)
        guest = make(boot)
        try:
            guest.boot()
            return guest.run()
        finally:
            guest.close()
    finally:
        remove_tree(work)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
