# SPDX-License-Identifier: Apache-2.0
"""A host by ssh: known beforehand, with the user's own keys and agent."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import secrets
import select
import shlex
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import paramiko

from testbed.case import printable
from testbed.errors import HostError, UsageError
from testbed.hosts.reach import (
    COMMAND_S,
    CONNECT_S,
    MAX_COMPLAINT,
    MAX_OUTPUT,
    TARGET,
    UPLOADS,
    Answer,
    Keys,
    Line,
    Lines,
    folders,
    opened,
)

KEEPALIVE_S = 5


class _Stranger(paramiko.MissingHostKeyPolicy):
    """Refuses a host whose key nobody has written down, and says how to do that."""

    def __init__(self, known_hosts: Path) -> None:
        self._known_hosts = known_hosts

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        """Refuse."""
        raise HostError(
            f"`{hostname}` is not known: its key {key.get_name()} SHA256:{_fingerprint(key)} is not in "
            f"`{self._known_hosts}`",
            hint="if `ssh-keygen -lf` of the key file on the host itself tells the same fingerprint, add this line to "
            f"`{self._known_hosts}`: {hostname} {key.get_name()} {key.get_base64()}",
        )


def _fingerprint(key: paramiko.PKey) -> str:
    return base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode("ascii").rstrip("=")


class Remote:
    """A host by ssh."""

    def __init__(self, target: str, keys: Keys) -> None:
        """Connect.

        Raises:
            HostError: it can't be reached, its key is not known or another one, or it does not let us in.
        """
        self._name = target
        self._client = paramiko.SSHClient()
        settings = _settings(target)
        known = (
            keys.known_hosts or Path(settings.get("userknownhostsfile", "~/.ssh/known_hosts").split()[0]).expanduser()
        )
        try:
            for file in (Path("/etc/ssh/ssh_known_hosts"), known) if keys.known_hosts is None else (known,):
                if file.exists():
                    self._client.load_host_keys(str(file)) if file == known else self._client.load_system_host_keys(
                        str(file)
                    )
        except (OSError, paramiko.SSHException) as error:
            raise HostError(f"`{known}` can't be read: {printable(str(error), 200)}") from error
        self._client.set_missing_host_key_policy(_Stranger(known))
        try:
            self._connect(settings, keys)
        except BaseException:
            self._client.close()
            raise
        transport = self._client.get_transport()
        if transport is None:
            raise HostError(f"`{target}` has hung up")
        self._transport = transport
        transport.set_keepalive(KEEPALIVE_S)

    def _connect(self, settings: Mapping[str, str], keys: Keys) -> None:
        file = keys.identity or _identity(settings)
        try:
            self._client.connect(
                settings["hostname"],
                port=int(settings["port"]),
                username=settings.get("user"),
                pkey=_key(file) if file is not None else None,
                allow_agent=keys.identity is None,
                look_for_keys=keys.identity is None,
                timeout=CONNECT_S,
                banner_timeout=CONNECT_S,
                auth_timeout=CONNECT_S,
            )
        except paramiko.BadHostKeyException as error:
            raise HostError(
                f"`{self._name}` shows another key than the known one: {error.key.get_name()} "
                f"SHA256:{_fingerprint(error.key)}, expected SHA256:{_fingerprint(error.expected_key)}",
                hint="somebody is between, or the host was installed anew: ask its administrator",
            ) from error
        except paramiko.AuthenticationException as error:
            raise HostError(
                f"`{self._name}` does not let us in: {printable(str(error), 200).lower()}",
                hint="add a key to the agent (`ssh-add`), or name one: `--identity FILE`",
            ) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise HostError(
                f"`{self._name}` can't be reached: {printable(str(error) or type(error).__name__, 200)}",
                hint=f"try `ssh {shlex.quote(self._name)}`",
            ) from error

    @property
    def name(self) -> str:
        """As the user named it."""
        return self._name

    def run(self, words: Sequence[str], wall_s: float = COMMAND_S) -> Answer:
        """Run a command."""
        channel = self._channel(words)
        deadline = time.monotonic() + wall_s
        out, complaint = b"", b""
        try:
            channel.shutdown_write()
            while True:
                over = channel.exit_status_ready() and channel.eof_received
                while channel.recv_ready():
                    out = (out + channel.recv(1 << 16))[: MAX_OUTPUT + 1]
                while channel.recv_stderr_ready():
                    complaint = (complaint + channel.recv_stderr(1 << 16))[-MAX_COMPLAINT:]
                if over or channel.closed or len(out) > MAX_OUTPUT:
                    break
                if time.monotonic() > deadline:
                    raise HostError(f"`{self._name}` did not answer `{shlex.join(words[:3])}` in {wall_s:.0f} s")
                select.select([channel], [], [], 0.5)
            code = channel.exit_status
        except (OSError, EOFError) as error:
            raise HostError(f"the connection to `{self._name}` was lost") from error
        finally:
            channel.close()
        if code < 0:
            raise HostError(f"the connection to `{self._name}` was lost")
        return Answer(code, out, printable(complaint, MAX_COMPLAINT))

    def talk(self, words: Sequence[str]) -> Line:
        """Start a command that talks."""
        return _Channel(self._channel(words), self._transport)

    def _channel(self, words: Sequence[str]) -> paramiko.Channel:
        try:
            channel = self._transport.open_session(timeout=CONNECT_S)
            channel.exec_command(shlex.join(words))
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise HostError(f"the connection to `{self._name}` was lost") from error
        return channel

    def upload(self, files: Mapping[str, bytes | Path]) -> str:
        """Send files into a fresh directory."""
        place = f"{UPLOADS}/testbed-{secrets.token_hex(4)}"
        try:
            with self._sftp() as sftp:
                sftp.mkdir(place, 0o700)
                if stat.S_IMODE(sftp.stat(place).st_mode or 0) != 0o700:
                    raise HostError(f"`{place}` of `{self._name}` has another mode than it was given")
                for folder in folders(files):
                    sftp.mkdir(f"{place}/{folder}", 0o700)
                for name, content in files.items():
                    with opened(content) as source:
                        sftp.putfo(source, f"{place}/{name}")
        except (paramiko.SSHException, OSError, EOFError) as error:
            self.discard(place, files)
            raise HostError(f"can't send files to `{self._name}`: {printable(str(error), 200).lower()}") from error
        return place

    def discard(self, place: str, files: Mapping[str, bytes | Path]) -> None:
        """Remove them again."""
        with contextlib.suppress(paramiko.SSHException, OSError, EOFError), self._sftp() as sftp:
            for name in files:
                with contextlib.suppress(OSError):
                    sftp.remove(f"{place}/{name}")
            for folder in (*reversed(folders(files)), ""):
                with contextlib.suppress(OSError):
                    sftp.rmdir(f"{place}/{folder}".rstrip("/"))

    def _sftp(self) -> paramiko.SFTPClient:
        sftp = paramiko.SFTPClient.from_transport(self._transport)
        if sftp is None:
            raise paramiko.SSHException("no sftp")
        channel = sftp.get_channel()
        if channel is not None:
            channel.settimeout(COMMAND_S)
        return sftp

    def close(self) -> None:
        """Hang up."""
        self._client.close()


class _Channel:
    """A command that talks, by ssh."""

    def __init__(self, channel: paramiko.Channel, transport: paramiko.Transport) -> None:
        self._channel = channel
        self._transport = transport
        self._lines = Lines()
        self._open = True

    def poll(self, wait_s: float) -> list[bytes]:
        """What has come."""
        if not self._open:
            return []
        select.select([self._channel], [], [], wait_s)
        over = self._channel.closed or self._channel.eof_received or not self._transport.is_active()
        data = b""
        while self._channel.recv_stderr_ready():
            self._channel.recv_stderr(1 << 16)  # nobody reads it, and unread it would stop the other end
        while self._channel.recv_ready() and len(data) < MAX_OUTPUT:
            data += self._channel.recv(1 << 16)
        self._open = not over or self._channel.recv_ready()
        return self._lines.add(data)

    @property
    def open(self) -> bool:
        """More may come."""
        return self._open

    def send(self, data: bytes) -> None:
        """Write to it, unless it takes nothing: one that is not heard must not hold us."""
        if self._channel.send_ready():
            self._channel.sendall(data)

    def end_input(self) -> None:
        """Close its stdin."""
        with contextlib.suppress(OSError, EOFError):
            self._channel.shutdown_write()

    def status(self) -> int | None:
        """How it ended."""
        if self._channel.status_event.wait(CONNECT_S) and self._channel.exit_status >= 0:
            return self._channel.exit_status
        return None

    def close(self) -> None:
        """Give it up."""
        self._channel.close()


def _settings(target: str) -> dict[str, str]:
    """Server, port and user: what the target says, then what the user's ssh configuration does."""
    found = TARGET.fullmatch(target)
    assert found is not None
    host = found["host"].strip("[]")
    settings: dict[str, str] = {"hostname": host, "port": "22"}
    file = Path("~/.ssh/config").expanduser()
    if file.is_file():
        try:
            config = paramiko.SSHConfig.from_path(str(file)).lookup(host)
        except (OSError, paramiko.SSHException, paramiko.ConfigParseError) as error:
            raise UsageError(f"`{file}` can't be read: {printable(str(error), 200)}") from error
        for name in ("hostname", "port", "user", "userknownhostsfile"):
            if isinstance(config.get(name), str):
                settings[name] = config[name]
        if isinstance(files := config.get("identityfile"), list):
            settings["identityfile"] = "\0".join(files)
    settings |= {name: found[name] for name in ("port", "user") if found[name]}
    return settings


def _identity(settings: Mapping[str, str]) -> Path | None:
    """The first key file of the configuration that is there."""
    files = [Path(name).expanduser() for name in settings.get("identityfile", "").split("\0") if name]
    return next((file for file in files if file.is_file()), None)


def _key(file: Path) -> paramiko.PKey:
    try:
        return paramiko.PKey.from_path(file)
    except (OSError, ValueError, TypeError, paramiko.SSHException) as error:
        raise UsageError(
            f"`{file}` holds no key that can be used: {printable(str(error), 200).lower()}",
            hint="a key with a passphrase belongs into the agent: `ssh-add`, without `--identity`",
        ) from None
