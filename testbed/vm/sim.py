# SPDX-License-Identifier: Apache-2.0
"""The deterministic back end: instruction-counted, parallel virtual time (docs/parallel_time.md)."""

from __future__ import annotations

from testbed.case import GuestOutcome
from testbed.vm import qemu
from testbed.vm.guest import Boot

ACCELERATOR = "tcg-parallel-icount"
# Every guest begins at the same moment, so that no run depends on the date.
EPOCH = "2026-01-01T00:00:00"


def command(boot: Boot) -> list[str]:
    """The sandboxed QEMU command: everything in it is a function of the spec and the image."""
    spec = boot.spec
    # Clocks of two vCPUs differ by up to the quantum, which the kernel's own test takes for a broken TSC.
    options = [*qemu.kernel_options(boot), "tsc=reliable"]
    argv = [
        "qemu-system-x86_64", *qemu.machine(boot),
        "-machine", "pc", "-cpu", "max", "-accel", "tcg,thread=single",
        "-icount", f"shift={spec.icount_shift},sleep=off,parallel={spec.parallel_quantum}",
        "-rtc", f"base={EPOCH},clock=vm",
        "-seed", str(spec.seed & 0xFFFFFFFF),
        "-kernel", "/image/vmlinuz", "-initrd", "/image/initramfs.cpio",
        "-append", " ".join(options),
    ]  # fmt: skip
    return qemu.sandbox(boot).command(argv)


class SimGuest:
    """One guest under virtual time."""

    def __init__(self, boot: Boot) -> None:
        self._process = qemu.Process(boot, ACCELERATOR)
        self._boot = boot

    def boot(self) -> None:
        """Start QEMU."""
        self._process.prepare()
        self._process.start(command(self._boot))

    def run(self) -> GuestOutcome:
        """Wait for the guest's end."""
        return self._process.wait()

    def diagnose(self) -> str:
        """QEMU's last words."""
        return self._process.diagnose()

    def close(self) -> None:
        """End QEMU."""
        self._process.close()
