# SPDX-License-Identifier: Apache-2.0
"""The cache: whole or not there, one builder at a time, nothing left behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from testbed.errors import HostError
from testbed.image import cache as cache_module
from testbed.image.cache import Cache, cache_root, disk_errors, mounts_below, remove_tree, write_atomically


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache.open(tmp_path / "cache")


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTBED_CACHE", "/a/b")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert cache_root() == Path("/a/b")
    monkeypatch.delenv("TESTBED_CACHE")
    assert cache_root() == Path("/c/testbed")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/d")
    assert cache_root() == Path("/d/.cache/testbed")


def test_a_published_directory_is_whole_and_its_workspace_is_gone(cache: Cache) -> None:
    with cache.workspace() as work:
        (work / "x").mkdir()
        (work / "x" / "file").write_text("content")
        cache.publish(work / "x", cache.images / "id")
    assert (cache.images / "id" / "file").read_text() == "content"
    assert list(cache.tmp.iterdir()) == []


def test_of_two_equal_directories_the_first_stays(cache: Cache) -> None:
    for text in ("first", "second"):
        with cache.workspace() as work:
            (work / "x").mkdir()
            (work / "x" / "file").write_text(text)
            cache.publish(work / "x", cache.images / "id")
    assert (cache.images / "id" / "file").read_text() == "first"


def test_a_failed_build_leaves_nothing(cache: Cache) -> None:
    with pytest.raises(ZeroDivisionError), cache.workspace() as work:
        (work / "half").mkdir()
        raise ZeroDivisionError
    assert list(cache.tmp.iterdir()) == []
    assert list(cache.images.iterdir()) == []


def test_a_key_without_its_image_is_no_key(cache: Cache) -> None:
    cache.write_key("key", "id")
    assert cache.read_key("key") is None
    (cache.images / "id").mkdir()
    (cache.images / "id" / "manifest.json").touch()
    assert cache.read_key("key") == "id"
    assert cache.read_key("other") is None


def test_a_second_builder_waits_and_is_told(cache: Cache) -> None:
    order: list[str] = []
    waits = threading.Event()

    def second() -> None:
        with cache.lock("x", waits.set):
            order.append("second")

    thread = threading.Thread(target=second)
    with cache.lock("x"):
        thread.start()
        assert waits.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


_KILLED = """
import sys, time
from pathlib import Path
from testbed.image.cache import Cache
cache = Cache.open(Path(sys.argv[1]))
with cache.lock("build"), cache.workspace() as work:
    (work / "half").mkdir()
    print(work, flush=True)
    time.sleep(60)
"""


def test_a_killed_builder_leaves_no_lock_and_the_next_one_cleans_up(cache: Cache) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(cache.root)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    work = Path(process.stdout.readline().strip())
    assert (work / "half").is_dir()
    assert cache.clean() == []  # its owner lives
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    started = time.monotonic()
    with cache.lock("build"):
        assert cache.clean() == [work]
    assert time.monotonic() - started < 5
    assert list(cache.tmp.iterdir()) == []


def test_a_full_disk_is_the_owners_business(tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught, disk_errors("the image", tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device", "x")
    assert caught.value.message == "the disk is full: could not write the image"
    assert "TESTBED_CACHE" in caught.value.hint


def test_a_cache_that_can_not_be_written_is_the_owners_business(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError) as caught:
        Cache.open(tmp_path / "file" / "cache")
    assert caught.value.message.startswith("can't write the image cache: Not a directory")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache_is_the_owners_business(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(HostError, match="can't write the image cache: Permission denied"):
        Cache.open(tmp_path / "cache")


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk_errors("x", tmp_path):
        (tmp_path / "missing").read_bytes()


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"one")
    write_atomically(tmp_path / "file", b"two")
    assert (tmp_path / "file").read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_trees_without_write_permission_can_be_removed(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").touch()
    (tmp_path / "a" / "b").chmod(0o500)
    remove_tree(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    remove_tree(tmp_path / "a")


def test_mounts_below_a_path_are_found_with_odd_names_too(tmp_path: Path) -> None:
    info = tmp_path / "mountinfo"
    info.write_text(
        "1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / /a/b\\040c/dev/shm rw - tmpfs x rw\n3 1 0:3 / /a/bc rw - tmpfs x rw\n"
    )
    assert mounts_below(Path("/a/b c"), info) == ["/a/b c/dev/shm"]
    assert mounts_below(Path("/a/b"), info) == []
    assert mounts_below(Path("/a/bc"), info) == ["/a/bc"]


def test_a_tree_with_something_mounted_in_it_is_never_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "dev" / "shm").mkdir(parents=True)
    (tmp_path / "a" / "dev" / "shm" / "of the machine").touch()
    monkeypatch.setattr(cache_module, "mounts_below", lambda path: [str(path / "dev" / "shm")])
    with pytest.raises(HostError) as caught:
        remove_tree(tmp_path / "a")
    assert "is not removed, because" in caught.value.message
    assert caught.value.hint.startswith("umount ")
    assert (tmp_path / "a" / "dev" / "shm" / "of the machine").exists()
