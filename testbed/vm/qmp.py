# SPDX-License-Identifier: Apache-2.0
"""The little of QEMU's machine protocol that we need: listen to events, send a command, ask and wait for the answer."""

from __future__ import annotations

import json
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from testbed.errors import HostError

# A QMP line is a few hundred bytes; a peer that sends more without a line end is not QEMU.
LINE_LIMIT = 1 << 20
# A QEMU that is alive answers at once, also on a busy host.
ANSWER_S = 60.0
POLL_S = 0.002
# How long a new QEMU may take until it listens to its monitor, on a busy host.
LISTEN_S = 60.0


class MonitorLostError(HostError):
    """QEMU has gone, or does not talk any more; how it ended says more than this."""


def connect_unix(directory: Path, name: str) -> socket.socket | None:
    """A connection to a socket of QEMU's; None while it does not listen yet."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # A socket's path has at most 107 bytes; by way of its directory's descriptor any will do.
        folder = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        try:
            connection.connect(f"/proc/self/fd/{folder}/{name}")
        finally:
            os.close(folder)
    except OSError:
        connection.close()
        return None
    return connection


class Monitor:
    """One connection to a QMP socket. Losing it is not an error to a listener: QEMU ends when the guest does."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = name
        self._socket: socket.socket | None = None
        self._buffer = b""
        self._asked = 0
        self._kept: deque[dict[str, Any]] = deque()

    def connect(self) -> bool:
        """Try once to connect and negotiate; False while QEMU does not listen yet."""
        if self._socket is not None:
            return True
        connection = connect_unix(self._directory, self._name)
        if connection is None:
            return False
        connection.setblocking(False)
        self._socket = connection
        self.send("qmp_capabilities")
        return True

    def connect_while(self, wanted: Callable[[], bool]) -> None:
        """Connect to a QEMU that was just started, for as long as `wanted` says and a busy host may take.

        Raises:
            MonitorLostError: it is not wanted any more, or does not listen.
        """
        deadline = time.monotonic() + LISTEN_S
        while not self.connect():
            if not wanted() or time.monotonic() > deadline:
                raise MonitorLostError("QEMU does not listen to its monitor")
            time.sleep(POLL_S)

    def send(self, command: str, **arguments: object) -> int:
        """Send a command; the answer comes back through `messages`, with the `id` that is returned."""
        self._asked += 1
        if self._socket is None:
            return self._asked
        message: dict[str, object] = {"execute": command, "id": self._asked}
        if arguments:
            message["arguments"] = arguments
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self.close()
        return self._asked

    def ask(self, command: str, **arguments: object) -> dict[str, Any]:
        """Send a command and wait for its answer; what else QEMU says meanwhile is kept for `messages`.

        Raises:
            MonitorLostError: QEMU is gone, or silent.
            HostError: QEMU refuses.
        """
        if self._socket is None:
            raise MonitorLostError("QEMU's monitor is not connected")
        number = self.send(command, **arguments)
        deadline = time.monotonic() + ANSWER_S
        while self._socket is not None and time.monotonic() < deadline:
            select.select([self._socket], [], [], 1.0)
            answer: dict[str, Any] | None = None
            for message in self._receive():
                if message.get("id") == number and ("return" in message or "error" in message):
                    answer = message
                else:
                    self._kept.append(message)
            if answer is None:
                continue
            if "error" in answer:
                raise HostError(f"QEMU refuses `{command}`: {answer['error'].get('desc', '')}")
            found = answer["return"]
            return found if isinstance(found, dict) else {}
        raise MonitorLostError(f"QEMU did not answer `{command}`")

    def messages(self) -> list[dict[str, Any]]:
        """All complete messages that have arrived; what is not JSON is dropped."""
        kept = list(self._kept)
        self._kept.clear()
        return kept + self._receive()

    def _receive(self) -> list[dict[str, Any]]:
        if self._socket is None:
            return []
        try:
            while data := self._socket.recv(65536):
                self._buffer += data
                if len(self._buffer) > LINE_LIMIT:
                    self._buffer = b""
                    self.close()
                    return []
            self.close()  # an end of file: QEMU has gone, and what it said last is in the buffer
        except BlockingIOError:
            pass
        except OSError:
            self.close()
        *lines, self._buffer = self._buffer.split(b"\n")
        found = []
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if isinstance(message, dict):
                found.append(message)
        return found

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
