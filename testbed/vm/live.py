# SPDX-License-Identifier: Apache-2.0
"""The back end in real time, through virtme-ng (docs/guides/live.md).

virtme-ng starts the image's kernel; the root is the image's initramfs, as in `sim`, so that no page of a program has
to come from the host while the scheduler under test decides who runs. Two sandboxes, one in the other:

- the outer one holds virtme-ng: the host read-only, no network, a process namespace of its own. virtme-ng starts a
  shell that starts a launcher that starts QEMU, and none of them looks after the next; the namespace's end is theirs.
- the inner one is QEMU's, the same as in `sim`; `wrapper.py` puts QEMU into it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import sys
import time
from enum import StrEnum
from pathlib import Path

from testbed.case import GuestOutcome
from testbed.errors import Bug, HostError
from testbed.image import Image
from testbed.sandbox import ENVIRONMENT, Bind, Sandbox
from testbed.vm import qemu, topology, wrapper
from testbed.vm.guest import Boot

KVM_DEVICE = Path("/dev/kvm")
# Where the outer sandbox has what virtme-ng is given: names without a space, because it goes through a shell.
ROOM = "/run/testbed"
KERNEL = "/run/vmlinuz"
DIRECTORY = "/run/out"
FILES = "/run/files"
# How long the processes of a closed guest may take to be gone.
GONE_S = 5.0

_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")


class Accelerator(StrEnum):
    """What executes the guest. There is no third: multi-threaded emulation crashes kernels that patch themselves."""

    KVM = "kvm"
    TCG = "tcg-single"

    @property
    def options(self) -> list[str]:
        """The one accelerator for QEMU; never a list that it may fall back along."""
        return ["-accel", "kvm" if self is Accelerator.KVM else "tcg,thread=single"]


def probed(image: Image) -> Accelerator:
    """The accelerator that works on this machine."""
    from testbed.vm.probe import probe

    return Accelerator(probe(image).accelerator or Accelerator.TCG)


def packages() -> Path:
    """The directory that virtme-ng is installed in.

    Raises:
        HostError: it isn't installed.
    """
    found = importlib.util.find_spec("virtme_ng")
    if found is None or not found.submodule_search_locations:
        raise HostError("virtme-ng is not installed beside the testbed", hint="pip install 'virtme-ng>=1.42,<2'")
    return Path(next(iter(found.submodule_search_locations))).parent


def kernel_options(accelerator: Accelerator) -> list[str]:
    """The kernel's command line, without what virtme-ng adds."""
    options = [*qemu.KERNEL_OPTIONS, "loglevel=7"]
    if accelerator is Accelerator.TCG:
        # One host thread runs all vCPUs in turn, and on a busy host it pauses. The kernel's own checks take that for
        # a broken TSC (clocksource watchdog), or for a timer that is not connected, and then it panics in boot.
        options += ["tsc=reliable", "no_timer_check"]
    return options


def qemu_options(boot: Boot, accelerator: Accelerator) -> list[str]:
    """Our options for QEMU, which virtme-ng puts behind its own."""
    model = topology.cpu("max", boot.spec.topology)
    return [
        *qemu.machine(topology.options(boot.spec.topology)), *qemu.JOB_ITEMS,
        # virtme-ng's own choice is `max`, or the host's CPU under KVM, which has the leaves that it needs.
        *(("-cpu", model) if accelerator is Accelerator.TCG and model != "max" else ()),
        # QEMU looks for its firmware beside its own program, by way of /proc, which its sandbox has not.
        "-L", "/usr/share/qemu",
        *accelerator.options,
        "-kernel", "/image/vmlinuz", "-initrd", "/image/initramfs.cpio",
    ]  # fmt: skip


def virtme_ng(boot: Boot, accelerator: Accelerator, name: str) -> list[str]:
    """The virtme-ng command, as the outer sandbox runs it.

    Raises:
        Bug: an option that a shell would read as something else.
    """
    machine = boot.spec.topology
    options = qemu_options(boot, accelerator)
    words = kernel_options(accelerator)
    for word in (*options, *words, name):
        if not _PLAIN.fullmatch(word):
            raise Bug(f"`{word}` can't go through virtme-ng's shell")
    return [
        sys.executable, "-P", "-m", "virtme_ng.run",
        "--run", KERNEL, "--skip-modules",
        "--name", name,
        "--cpus", str(machine.cpus),
        "--memory", f"{machine.memory_mb}M",
        # virtme-ng would name `kvm:tcg`, a list to fall back along; the accelerator is among our own options.
        "--disable-kvm", "--disable-microvm",
        # The root is the initramfs: no virtiofsd, and the 9p export is dropped by the wrapper.
        "--force-9p", "--no-virtme-ng-init",
        "--disable-monitor",
        *(f"--append={word}" for word in words),
        "--qemu", f"{ROOM}/bin/qemu",
        f"--qemu-opts={' '.join(options)}",
    ]  # fmt: skip


