# SPDX-License-Identifier: Apache-2.0
"""Trees: hostile archives stay inside, and a tree's hash depends on what matters only."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.errors import UsageError
from testbed.image.cpio import write_archive, write_cpio
from testbed.image.tree import (
    Entry,
    Extractor,
    escapes,
    extract_tar,
    inside,
    link_tree,
    listing,
    parse_listing,
    scan,
    write_tar,
)


def _tar(build: Callable[[tarfile.TarFile], None]) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        build(archive)
    stream.seek(0)
    return stream


def _member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = kind, target, mode
    return member


def _file(archive: tarfile.TarFile, name: str, data: bytes = b"data", mode: int = 0o644) -> None:
    member = _member(name, mode=mode)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _extract(
    stream: io.BytesIO, root: Path, *, max_bytes: int = 10000, entries: int = 100, contain: bool = False
) -> None:
    root.mkdir(exist_ok=True)
    extract_tar(stream, Extractor(root, max_bytes=max_bytes, max_entries=entries, contain_links=contain))


def _outside(archive: tarfile.TarFile) -> None:
    _file(archive, "../outside")


def _absolute(archive: tarfile.TarFile) -> None:
    _file(archive, "/tmp/outside")


def _hidden(archive: tarfile.TarFile) -> None:
    _file(archive, "a/../../outside")


def _link_out(archive: tarfile.TarFile) -> None:
    archive.addfile(_member("link", tarfile.SYMTYPE, "../outside"))


def _link_absolute(archive: tarfile.TarFile) -> None:
    archive.addfile(_member("link", tarfile.SYMTYPE, "/etc/passwd"))


def _through_link(archive: tarfile.TarFile) -> None:
    archive.addfile(_member("real", tarfile.DIRTYPE))
    archive.addfile(_member("link", tarfile.SYMTYPE, "real"))
    _file(archive, "link/file")


def _hard_link_out(archive: tarfile.TarFile) -> None:
    archive.addfile(_member("link", tarfile.LNKTYPE, "../outside"))


def _hard_link_to_link(archive: tarfile.TarFile) -> None:
    archive.addfile(_member("link", tarfile.SYMTYPE, "file"))
    archive.addfile(_member("second", tarfile.LNKTYPE, "link"))


def _file_over_directory(archive: tarfile.TarFile) -> None:
    archive.addfile(_member("a/b", tarfile.DIRTYPE))
    _file(archive, "a")


@pytest.mark.parametrize(
    "build",
    [
        _outside,
        _absolute,
        _hidden,
        _link_out,
        _link_absolute,
        _through_link,
        _hard_link_out,
        _hard_link_to_link,
        _file_over_directory,
    ],
)
def test_a_hostile_archive_is_refused_and_writes_nothing_outside(
    tmp_path: Path, build: Callable[[tarfile.TarFile], None]
) -> None:
    with pytest.raises(UsageError):
        _extract(_tar(build), tmp_path / "root")
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "root" / "real" / "file").exists()


def test_an_archive_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="larger than an image"):
        _extract(_tar(lambda archive: _file(archive, "a", b"x" * 20000)), tmp_path / "root")


def test_an_archive_with_too_many_entries_is_refused(tmp_path: Path) -> None:
    def many(archive: tarfile.TarFile) -> None:
        for number in range(20):
            _file(archive, str(number))

    with pytest.raises(UsageError, match="more entries"):
        _extract(_tar(many), tmp_path / "root", entries=10)


def test_devices_and_fifos_are_left_out_and_modes_are_plain(tmp_path: Path) -> None:
    def build(archive: tarfile.TarFile) -> None:
        archive.addfile(_member("dev/null", tarfile.CHRTYPE))
        archive.addfile(_member("fifo", tarfile.FIFOTYPE))
        _file(archive, "bin/su", mode=0o4755)
        _file(archive, "secret", mode=0o600)
        archive.addfile(_member("second", tarfile.LNKTYPE, "bin/su"))

    root = tmp_path / "root"
    _extract(_tar(build), root)
    assert sorted(path.name for path in root.rglob("*")) == ["bin", "second", "secret", "su"]
    assert (root / "bin/su").stat().st_mode & 0o7777 == 0o755
    assert (root / "secret").stat().st_mode & 0o7777 == 0o644


def test_absolute_links_of_a_debian_root_become_relative(tmp_path: Path) -> None:
    def build(archive: tarfile.TarFile) -> None:
        _file(archive, "usr/bin/gcc")
        archive.addfile(_member("usr/bin/cc", tarfile.SYMTYPE, "/etc/alternatives/cc"))
        archive.addfile(_member("etc/alternatives/cc", tarfile.SYMTYPE, "/usr/bin/gcc"))

    root = tmp_path / "root"
    _extract(_tar(build), root, contain=True)
    assert os.readlink(root / "usr/bin/cc") == "../../etc/alternatives/cc"
    assert (root / "usr/bin/cc").read_bytes() == b"data"


@given(st.lists(st.sampled_from(["a", "b", "..", "."]), min_size=1, max_size=8), st.booleans(), st.integers(0, 3))
def test_a_contained_link_never_escapes(parts: list[str], absolute: bool, depth: int) -> None:
    path = "/".join(["d"] * depth + ["link"])
    assert not escapes(path, inside(path, ("/" if absolute else "") + "/".join(parts)))


_names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..")
)


@given(
    st.lists(
        st.builds(Entry, path=_names, kind=st.sampled_from("dfxl"), value=_names, size=st.integers(0, 9)), max_size=5
    )
)
def test_a_listing_can_be_read_back(entries: list[Entry]) -> None:
    text = listing(entries)
    assert text.count(b"\n") == len(entries)
    assert parse_listing(text.decode("ascii")) == entries


@given(st.text(max_size=60))
def test_reading_a_listing_never_fails_otherwise(text: str) -> None:
    with contextlib.suppress(UsageError):
        parse_listing(text)


def _tree(root: Path) -> Path:
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/program").write_bytes(b"program")
    (root / "usr/bin/program").chmod(0o755)
    (root / "odd name \n").write_bytes(b"odd")
    (root / "bin").symlink_to("usr/bin")
    return root


def test_a_trees_listing_ignores_times_and_owners_but_not_contents(tmp_path: Path) -> None:
    first, second = _tree(tmp_path / "a"), _tree(tmp_path / "b")
    os.utime(second / "odd name \n", (0, 0))
    (second / "odd name \n").chmod(0o600)
    assert listing(scan(first)) == listing(scan(second))
    (second / "odd name \n").chmod(0o755)
    assert listing(scan(first)) != listing(scan(second))


def test_a_copied_tree_is_the_same_tree(tmp_path: Path) -> None:
    first = _tree(tmp_path / "a")
    link_tree(first, tmp_path / "b")
    assert scan(first) == scan(tmp_path / "b")


def test_an_archive_of_a_tree_is_the_same_bytes_and_comes_back_the_same(tmp_path: Path) -> None:
    first, second = _tree(tmp_path / "a"), _tree(tmp_path / "b")
    os.utime(second / "usr/bin/program", (0, 0))
    archives = []
    for root in (first, second):
        stream = io.BytesIO()
        write_tar(stream, [(entry.path, root / entry.path, entry) for entry in scan(root)])
        archives.append(stream.getvalue())
    assert archives[0] == archives[1]
    _extract(io.BytesIO(archives[0]), tmp_path / "c")
    assert scan(tmp_path / "c") == scan(first)


def test_the_guests_archive_is_the_same_bytes_and_cpio_can_read_it(tmp_path: Path) -> None:
    first, second = _tree(tmp_path / "a"), _tree(tmp_path / "b")
    archives = []
    for root in (first, second):
        stream = io.BytesIO()
        write_cpio(stream, root, scan(root))
        archives.append(stream.getvalue())
    assert archives[0] == archives[1]
    assert len(archives[0]) % 512 == 0
    names = _read_newc(archives[0])
    assert names["usr/bin/program"] == (0o100755, b"program")
    assert names["bin"] == (0o120777, b"usr/bin")
    assert names["dev/console"][0] == 0o020600


def test_an_archive_of_chosen_files_has_their_directories_first(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "a")
    digest = write_archive(tmp_path / "x.cpio", {"lib/deep/x": tree / "odd name \n", "bin/y": tree / "usr/bin/program"})
    data = (tmp_path / "x.cpio").read_bytes()
    assert list(_read_newc(data)) == ["bin", "bin/y", "lib", "lib/deep", "lib/deep/x"]
    assert (
        digest
        == subprocess.run(
            ["sha256sum", tmp_path / "x.cpio"], capture_output=True, text=True, check=True
        ).stdout.split()[0]
    )


def _read_newc(data: bytes) -> dict[str, tuple[int, bytes]]:
    found: dict[str, tuple[int, bytes]] = {}
    position = 0
    while True:
        assert data[position : position + 6] == b"070701"
        fields = [int(data[position + 6 + 8 * index : position + 14 + 8 * index], 16) for index in range(13)]
        name = data[position + 110 : position + 110 + fields[11] - 1].decode()
        position = (position + 110 + fields[11] + 3) & ~3
        if name == "TRAILER!!!":
            return found
        found[name] = (fields[1], data[position : position + fields[6]])
        position = (position + fields[6] + 3) & ~3
