# SPDX-License-Identifier: Apache-2.0
"""The kernel of a host, fetched so that a scheduler can be judged on it in a guest (`testbed run --kernel DIR`).

Only what a guest needs comes: the kernel, its configuration, the modules that the guest's recipe names and what they
need. What the host sends is a stranger's: sizes are bounded, names are checked, and `--kernel` looks at every byte.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.case import need_empty
from testbed.errors import HostError
from testbed.hosts.reach import Reached

PART = 8 << 20
MAX_KERNEL = 256 << 20
MAX_OTHER = 64 << 20
MAX_MODULES = 64
_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}")
# A path as `modules.dep` has it, below the release's directory.
_MODULE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._/-]{0,250}\.ko(?:\.(?:xz|gz|zst))?")


@dataclass(frozen=True)
class Fetched:
    """What came.

    Attributes:
        release: of the kernel.
        files: paths below the directory.
        size: of all files, in bytes.
    """

    release: str
    files: tuple[str, ...]
    size: int


def fetch(host: Reached, wanted: Sequence[str], out: Path) -> Fetched:
    """Copy the running kernel of a host into a directory that `--kernel` takes.

    Args:
        host: whose kernel.
        wanted: names of modules that a guest loads; those that are built in, or that the kernel lacks, are left out.
        out: the directory; it must not exist, or be empty.

    Raises:
        UsageError: there is something in `out`.
        HostError: the host has no such file where distributions have it, or does not let us read it.
    """
    need_empty(out)
    release = host.run(["uname", "-r"]).out.decode("ascii", "replace").strip()
    if _RELEASE.fullmatch(release) is None or ".." in release:
        raise HostError(f"`{host.name}` does not say which kernel it runs")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        reader = _Reader(host, work)
        modules = f"lib/modules/{release}"
        reader.need("vmlinuz", [f"/boot/vmlinuz-{release}", f"/{modules}/vmlinuz"], MAX_KERNEL)
        reader.may(f"{modules}/modules.builtin", f"/{modules}/modules.builtin")
        reader.may(f"{modules}/config", f"/boot/config-{release}", f"/{modules}/config")
        dependencies = reader.may(f"{modules}/modules.dep", f"/{modules}/modules.dep")
        for name in _needed(dependencies or b"", wanted):
            reader.need(f"{modules}/{name}", [f"/{modules}/{name}"], MAX_OTHER)
        if out.exists():
            out.rmdir()
        work.chmod(0o755)
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Fetched(release, tuple(reader.files), reader.size)


def _needed(dependencies: bytes, wanted: Sequence[str]) -> list[str]:
    """Paths of the wanted modules and of what they need, as `modules.dep` lists them (modules.dep(5))."""
    names = {name.replace("-", "_") for name in wanted}
    found: list[str] = []
    for line in dependencies.decode("ascii", "replace").splitlines():
        module, _, needs = line.partition(":")
        if module.rpartition("/")[2].split(".ko")[0].replace("-", "_") in names:
            found += [module, *needs.split()]
    found = list(dict.fromkeys(found))
    if len(found) > MAX_MODULES or any(_MODULE.fullmatch(name) is None or ".." in name for name in found):
        raise HostError("the host's `modules.dep` is none: it names what can't be a module", hint="depmod on the host")
    return found


class _Reader:
    """Copies files of the host into a directory."""

    def __init__(self, host: Reached, directory: Path) -> None:
        self._host = host
        self._directory = directory
        self.files: list[str] = []
        self.size = 0

    def need(self, name: str, places: Sequence[str], limit: int) -> None:
        """Copy the first of some files that is there.

        Raises:
            HostError: none is, or it can't be read.
        """
        for place in places:
            data = self._read(place, limit)
            if data is not None:
                self._write(name, data)
                return
        raise HostError(
            f"`{self._host.name}` has no {' and no '.join(f'`{place}`' for place in places)}",
            hint="copy its kernel and /lib/modules/RELEASE from where they are, and name their directory by --kernel",
        )

    def may(self, name: str, *places: str) -> bytes | None:
        """Copy the first of some files that is there; None if none is."""
        for place in places:
            data = self._read(place, MAX_OTHER)
            if data is not None:
                self._write(name, data)
                return data
        return None

    def _write(self, name: str, data: bytes) -> None:
        path = self._directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.files.append(name)
        self.size += len(data)

    def _read(self, place: str, limit: int) -> bytes | None:
        """A file in parts, as ourselves or, where only root may, by `sudo -n`; None if it is not there."""
        if self._host.run(["test", "-e", place]).code:
            return None
        data = b""
        while True:
            words = ["dd", f"if={place}", f"bs={PART}", f"skip={len(data) // PART}", "count=1", "status=none"]
            answer = self._host.run(words)
            if answer.code:
                answer = self._host.run(["sudo", "-n", *words])
            if answer.code:
                raise HostError(
                    f"`{self._host.name}` does not let us read `{place}`: {answer.complaint[:200]}",
                    hint="distributions let root alone read kernels: log in as root, or as one who may `sudo -n`",
                )
            data += answer.out
            if len(data) > limit:
                raise HostError(f"`{place}` of `{self._host.name}` is longer than {limit >> 20} MiB")
            if len(answer.out) < PART:
                return data
