# SPDX-License-Identifier: Apache-2.0
"""The sandbox: what its command says, and that a program in it can't do what it must not."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from pathlib import Path

import pytest

from testbed import sandbox
from testbed.errors import Bug, HostError, TestbedError
from testbed.sandbox import APPARMOR_PROFILE, Bind, Limits, Sandbox, cure, run_bounded


def _works() -> bool:
    try:
        sandbox.probe()
    except HostError:
        return False
    return True


needs_bubblewrap = pytest.mark.skipif(not _works(), reason="bubblewrap does not work here")


@pytest.fixture
def host_root(tmp_path: Path) -> Path:
    """A root that has the host's programs, and an empty directory `/out`."""
    root = tmp_path / "root"
    for name in ("usr", "dev", "proc", "tmp", "out"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    return root


def _host_sandbox(root: Path, **changes: object) -> Sandbox:
    return Sandbox(root=root, read_only=(Bind(Path("/usr"), "/usr"),), **changes)  # type: ignore[arg-type]


def test_command_is_pasteable_and_always_isolates(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    box = Sandbox(root=tmp_path, writable=(Bind(tmp_path, "/out"),), env=(("NAME", "a b"),), cwd="/out")
    command = box.command(["sh", "-c", "echo hello"])
    assert command[:5] == ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]
    assert "--share-net" not in command
    assert command[-4:] == ["--", "sh", "-c", "echo hello"]
    assert shlex.split(shlex.join(command)) == command


def test_limits_apply_inside_of_the_sandbox(tmp_path: Path) -> None:
    limits = Limits(memory_bytes=1 << 20, cpu_s=3, file_bytes=4096, processes=9)
    command = Sandbox(root=tmp_path, limits=limits).command(["true"])
    assert command[command.index("prlimit") :] == [
        "prlimit",
        "--as=1048576",
        "--cpu=3",
        "--fsize=4096",
        "--nproc=9",
        "--",
        "true",
    ]


def test_a_mount_without_a_place_is_a_bug_that_names_the_places(tmp_path: Path) -> None:
    with pytest.raises(Bug) as caught:
        Sandbox(root=tmp_path, read_only=(Bind(tmp_path, "/nowhere"),)).command(["true"])
    assert caught.value.message == "mount target `/nowhere` does not exist in the sandbox's root"
    assert "/src" in caught.value.hint


@pytest.mark.parametrize("target", ["relative", "/out/../etc"])
def test_a_mount_target_is_absolute_and_plain(tmp_path: Path, target: str) -> None:
    with pytest.raises(Bug, match="not an absolute path"):
        Sandbox(root=tmp_path, read_only=(Bind(tmp_path, target),)).command(["true"])


def test_a_mount_below_a_tmpfs_or_another_mount_needs_no_place(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    binds = (Bind(tmp_path, "/tmp/a"), Bind(tmp_path, "/out"), Bind(tmp_path, "/out/deeper"))
    assert "/out/deeper" in Sandbox(root=tmp_path, read_only=binds).command(["true"])


def test_nothing_is_run_when_nothing_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(Bug):
        Sandbox(root=tmp_path).command([])


@needs_bubblewrap
def test_a_program_sees_its_own_world_only(host_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of the host")
    out = tmp_path / "results"
    out.mkdir()
    box = _host_sandbox(host_root, writable=(Bind(out, "/out"),), env=(("GREETING", "hello"),))
    script = "env; ls -d /etc /home /root 2>/dev/null; echo $$; ls /sys 2>/dev/null; echo $GREETING > /out/file"
    result = box.run(["sh", "-c", script])
    assert result.ok, result.text
    assert b"SECRET" not in result.stdout
    assert b"/etc" not in result.stdout
    assert (out / "file").read_text() == "hello\n"


@needs_bubblewrap
def test_the_root_can_not_be_written(host_root: Path) -> None:
    result = _host_sandbox(host_root).run(["sh", "-c", "touch /file; touch /usr/file"])
    assert not result.ok
    assert not (host_root / "file").exists()


@needs_bubblewrap
def test_there_is_no_network(host_root: Path) -> None:
    result = _host_sandbox(host_root).run(["cat", "/proc/net/dev"])
    devices = {line.split(":")[0].strip() for line in result.stdout.decode().splitlines()[2:]}
    assert devices == {"lo"}


@needs_bubblewrap
def test_output_is_bounded_and_the_rest_is_counted(host_root: Path) -> None:
    seen: list[int] = []
    box = _host_sandbox(host_root, limits=Limits(output_bytes=1000))
    result = box.run(["head", "-c", "300000", "/dev/zero"], on_output=lambda data: seen.append(len(data)))
    assert result.ok
    assert len(result.stdout) == 1000
    assert result.lost == 299000
    assert sum(seen) == 300000


@needs_bubblewrap
def test_when_its_time_is_over_everything_in_it_is_gone(host_root: Path) -> None:
    mark = f"7{os.getpid()}.25"
    box = _host_sandbox(host_root, limits=Limits(wall_s=1.0))
    started = time.monotonic()
    result = box.run(["sh", "-c", f"sleep {mark} & setsid sleep {mark} & sleep {mark}"])
    assert result.timed_out and not result.ok
    assert time.monotonic() - started < 10
    for _ in range(50):
        survivors = subprocess.run(["pgrep", "-f", f"sleep {mark}"], capture_output=True, check=False).stdout
        if not survivors:
            break
        time.sleep(0.1)
    assert survivors == b""


@needs_bubblewrap
def test_a_program_that_closes_its_output_still_has_a_time_limit(host_root: Path) -> None:
    box = _host_sandbox(host_root, limits=Limits(wall_s=1.0))
    result = box.run(["sh", "-c", "exec >&- 2>&-; sleep 30"])
    assert result.timed_out


@needs_bubblewrap
def test_memory_and_files_are_bounded(host_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    out.mkdir()
    box = _host_sandbox(host_root, writable=(Bind(out, "/out"),), limits=Limits(file_bytes=1000))
    assert not box.run(["sh", "-c", "head -c 5000 /dev/zero > /out/file"]).ok
    assert (out / "file").stat().st_size == 1000
    box = _host_sandbox(host_root, limits=Limits(memory_bytes=50 << 20))
    assert not box.run(["sh", "-c", "x=$(head -c 90000000 /dev/zero | tr '\\0' x); true"]).ok


@needs_bubblewrap
def test_standard_input_of_any_size_is_read(host_root: Path) -> None:
    result = _host_sandbox(host_root).run(["wc", "-c"], stdin=b"x" * 1_000_000)
    assert result.stdout.strip() == b"1000000"


def test_a_program_that_ignores_its_input_is_no_error() -> None:
    assert run_bounded(["true"], wall_s=10, output_bytes=10, stdin=b"x" * 1_000_000).ok


def test_streams_are_apart_or_merged() -> None:
    script = ["sh", "-c", "echo out; echo err >&2; exit 3"]
    apart = run_bounded(script, wall_s=10, output_bytes=100)
    assert (apart.stdout, apart.stderr, apart.returncode) == (b"out\n", b"err\n", 3)
    assert run_bounded(script, wall_s=10, output_bytes=100, merge=True).stdout == b"out\nerr\n"


def test_missing_bubblewrap_is_an_error_with_its_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    sandbox.probe.cache_clear()
    try:
        with pytest.raises(HostError) as caught:
            Sandbox(root=tmp_path).run(["true"])
    finally:
        sandbox.probe.cache_clear()
    assert caught.value.message == "bubblewrap (`bwrap`) is not installed"
    assert caught.value.hint == "apt-get install bubblewrap"


def test_broken_bubblewrap_is_an_error_and_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    sandbox.probe.cache_clear()
    try:
        with pytest.raises(TestbedError) as caught:
            Sandbox(root=tmp_path).run(["true"])
    finally:
        sandbox.probe.cache_clear()
    assert caught.value.message == "bubblewrap does not work here: bwrap: setting up uid map: Permission denied"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("message", "settings", "words"),
    [
        ("bwrap: Unknown option --size", {}, "apt-get install bubblewrap"),
        (
            "bwrap: setting up uid map: Permission denied",
            {"kernel/apparmor_restrict_unprivileged_userns": "1"},
            APPARMOR_PROFILE,
        ),
        ("bwrap: No permissions to create new namespace", {"kernel/unprivileged_userns_clone": "0"}, "sysctl -w"),
        ("bwrap: Creating new namespace failed", {"user/max_user_namespaces": "0"}, "max_user_namespaces=15000"),
        ("bwrap: Can't mount proc on /newroot/proc: Operation not permitted", {}, "docker run"),
        ("bwrap: something new", {}, "try by hand"),
    ],
)
def test_each_reason_has_its_cure(
    message: str, settings: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert words in cure(message, lambda name: settings.get(name, ""))
