# SPDX-License-Identifier: Apache-2.0
"""`testbed shell`: the disk of its guest is part of no image, and a session passes on what it is given."""

from __future__ import annotations

import io
import os
import shutil
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest
from paramiko.common import AUTH_SUCCESSFUL, OPEN_SUCCEEDED

from testbed.data import data_directory
from testbed.errors import HostError, UsageError
from testbed.hosts import session
from testbed.image import hosts
from testbed.image.recipe import Sources

WAIT_S = 20


class Server(paramiko.ServerInterface):
    """Lets everybody in, and does what a test says with a command."""

    def __init__(self, answer: bytes, complaint: bytes, status: int | None) -> None:
        self.answer, self.complaint, self.status = answer, complaint, status
        self.asked: list[bytes] = []
        self.typed = b""
        self.over = threading.Event()

    def check_auth_none(self, username: str) -> int:
        return AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        return "none"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.asked.append(command)
        threading.Thread(target=self.work, args=(channel,), daemon=True).start()
        return True

    def check_channel_shell_request(self, channel: paramiko.Channel) -> bool:
        threading.Thread(target=self.work, args=(channel,), daemon=True).start()
        return True

    def work(self, channel: paramiko.Channel) -> None:
        while data := channel.recv(4096):
            self.typed += data
        channel.sendall(self.answer)
        channel.sendall_stderr(self.complaint)
        if self.status is not None:
            channel.send_exit_status(self.status)
            channel.close()
        else:
            channel.get_transport().close()
        self.over.set()


class Line:
    """Both ends of a connection."""

    def __init__(self, server: Server) -> None:
        ours, theirs = socket.socketpair()
        self.far = paramiko.Transport(theirs)
        self.far.add_server_key(paramiko.ECDSAKey.generate())
        self.far.start_server(event=threading.Event(), server=server)
        self.near = paramiko.Transport(ours)
        self.near.start_client(timeout=WAIT_S)
        self.near.auth_none("somebody")

    def close(self) -> None:
        self.near.close()
        self.far.close()


@pytest.fixture
def keys() -> Iterator[int]:
    """A descriptor on which something was typed and no more comes."""
    reading, writing = os.pipe()
    os.write(writing, b"typed\n")
    os.close(writing)
    yield reading
    os.close(reading)


def hold(server: Server, command: str, keys: int) -> tuple[int, bytes, bytes]:
    line = Line(server)
    screen, errors = io.BytesIO(), io.BytesIO()
    try:
        return session.hold(line.near, command, keys, screen, errors), screen.getvalue(), errors.getvalue()
    finally:
        line.close()


@pytest.mark.parametrize("command", ["uname -r", ""])
def test_a_session_passes_on_keys_both_streams_and_the_status(command: str, keys: int) -> None:
    server = Server(b"7.3.4\n" * 5000, b"oh\n", 7)
    assert hold(server, command, keys) == (7, b"7.3.4\n" * 5000, b"oh\n")
    assert server.typed == b"typed\n"
    assert server.asked == ([command.encode()] if command else [])


class TerminalServer(Server):
    """Has a terminal, and ends when its size has changed."""

    def __init__(self) -> None:
        super().__init__(b"bye", b"", 0)
        self.sizes: list[tuple[int, int]] = []
        self.changed = threading.Event()

    def check_channel_pty_request(
        self,
        channel: paramiko.Channel,
        term: bytes,
        width: int,
        height: int,
        pixelwidth: int,
        pixelheight: int,
        modes: bytes,
    ) -> bool:
        self.sizes.append((width, height))
        return True

    def check_channel_window_change_request(
        self, channel: paramiko.Channel, width: int, height: int, pixelwidth: int, pixelheight: int
    ) -> bool:
        self.sizes.append((width, height))
        self.changed.set()
        return True

    def work(self, channel: paramiko.Channel) -> None:
        assert self.changed.wait(WAIT_S)
        channel.sendall(self.answer)
        channel.send_exit_status(0)
        channel.close()


def test_the_other_end_learns_when_the_window_changes_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [os.terminal_size((80, 24)), os.terminal_size((80, 24)), os.terminal_size((100, 30))]
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: sizes.pop(0) if len(sizes) > 1 else sizes[0])
    server = TerminalServer()
    ours, theirs = os.openpty()
    try:
        assert hold(server, "", theirs) == (0, b"bye", b"")
    finally:
        os.close(ours)
        os.close(theirs)
    assert server.sizes == [(80, 24), (100, 30)]


def test_a_lost_connection_is_no_exit_status(keys: int) -> None:
    with pytest.raises(HostError, match="the connection was lost"):
        hold(Server(b"half", b"", None), "sleep 100", keys)


def test_its_disk_is_no_part_of_an_image(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(data_directory("vm_images"), tmp_path / "vm_images"))
    before, key = Sources.load(copy).key(), hosts._key(copy)
    unit = copy / "hosts/root/etc/systemd/system/host.target"
    unit.write_text(unit.read_text() + "# changed\n")
    assert Sources.load(copy).key() == before
    assert hosts._key(copy) != key


def test_owners_and_modes_that_an_extracted_root_has_lost_are_in_the_archive(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in (
        "usr/bin/sudo",
        "etc/shadow",
        "etc/hostname",
        f"home/{hosts.USER}/.profile",
        "etc/ssh/ssh_host_rsa_key",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    for name in ("tmp", "work"):
        (root / name).mkdir()
    archive = io.BytesIO()
    hosts.write_tree(archive, root, data_directory("vm_images") / "hosts/root", hosts.load_recipe())
    archive.seek(0)
    with tarfile.open(fileobj=archive) as found:
        members = {member.name: member for member in found}
        hostname = found.extractfile("etc/hostname")
        assert hostname is not None and hostname.read() == b"testbed-host\n"
    assert members["usr/bin/sudo"].mode == 0o4755
    assert members["etc/shadow"].mode == 0o600
    assert members["tmp"].mode == 0o1777
    assert members[f"home/{hosts.USER}/.profile"].uid == 1000
    assert {member.uid for name, member in members.items() if not name.startswith("home/promoter")} == {0}
    # A key that everybody has is no key, and the sandbox's mount points are nothing of the host's.
    assert not {"etc/ssh/ssh_host_rsa_key", "work"} & set(members)
    assert members["etc/systemd/system/systemd-logind.service"].linkname == "/dev/null"


def test_only_a_guest_or_a_candidate_takes_a_program() -> None:
    from testbed.cli import _parser, _split

    assert _split(["shell", "--", "uname", "-r"]) == (["shell"], ("uname", "-r"))
    assert _parser().parse_args(["shell", "--kernel", "debian:6.18"]).kernel == "debian:6.18"
    with pytest.raises(UsageError):
        _parser().parse_args(["shell", "--cpus", "0"])
