# SPDX-License-Identifier: Apache-2.0
"""A guest that lives long and is reached by ssh: what `testbed shell` gives a person, and the hosts of the tests.

It has no network card. sshd sits on virtio-serial ports, each a socket in the guest's directory, and the host's key
and the one key that may log in are made for it and come on a second disk. What it writes stays in a layer above
the shared disk, so it survives `power_cut` as far as the guest had flushed it. Never part of a verdict.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import signal
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import paramiko
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from testbed.case import CONSOLE_FILE, QEMU_LOG_FILE
from testbed.errors import HostError
from testbed.image import Image
from testbed.image.cache import write_atomically
from testbed.image.hosts import Made
from testbed.sandbox import Bind, Limits, Sandbox
from testbed.spec import Topology
from testbed.vm import topology
from testbed.vm.live import KVM_DEVICE, Accelerator, probed
from testbed.vm.qemu import OVERHEAD, WORD_OF_OURS
from testbed.vm.qmp import Monitor, connect_unix

PORTS = 4
# What ssh-port@.service says when it has seen that somebody is there.
GREETING = b"testbed host\r\n"
# Booting takes ten seconds on one emulated CPU that nobody else wants.
BOOT_S = 240.0
# How long sshd may take to greet; then another port is tried. One that is let go just now may be without a voice.
GREETING_S = 5.0
LOGIN_S = 60.0
KEEPALIVE_S = 2
STOP_S = 60.0
REAP_S = 10.0
DISK = "disk.qcow2"
SEED = "seed.tar"
# Two disks of one controller: the kernel names them in this order.
_DISKS = (("disk", f"/out/{DISK}", "qcow2"), ("seed", f"/out/{SEED}", "raw"))
_SEED_SIZE = 1 << 20
_FILE_LIMIT = 4 << 30
_KERNEL_OPTIONS = (
    "console=ttyS0", "loglevel=4", "panic=-1", "root=/dev/nvme0n1", "rootfstype=ext4", "rw", "mitigations=off",
    "systemd.show_status=no",
)  # fmt: skip


class HostGuest:
    """A machine with a disk of its own, in a directory that the caller made and removes.

    Attributes:
        host_key: the host's public key; whoever connects must find just this one.
        client_key: the key that may log in, as root and as the ordinary user.
        identity: the same as a file for ssh's `-i`.
    """

    def __init__(
        self,
        image: Image,
        disk: Made,
        directory: Path,
        *,
        machine: Topology | None = None,
        accelerator: Accelerator | None = None,
        seed: Mapping[str, bytes] | None = None,
    ) -> None:
        """Lay out the disk and the keys; nothing runs yet.

        Args:
            image: its kernel and its QEMU.
            disk: what is on the disk at first.
            directory: empty.
            machine: CPUs and memory.
            accelerator: what executes it, by default what the probe of this machine found.
            seed: more files for the guest's /run/seed.

        Raises:
            HostError: the layer above the disk can't be made.
        """
        self._image = image
        self._disk = disk
        self._directory = directory
        self._machine = machine or Topology(cpus=2, memory_mb=512)
        self._accelerator = accelerator or probed(image)
        self._process: subprocess.Popen[bytes] | None = None
        self._monitor: Monitor | None = None
        self._taken: list[socket.socket | None] = [None] * PORTS
        self._next = 0
        self._lock = threading.Lock()
        own, client = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        self.host_key = _public(own)
        self.identity = _private(client)
        self.client_key = paramiko.Ed25519Key.from_private_key(io.StringIO(self.identity.decode("ascii")))
        authorised = f"ssh-ed25519 {self.client_key.get_base64()}\n".encode("ascii")
        files = {"ssh_host_ed25519_key": _private(own), "authorized_keys": authorised, **(seed or {})}
        write_atomically(directory / SEED, _archive(files))
        words = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/work/disk.ext4", f"/out/{DISK}"]
        result = self._sandbox().run(words)
        if not result.ok:
            raise HostError(f"the guest's disk can't be made: {result.text.strip()[:300]}")

    # --- its life ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Switch it on. `connect` waits until it is up.

        Raises:
            HostError: QEMU can't be started.
        """
        for number in range(1, PORTS + 1):
            (self._directory / f"ssh{number}").unlink(missing_ok=True)
        (self._directory / "qmp").unlink(missing_ok=True)
        devices = (str(KVM_DEVICE),) if self._accelerator is Accelerator.KVM else ()
        with (self._directory / QEMU_LOG_FILE).open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    self._sandbox(*devices).command(self._command()),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise HostError(f"`bwrap` can't be started: {error.strerror}") from error
        self._monitor = Monitor(self._directory, "qmp")
        self._monitor.connect_while(lambda: self.running)

    def stop(self) -> None:
        """Shut it down in order; after a minute, or when it can't be reached, switch it off."""
        with contextlib.suppress(HostError, paramiko.SSHException, OSError):
            if self.running:
                transport = self.connect(wait_s=LOGIN_S)
                channel = transport.open_session()
                channel.exec_command("systemctl poweroff")
                self._ended(STOP_S)
                transport.close()
        self.power_cut()

    def power_cut(self) -> None:
        """Switch it off, in the middle of whatever it does."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(REAP_S)
        self._hang_up()
        if self._monitor is not None:
            self._monitor.close()

    @property
    def running(self) -> bool:
        """QEMU is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def console(self) -> str:
        """What kernel and service manager have said."""
        try:
            return (self._directory / CONSOLE_FILE).read_bytes().decode("utf-8", "replace")
        except OSError:
            return ""

    def _ended(self, patience_s: float) -> bool:
        assert self._process is not None
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    # --- the way in -------------------------------------------------------------------------------------------

    def dial(self, wait_s: float = BOOT_S) -> socket.socket:
        """A connection to an sshd of its own in the guest.

        Raises:
            HostError: the guest has ended, or nobody answers in time.
        """
        deadline = time.monotonic() + wait_s
        while self.running and time.monotonic() < deadline:
            for _ in range(PORTS):
                # In turn: the guest does not see that a port was let go when it is taken again at once.
                self._next = (self._next + 1) % PORTS
                connection = self._claim(self._next)
                if connection is not None:
                    if _greeted(connection, min(deadline, time.monotonic() + GREETING_S)):
                        connection.settimeout(None)
                        return connection
                    connection.close()
            time.sleep(0.1)
        if not self.running:
            raise HostError(f"the guest has ended: {self._last_words()}")
        raise HostError(f"nobody answers in the guest after {wait_s:.0f} s: {self._last_words()}")

    def connect(self, user: str = "root", wait_s: float = BOOT_S) -> paramiko.Transport:
        """Log in; the host's key must be the one that was made for it.

        Raises:
            HostError: nobody answers, or somebody else does.
        """
        deadline = time.monotonic() + wait_s
        while True:
            transport = paramiko.Transport(self.dial(max(1.0, deadline - time.monotonic())))
            transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = LOGIN_S
            try:
                transport.start_client(timeout=LOGIN_S)
                if transport.get_remote_server_key().asbytes() != self.host_key.asbytes():
                    raise HostError("the guest has another host key than the one that was made for it")
                transport.auth_publickey(user, self.client_key)
            except (paramiko.SSHException, EOFError, OSError) as error:
                transport.close()
                if time.monotonic() > deadline or isinstance(error, paramiko.AuthenticationException):
                    raise HostError(f"can't log in to the guest: {error}") from error
            except BaseException:
                transport.close()
                raise
            else:
                # A byte now and then: under emulation a port's interrupt can be lost, and the next one makes up for it.
                transport.set_keepalive(KEEPALIVE_S)
                return transport

    def _claim(self, index: int) -> socket.socket | None:
        with self._lock:
            holder = self._taken[index]
            if holder is not None and holder.fileno() >= 0:
                return None
            self._taken[index] = connect_unix(self._directory, f"ssh{index + 1}")
            return self._taken[index]

    def _hang_up(self) -> None:
        with self._lock:
            for holder in self._taken:
                if holder is not None:
                    holder.close()
            self._taken = [None] * PORTS

    def _last_words(self) -> str:
        """The end of console and QEMU's log, in a line."""
        with contextlib.suppress(OSError):
            said = (self._directory / QEMU_LOG_FILE).read_bytes().decode("utf-8", "replace")
            lines = [*self.console.splitlines()[-1:], *said.splitlines()[-1:]]
            words = "; ".join(line.removeprefix(WORD_OF_OURS) for line in lines if line.strip())
            return "".join(char for char in words if char.isprintable())[:300] or "it said nothing"
        return "it said nothing"

    # --- QEMU -------------------------------------------------------------------------------------------------

    def _sandbox(self, *devices: str) -> Sandbox:
        return Sandbox(
            root=self._image.qemu,
            read_only=(Bind(self._image.path, "/image"), Bind(self._disk.path, "/work")),
            writable=(Bind(self._directory, "/out"),),
            devices=devices,
            limits=Limits(file_bytes=_FILE_LIMIT, memory_bytes=(self._machine.memory_mb << 20) + OVERHEAD),
        )

    def _command(self) -> list[str]:
        words = list(_KERNEL_OPTIONS)
        model = "host"
        if self._accelerator is Accelerator.TCG:
            # One host thread runs all vCPUs in turn; see testbed/vm/live.py.
            words += ["tsc=reliable", "no_timer_check"]
            model = topology.cpu("max", self._machine)
        argv = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
            *self._accelerator.options, "-cpu", model, *topology.options(self._machine),
            "-kernel", "/image/vmlinuz", "-append", " ".join(words),
            "-chardev", f"file,id=console,path=/out/{CONSOLE_FILE}", "-serial", "chardev:console",
            "-qmp", "unix:/out/qmp,server=on,wait=off",
            "-device", "nvme,id=disks,serial=testbed",
            "-device", "virtio-serial-pci",
        ]  # fmt: skip
        for number, (name, file, kind) in enumerate(_DISKS, 1):
            argv += ["-drive", f"if=none,id={name},file={file},format={kind},discard=unmap"]
            argv += ["-device", f"nvme-ns,drive={name},bus=disks,nsid={number}"]
        for number in range(1, PORTS + 1):
            argv += ["-chardev", f"socket,id=ssh{number},path=/out/ssh{number},server=on,wait=off"]
            argv += ["-device", f"virtserialport,chardev=ssh{number},nr={number}"]
        return argv


def _greeted(connection: socket.socket, deadline: float) -> bool:
    """Whether the other end says what a fresh sshd of ours says first."""
    said = b""
    while len(said) < len(GREETING):
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            byte = connection.recv(1)
        except OSError:
            return False
        said += byte
        if not byte or not GREETING.startswith(said):
            return False
    return True


def _archive(files: Mapping[str, bytes]) -> bytes:
    """Files as a tar archive of a disk's size; only what sshd reads as who logs in is for everybody."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.mode, member.size = 0o644 if name == "authorized_keys" else 0o600, len(data)
            archive.addfile(member, io.BytesIO(data))
    data = memory.getvalue()
    return data + bytes(-len(data) % _SEED_SIZE)


def _private(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def _public(key: Ed25519PrivateKey) -> paramiko.PKey:
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return paramiko.Ed25519Key(data=base64.b64decode(line.split()[1]))
