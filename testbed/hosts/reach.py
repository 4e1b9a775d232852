# SPDX-License-Identifier: Apache-2.0
"""How a host is reached: this machine itself, or another one by ssh. Commands are fixed words, never a shell's text.

A host's key must be known beforehand, as for `ssh -o StrictHostKeyChecking=yes`. Keys and agent are the user's own.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from testbed.case import printable
from testbed.errors import HostError, UsageError
from testbed.sandbox import kill_group, run_bounded

LOCAL = "local"
# A host under a bad scheduler may be slow; one that does not answer at all must not hold us for long.
CONNECT_S = 30.0
COMMAND_S = 120.0
MAX_OUTPUT = 16 << 20
MAX_LINE = 1 << 20
MAX_COMPLAINT = 4000
UPLOADS = "/tmp"

TARGET = re.compile(
    r"(?:(?P<user>[A-Za-z_][A-Za-z0-9_.-]*)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9._-]*)(?::(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True)
class Answer:
    """What a command said.

    Attributes:
        code: its exit status.
        out: its stdout, bounded.
        complaint: the end of its stderr, harmless.
    """

    code: int
    out: bytes
    complaint: str


class Line(Protocol):
    """A command that talks, a line at a time."""

    def poll(self, wait_s: float) -> list[bytes]:
        """The lines that have come, at most one line break each; waits for the first one at most so long."""

    @property
    def open(self) -> bool:
        """More may come."""

    def send(self, data: bytes) -> None:
        """Write to its stdin.

        Raises:
            OSError: it has gone.
        """

    def end_input(self) -> None:
        """Close its stdin."""

    def status(self) -> int | None:
        """Its exit status, once it has ended; None if that was never told."""

    def close(self) -> None:
        """Give it up."""


class Reached(Protocol):
    """A host that commands can be given to.

    Attributes:
        name: as the user named it.
    """

    @property
    def name(self) -> str:
        """As the user named it."""

    def run(self, words: Sequence[str], wall_s: float = COMMAND_S) -> Answer:
        """Run a command to its end.

        Raises:
            HostError: the host does not answer.
        """

    def talk(self, words: Sequence[str]) -> Line:
        """Start a command that talks.

        Raises:
            HostError: the host does not answer.
        """

    def upload(self, files: Mapping[str, bytes | Path]) -> str:
        """Put files into a fresh directory that only the user can enter; returns its path.

        Raises:
            HostError: they can't be written.
        """

    def discard(self, place: str, files: Mapping[str, bytes | Path]) -> None:
        """Remove what `upload` put there; what can't be removed stays."""

    def close(self) -> None:
        """Hang up."""


@dataclass(frozen=True)
class Keys:
    """How the user proves who they are, and whom they trust.

    Attributes:
        known_hosts: instead of the user's own file.
        identity: a private key, instead of the agent's and the usual files.
    """

    known_hosts: Path | None = None
    identity: Path | None = None


def reach(target: str, keys: Keys) -> Reached:
    """A connection to a host.

    Args:
        target: `local`, or `[user@]server[:port]`.
        keys: of the user.

    Raises:
        UsageError: it can't be meant.
        HostError: it can't be reached, or is not known.
    """
    check(target)
    if target == LOCAL:
        return Here()
    from testbed.hosts.ssh import Remote

    return Remote(target, keys)


def check(target: str) -> None:
    """See whether a word names a host.

    Raises:
        UsageError: it does not.
    """
    if target != LOCAL and TARGET.fullmatch(target) is None:
        raise UsageError(
            f"`{printable(target, 80)}` is no host", hint="expected `local`, `user@server`, `user@server:port`"
        )


# --- this machine ----------------------------------------------------------------------------------------------


class Here:
    """This machine itself."""

    @property
    def name(self) -> str:
        """As the user names it."""
        return LOCAL

    def run(self, words: Sequence[str], wall_s: float = COMMAND_S) -> Answer:
        """Run a command."""
        try:
            result = run_bounded(words, wall_s=wall_s, output_bytes=MAX_OUTPUT)
        except OSError as error:
            return Answer(127, b"", f"{words[0]}: {(error.strerror or str(error)).lower()}")
        if result.timed_out:
            raise HostError(f"`{words[0]}` did not end in {wall_s:.0f} s")
        return Answer(result.returncode, result.stdout, printable(result.stderr[-MAX_COMPLAINT:], MAX_COMPLAINT))

    def talk(self, words: Sequence[str]) -> Line:
        """Start a command that talks."""
        try:
            process = subprocess.Popen(
                list(words),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise HostError(f"`{words[0]}` can't be started: {(error.strerror or str(error)).lower()}") from error
        return _Pipes(process)

    def upload(self, files: Mapping[str, bytes | Path]) -> str:
        """Copy files into a fresh directory."""
        place = Path(tempfile.mkdtemp(prefix="testbed-", dir=UPLOADS))
        try:
            for name, content in files.items():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                with opened(content) as source, (place / name).open("wb") as target:
                    shutil.copyfileobj(source, target)
        except OSError as error:
            shutil.rmtree(place, ignore_errors=True)
            raise HostError(f"can't write `{place}`: {(error.strerror or str(error)).lower()}") from error
        return str(place)

    def discard(self, place: str, files: Mapping[str, bytes | Path]) -> None:
        """Remove them again."""
        shutil.rmtree(place, ignore_errors=True)

    def close(self) -> None:
        """Nothing is held."""


class Lines:
    """Bytes as they come, cut into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def add(self, data: bytes) -> list[bytes]:
        """The lines that this completes; one without end is no line of ours."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE:
            self._rest = b""
        return [line for line in lines if len(line) <= MAX_LINE]


class _Pipes:
    """A local command that talks."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._lines = Lines()
        self._open = True

    def poll(self, wait_s: float) -> list[bytes]:
        """What has come."""
        assert self._process.stdout is not None
        if not self._open or not select.select([self._process.stdout], [], [], wait_s)[0]:
            return []
        data = os.read(self._process.stdout.fileno(), 1 << 16)
        self._open = bool(data)
        return self._lines.add(data)

    @property
    def open(self) -> bool:
        """More may come."""
        return self._open

    def send(self, data: bytes) -> None:
        """Write to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def end_input(self) -> None:
        """Close its stdin."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def status(self) -> int | None:
        """How it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(COMMAND_S)
        return None

    def close(self) -> None:
        """End it."""
        self.end_input()
        kill_group(self._process)
        if self._process.stdout is not None:
            self._process.stdout.close()


def folders(files: Mapping[str, bytes | Path]) -> list[str]:
    """The directories that files need, outer ones first."""
    found = {str(parent) for name in files for parent in PurePosixPath(name).parents if str(parent) != "."}
    return sorted(found)


def opened(content: bytes | Path) -> IO[bytes]:
    """Content as a file to read from."""
    return io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
