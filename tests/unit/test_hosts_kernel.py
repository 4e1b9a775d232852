# SPDX-License-Identifier: Apache-2.0
"""A host's kernel is fetched whole, or not at all, whatever the host says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from testbed.errors import HostError, UsageError
from testbed.hosts import kernel
from testbed.hosts.reach import Answer, Line

RELEASE = "6.18.15-cloud"
MODULES = f"/lib/modules/{RELEASE}"
DEPENDENCIES = b"""\
kernel/drivers/watchdog/i6300esb.ko.xz: kernel/drivers/watchdog/watchdog.ko.xz
kernel/drivers/watchdog/watchdog.ko.xz:
kernel/fs/overlayfs/overlay.ko.xz:
kernel/fs/other.ko.xz:
"""
FILES = {
    f"/boot/vmlinuz-{RELEASE}": b"kernel" * 3_000_000,  # three parts
    f"/boot/config-{RELEASE}": b"CONFIG_SCHED_CLASS_EXT=y\n",
    f"{MODULES}/modules.builtin": b"kernel/qemu_fw_cfg.ko\n",
    f"{MODULES}/modules.dep": DEPENDENCIES,
    f"{MODULES}/kernel/drivers/watchdog/i6300esb.ko.xz": b"esb",
    f"{MODULES}/kernel/drivers/watchdog/watchdog.ko.xz": b"dog",
    f"{MODULES}/kernel/fs/overlayfs/overlay.ko.xz": b"overlay",
    f"{MODULES}/kernel/fs/other.ko.xz": b"nobody asked for it",
}
WANTED = ("i6300esb", "qemu_fw_cfg", "overlay")


class Host:
    """A host with files; what is in `secret` root alone may read."""

    name = "web1"

    def __init__(
        self, files: Mapping[str, bytes] = FILES, *, release: str = RELEASE, secret: str = "", sudo: bool = True
    ) -> None:
        self.files, self.release, self.secret, self.sudo = files, release, secret, sudo

    def run(self, words: Sequence[str], wall_s: float = 0) -> Answer:
        match list(words):
            case ["uname", "-r"]:
                return Answer(0, f"{self.release}\n".encode(), "")
            case ["test", "-e", path]:
                return Answer(int(path not in self.files), b"", "")
            case ["sudo", "-n", *rest]:
                return self._dd(rest, root=True) if self.sudo else Answer(1, b"", "sudo: a password is required")
            case rest:
                return self._dd(rest, root=False)

    def _dd(self, words: Sequence[str], *, root: bool) -> Answer:
        name, *options = words
        told = dict(option.split("=", 1) for option in options)
        assert (name, told["count"], told["status"]) == ("dd", "1", "none")
        if told["if"] == self.secret and not root:
            return Answer(1, b"", "dd: failed to open: Permission denied")
        size = int(told["bs"])
        begin = size * int(told["skip"])
        return Answer(0, self.files[told["if"]][begin : begin + size], "")

    def talk(self, words: Sequence[str]) -> Line:
        raise AssertionError(words)

    def upload(self, files: Mapping[str, bytes | Path]) -> str:
        raise AssertionError(files)

    def discard(self, place: str, files: Mapping[str, bytes | Path]) -> None:
        raise AssertionError(place)

    def close(self) -> None:
        pass


def contents(place: Path) -> dict[str, bytes]:
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.mark.parametrize("secret", ["", f"/boot/vmlinuz-{RELEASE}"])
def test_kernel_configuration_and_the_wanted_modules_come_with_what_they_need(tmp_path: Path, secret: str) -> None:
    out = tmp_path / "kernel"
    found = kernel.fetch(Host(secret=secret), WANTED, out)
    here = contents(out)
    assert here == {
        "vmlinuz": FILES[f"/boot/vmlinuz-{RELEASE}"],
        f"lib/modules/{RELEASE}/config": FILES[f"/boot/config-{RELEASE}"],
        **{path.lstrip("/"): data for path, data in FILES.items() if path.startswith("/lib") and "other" not in path},
    }
    assert (found.release, sorted(found.files)) == (RELEASE, sorted(here))
    assert found.size == sum(map(len, here.values()))
    assert [path.name for path in tmp_path.iterdir()] == ["kernel"], "nothing else is left"


def test_a_kernel_without_modules_comes_alone(tmp_path: Path) -> None:
    found = kernel.fetch(Host({f"{MODULES}/vmlinuz": b"k"}), WANTED, tmp_path / "out")
    assert found.files == ("vmlinuz",)


def without(*names: str) -> dict[str, bytes]:
    return {path: data for path, data in FILES.items() if not path.endswith(names)}


@pytest.mark.parametrize(
    ("host", "message"),
    [
        (Host(release="../../etc"), "does not say which kernel"),
        (Host(release="a..b"), "does not say which kernel"),
        (Host(release="x; reboot"), "does not say which kernel"),
        (Host(without(f"vmlinuz-{RELEASE}")), "has no `/boot/vmlinuz"),
        (Host(secret=f"/boot/vmlinuz-{RELEASE}", sudo=False), "does not let us read `/boot/vmlinuz"),
        (Host(without("i6300esb.ko.xz")), "has no `/lib/modules/"),
        (Host({**FILES, f"{MODULES}/modules.dep": b"kernel/../../../etc/overlay.ko:\n"}), "`modules.dep` is none"),
        (Host({**FILES, f"{MODULES}/modules.dep": b"overlay.ko: /etc/shadow\n"}), "`modules.dep` is none"),
        (Host({**FILES, f"{MODULES}/modules.builtin": b"x" * (65 << 20)}), "longer than 64 MiB"),
    ],
)
def test_what_can_t_be_had_is_told_and_leaves_nothing(tmp_path: Path, host: Host, message: str) -> None:
    with pytest.raises(HostError, match=message):
        kernel.fetch(host, WANTED, tmp_path / "kernel")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(UsageError, match="is not an empty directory"):
        kernel.fetch(Host(), WANTED, tmp_path)
