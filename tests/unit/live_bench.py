# SPDX-License-Identifier: Apache-2.0
"""A boot that can be looked at without an image: what the tests of the live clock share."""

from __future__ import annotations

import threading
from pathlib import Path

from testbed.image.model import Image, Manifest, QemuFacts
from testbed.spec import Clock, Role, RunSpec, Topology
from testbed.verdict import KernelFacts
from testbed.vm.guest import Boot

RELEASE = "7.3.4+deb13-cloud-amd64"


def fake_image(place: Path) -> Image:
    """An image with the places that a sandbox wants to have, and nothing in them."""
    for name in ("image", "job", "out", "tmp", "dev", "proc"):
        (place / "qemu" / name).mkdir(parents=True)
    for name in ("vmlinuz", "initramfs.cpio"):
        (place / name).write_bytes(b"")
    manifest = Manifest(
        id="1" * 64,
        recipe="debian-13",
        architecture="amd64",
        kernel=KernelFacts(release=RELEASE, version="7.3.4-1", sha256="2" * 64),
        qemu=QemuFacts(version="10.0.13", sha256="3" * 64),
        runner_sha256="5" * 64,
        clang="22",
        packages="6" * 64,
        locked=True,
        programs=(),
        examples={},
        components={},
    )
    return Image(place, manifest)


def fake_boot(place: Path, *, job: str = "testbed-job 1\n", wall_limit_s: int = 20) -> Boot:
    """A boot below `place`."""
    directory = place / "runs" / "007"
    directory.mkdir(parents=True)
    files = place / "files.cpio"
    files.write_bytes(b"")
    spec = RunSpec(
        schema="testbed.run/1",
        number=7,
        role=Role.CANDIDATE,
        scenario="stall",
        clock=Clock.LIVE,
        topology=Topology(cpus=3, memory_mb=640),
        seed=5,
        job=job,
        files="4" * 64,
        image="1" * 64,
        wall_limit_s=wall_limit_s,
    )
    return Boot(spec, fake_image(place / "image"), directory, files, b"k" * 32, threading.Event(), lambda _: None)