def inner(boot: Boot, accelerator: Accelerator) -> list[str]:
    """QEMU's sandbox as a command to which QEMU's options are added."""
    devices = (str(KVM_DEVICE),) if accelerator is Accelerator.KVM else ()
    moved = dataclasses.replace(boot, directory=Path(DIRECTORY), files=Path(FILES))
    command = qemu.sandbox(moved, *devices).command(["qemu-system-x86_64"])
    # In a sandbox that root started, bubblewrap covers parts of /proc, and the kernel then refuses a second /proc
    # inside (mount_too_revealing() in fs/namespace.c). QEMU can do without.
    place = command.index("--proc")
    return [*command[:place], *command[place + 2 :]]


def outer(boot: Boot, accelerator: Accelerator) -> Sandbox:
    """The sandbox around virtme-ng: everything of the host can be read, nothing but the run's directory written."""
    bwrap = shutil.which("bwrap")
    places = f"{ROOM}/bin:{Path(bwrap).parent}" if bwrap else f"{ROOM}/bin"
    hidden = (boot.image.path, Path(sys.prefix), packages(), Path(wrapper.__file__))
    return Sandbox(
        root=Path("/"),
        read_only=(
            Bind(boot.directory / "vng", ROOM),
            Bind(boot.image.kernel, KERNEL),
            Bind(boot.files, FILES),
            *(Bind(path, str(path.absolute())) for path in hidden if path.absolute().is_relative_to("/run")),
        ),
        writable=(Bind(boot.directory, DIRECTORY),),
        devices=(str(KVM_DEVICE),) if accelerator is Accelerator.KVM else (),
        tmpfs=("/run",),
        env=(
            ("PATH", f"{places}:{dict(ENVIRONMENT)['PATH']}"),
            ("HOME", f"{ROOM}/home"),
            ("LOGNAME", "root"),  # virtme-ng wants to know who asks; nobody in the guest does
            ("TMPDIR", "/run"),
            ("PYTHONPATH", str(packages())),
            ("PYTHONDONTWRITEBYTECODE", "1"),
        ),
    )


def furnish(boot: Boot, accelerator: Accelerator) -> None:
    """Lay out what virtme-ng finds before everything else: programs of ours, and no configuration of the user's."""
    room = boot.directory / "vng"
    python = shlex.quote(sys.executable)
    config = {"version": boot.image.manifest.qemu.version, "sandbox": inner(boot, accelerator)}
    (room / "bin").mkdir(parents=True)
    settings = room / "home" / ".config" / "virtme-ng"
    settings.mkdir(parents=True)
    (settings / "virtme-ng.conf").write_text("{}\n", encoding="ascii")
    (room / "qemu.json").write_text(json.dumps(config), encoding="utf-8")
    release = shlex.quote(boot.image.manifest.kernel.release)
    shims = {
        "qemu": f'exec {python} -I {shlex.quote(wrapper.__file__)} {ROOM}/qemu.json "$@"',
        # virtme-ng looks for its launcher on PATH, where another version may be.
        "virtme-run": f'exec {python} -P -m virtme.commands.run "$@"',
        # It asks file(1) for the kernel's version, which a small host doesn't have; we know the answer.
        "file": f"echo kernel: Linux kernel, version {release}, bzImage",
    }
    for name, line in shims.items():
        script = room / "bin" / name
        script.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
        script.chmod(0o755)


def survivors(name: str) -> list[int]:
    """Processes that have `name`, which is unique, on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if name.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def command(boot: Boot, accelerator: Accelerator = Accelerator.TCG, name: str = "testbed") -> list[str]:
    """The whole command: virtme-ng in its sandbox.

    Raises:
        HostError: virtme-ng isn't installed.
    """
    return outer(boot, accelerator).command(virtme_ng(boot, accelerator, name))


class LiveGuest:
    """One guest in real time.

    Attributes:
        name: unique; everything that is started for the guest has it on its command line.
    """

    def __init__(self, boot: Boot, accelerator: Accelerator | None = None) -> None:
        """Make a guest for `accelerator`, by default the one that the probe of this machine found."""
        self._accelerator = accelerator or probed(boot.image)
        self._boot = boot
        self._process = qemu.Process(boot, self._accelerator, launched=True)
        self.name = f"testbed-{os.getpid()}-{boot.spec.name}-{secrets.token_hex(4)}"

    def boot(self) -> None:
        """Start virtme-ng, which starts QEMU.

        Raises:
            HostError: no virtme-ng, no room for the evidence, or nothing can be started.
        """
        argv = command(self._boot, self._accelerator, self.name)
        self._process.prepare()
        furnish(self._boot, self._accelerator)
        self._process.start(argv)

    def run(self) -> GuestOutcome:
        """Wait for the guest's end. What virtme-ng returns is not asked: it is 255 for success and panic alike."""
        return self._process.wait()

    def diagnose(self) -> str:
        """The last words of QEMU or virtme-ng."""
        return self._process.diagnose()

    def close(self) -> None:
        """End everything.

        Raises:
            HostError: a process of the guest can't be killed.
        """
        self._process.close()
        shutil.rmtree(self._boot.directory / "vng", ignore_errors=True)
        deadline = time.monotonic() + GONE_S
        while left := survivors(self.name):
            for number in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(number, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise HostError(
                    f"processes of a guest can't be killed: {', '.join(map(str, left))}",
                    hint="they wait in the kernel, most likely for /dev/kvm; look at `dmesg`",
                )
            time.sleep(0.05)
