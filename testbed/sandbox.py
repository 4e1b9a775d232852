# SPDX-License-Identifier: Apache-2.0
"""The one sandbox: bubblewrap around everything that touches a candidate or comes from one.

A `Sandbox` is a frozen description. `command()` gives the pasteable command line, `run()` runs it with bounded time
and output. Nothing ever runs outside: where bubblewrap does not work, `probe()` says what to do about it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import IO

from testbed.errors import Bug, HostError

#: Empty directories that the image's roots have, to mount something on: a root is read-only, so none can be made later.
MOUNT_POINTS = ("build", "image", "job", "out", "src", "work")

#: What every program in a sandbox finds in its environment, and nothing else.
ENVIRONMENT = (
    ("HOME", "/tmp"),
    ("LANG", "C.UTF-8"),
    ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
    ("TZ", "UTC"),
)

APPARMOR_PROFILE = """\
abi <abi/4.0>,
include <tunables/global>
profile bwrap /usr/bin/bwrap flags=(unconfined) {
  userns,
  include if exists <local/bwrap>
}
"""

_READ_SIZE = 1 << 16
_TERMINATE_GRACE_S = 5.0


@dataclass(frozen=True)
class Limits:
    """How much a sandboxed program may use. None is no limit.

    `processes` counts those of the sandbox's user; the kernel does not apply it to a sandbox that root started.
    """

    wall_s: float | None = None
    output_bytes: int = 1 << 20
    memory_bytes: int | None = None
    cpu_s: int | None = None
    file_bytes: int | None = None
    processes: int | None = None
    tmp_bytes: int = 1 << 30

    def prlimit(self) -> list[str]:
        """Arguments of prlimit(1), which runs inside the sandbox and so bounds only what is in there."""
        options = {
            "as": self.memory_bytes,
            "cpu": self.cpu_s,
            "fsize": self.file_bytes,
            "nproc": self.processes,
        }
        return [f"--{name}={value}" for name, value in options.items() if value is not None]


@dataclass(frozen=True)
class Bind:
    """A file or directory of the host at a place of the sandbox."""

    source: Path
    target: str


@dataclass(frozen=True)
class Sandbox:
    """A sandbox that is not running yet.

    Attributes:
        root: directory that becomes `/`, read-only.
        read_only: what else can be read. Targets must exist in the root (`MOUNT_POINTS`) or lie below a tmpfs.
        writable: what can be written.
        devices: device nodes of the host, e.g. `/dev/kvm`.
        tmpfs: empty directories in memory.
        env: added to `ENVIRONMENT`.
        cwd: working directory.
        network: keep the host's network; for set-up that downloads, never for a candidate.
    """

    root: Path
    read_only: tuple[Bind, ...] = ()
    writable: tuple[Bind, ...] = ()
    devices: tuple[str, ...] = ()
    tmpfs: tuple[str, ...] = ("/tmp",)
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = "/"
    network: bool = False
    limits: Limits = field(default_factory=Limits)

    def with_limits(self, **changes: float | int | None) -> Sandbox:
        """The same sandbox with other limits."""
        return replace(self, limits=replace(self.limits, **changes))  # type: ignore[arg-type]  # replace() can't be told the fields

    def command(self, argv: Sequence[str]) -> list[str]:
        """The whole command line; `shlex.join` of it can be pasted into a shell.

        Raises:
            Bug: no program, or a mount whose target can't exist.
        """
        if not argv:
            raise Bug("a sandbox was asked to run nothing")
        self._check_targets()
        args = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]
        if self.network:
            args.append("--share-net")
        args += [
            "--hostname",
            "testbed",
            "--ro-bind",
            str(self.root.absolute()),
            "/",
            "--dev",
            "/dev",
            "--proc",
            "/proc",
        ]
        for directory in self.tmpfs:
            args += ["--size", str(self.limits.tmp_bytes), "--tmpfs", directory]
        for bind in self.read_only:
            args += ["--ro-bind", str(bind.source.absolute()), bind.target]
        for bind in self.writable:
            args += ["--bind", str(bind.source.absolute()), bind.target]
        for device in self.devices:
            args += ["--dev-bind", device, device]
        for name, value in {**dict(ENVIRONMENT), **dict(self.env)}.items():
            args += ["--setenv", name, value]
        args += ["--chdir", self.cwd, "--"]
        limits = self.limits.prlimit()
        if limits:
            args += ["prlimit", *limits, "--"]
        return [*args, *argv]

    def _check_targets(self) -> None:
        """Find mounts that would fail, before bubblewrap says so in its own words."""
        free = [PurePosixPath(directory) for directory in (*self.tmpfs, "/dev")]
        for bind in (*self.read_only, *self.writable):
            target = PurePosixPath(bind.target)
            if not target.is_absolute() or ".." in target.parts:
                raise Bug(f"mount target `{target}` is not an absolute path without `..`")
            if any(target.is_relative_to(directory) for directory in free):
                continue
            if not os.path.lexists(self.root / bind.target.lstrip("/")):
                raise Bug(
                    f"mount target `{target}` does not exist in the sandbox's root",
                    hint=f"use one of {', '.join('/' + name for name in MOUNT_POINTS)} or a place below /tmp",
                )
            free.append(target)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        merge: bool = False,
        on_output: Callable[[bytes], None] | None = None,
        check_host: bool = True,
    ) -> Result:
        """Run a program to its end.

        Args:
            argv: program and arguments, as seen in the sandbox.
            stdin: what it reads from its standard input.
            merge: put stderr among stdout.
            on_output: called with everything that the program writes (both streams), beyond the output limit too.
            check_host: call `probe()` first.

        Raises:
            HostError: bubblewrap is missing or does not work.
        """
        if check_host:
            probe()
        return run_bounded(
            self.command(argv),
            wall_s=self.limits.wall_s,
            output_bytes=self.limits.output_bytes,
            stdin=stdin,
            merge=merge,
            on_output=on_output,
        )


@dataclass(frozen=True)
class Result:
    """How a program ended.

    Attributes:
        returncode: as `subprocess` gives it: negative is a signal.
        stdout, stderr: the beginning, as much as the limit allows.
        lost: bytes of output beyond the limit.
        timed_out: it was killed because its time was over.
    """

    command: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes
    lost: int
    timed_out: bool
    elapsed_s: float

    @property
    def ok(self) -> bool:
        """It ended by itself with 0."""
        return self.returncode == 0 and not self.timed_out

    @property
    def pasteable(self) -> str:
        """The command for a shell."""
        return shlex.join(self.command)

    @property
    def text(self) -> str:
        """Both streams as text, for people."""
        return (self.stdout + self.stderr).decode("utf-8", "replace")


def run_bounded(
    command: Sequence[str],
    *,
    wall_s: float | None,
    output_bytes: int,
    stdin: bytes = b"",
    merge: bool = False,
    on_output: Callable[[bytes], None] | None = None,
    env: dict[str, str] | None = None,
) -> Result:
    """Run a command in a session of its own; when its time is over the whole process group is killed.

    Call it from a thread that lives at least as long as the command: `--die-with-parent` means the thread.
    """
    started = time.monotonic()
    deadline = None if wall_s is None else started + wall_s
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merge else subprocess.PIPE,
        start_new_session=True,
        env=env,
    )
    kept: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
    lost = 0
    timed_out = False
    try:
        with selectors.DefaultSelector() as selector:
            pending = memoryview(stdin)
            for name, stream in (("stdout", process.stdout), ("stderr", process.stderr)):
                if stream is not None:
                    selector.register(stream, selectors.EVENT_READ, name)
            if process.stdin is not None:
                os.set_blocking(process.stdin.fileno(), False)
                selector.register(process.stdin, selectors.EVENT_WRITE, "stdin")
            while selector.get_map():
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    timed_out = True
                    break
                for key, _ in selector.select(remaining):
                    stream_file: IO[bytes] = key.fileobj  # type: ignore[assignment]  # what was registered
                    if key.data == "stdin":
                        try:
                            pending = pending[os.write(stream_file.fileno(), pending[:_READ_SIZE]) :]
                        except BrokenPipeError:
                            pending = pending[:0]
                        if not pending:
                            selector.unregister(stream_file)
                            stream_file.close()
                        continue
                    data = os.read(stream_file.fileno(), _READ_SIZE)
                    if not data:
                        selector.unregister(stream_file)
                        continue
                    if on_output is not None:
                        on_output(data)
                    room = max(0, output_bytes - sum(map(len, kept.values())))
                    kept[key.data] += data[:room]
                    lost += len(data) - len(data[:room])
        if not timed_out:
            try:
                process.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                timed_out = True
    finally:
        kill_group(process)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
    return Result(
        command=tuple(command),
        returncode=process.returncode,
        stdout=bytes(kept["stdout"]),
        stderr=bytes(kept["stderr"]),
        lost=lost,
        timed_out=timed_out,
        elapsed_s=time.monotonic() - started,
    )


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads its own group, with the group, and reap it."""
    # Not reaped yet, so its number, and the group's, still belong to it.
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@functools.cache
def probe() -> None:
    """Find out once whether bubblewrap works here.

    Raises:
        HostError: it does not; the hint is the cure.
    """
    if shutil.which("bwrap") is None:
        raise HostError("bubblewrap (`bwrap`) is not installed", hint="apt-get install bubblewrap")
    # A sandbox like the real ones, with no more of the host than /bin/true needs.
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--hostname", "testbed"]
    command += ["--dev", "/dev", "--proc", "/proc", "--size", "4096", "--tmpfs", "/tmp", "--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/lib", "/lib64"):
        command += ["--ro-bind-try", name, name]
    command += ["--", "/bin/true"]
    result = run_bounded(command, wall_s=20, output_bytes=1 << 14)
    if result.ok:
        return
    said = result.text.strip().splitlines()
    message = said[-1] if said else f"exit code {result.returncode}" + (" after 20 s" if result.timed_out else "")
    raise HostError(f"bubblewrap does not work here: {message}", hint=cure(message))


def cure(message: str, sysctl: Callable[[str], str] | None = None) -> str:
    """What the machine's owner can do about a failing bubblewrap.

    Args:
        message: what bubblewrap said.
        sysctl: reads a value below /proc/sys, empty if there is none.
    """
    read = sysctl or _sysctl
    if "unknown option" in message.lower():
        return "bubblewrap 0.8 or newer is needed: apt-get install bubblewrap (Debian 12, Ubuntu 24.04 or newer)"
    if read("kernel/apparmor_restrict_unprivileged_userns") == "1" and os.geteuid() != 0:
        return (
            "AppArmor forbids user namespaces to programs without a profile (Ubuntu 24.04 and newer). As root write "
            f"/etc/apparmor.d/bwrap:\n\n{APPARMOR_PROFILE}\nand run: apparmor_parser -r /etc/apparmor.d/bwrap"
        )
    if read("kernel/unprivileged_userns_clone") == "0":
        return "as root: sysctl -w kernel.unprivileged_userns_clone=1"
    if read("user/max_user_namespaces") == "0":
        return "as root: sysctl -w user.max_user_namespaces=15000"
    if any(word in message for word in ("proc", "namespace", "Operation not permitted", "Permission denied")):
        return (
            "a container needs the right to make namespaces: docker run --security-opt seccomp=unconfined "
            "--security-opt apparmor=unconfined --security-opt systempaths=unconfined (or --privileged)"
        )
    return "try by hand: bwrap --unshare-all --ro-bind / / --dev /dev --proc /proc -- /bin/true"


def _sysctl(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return ""
