# SPDX-License-Identifier: Apache-2.0
"""The little of QEMU's machine protocol that we need: listen to events, send a command, never block."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

# A QMP line is a few hundred bytes; a peer that sends more without a line end is not QEMU.
LINE_LIMIT = 1 << 20


class Monitor:
    """One connection to a QMP socket. Losing it is not an error: QEMU ends when the guest does."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = name
        self._socket: socket.socket | None = None
        self._buffer = b""

    def connect(self) -> bool:
        """Try once to connect and negotiate; False while QEMU does not listen yet."""
        if self._socket is not None:
            return True
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # A socket's path has at most 107 bytes; by way of its directory's descriptor any will do.
            folder = os.open(self._directory, os.O_PATH | os.O_DIRECTORY)
            try:
                connection.connect(f"/proc/self/fd/{folder}/{self._name}")
            finally:
                os.close(folder)
        except OSError:
            connection.close()
            return False
        connection.setblocking(False)
        self._socket = connection
        self.send("qmp_capabilities")
        return True

    def send(self, command: str, **arguments: object) -> None:
        """Send a command; the answer comes back through `messages`."""
        if self._socket is None:
            return
        message: dict[str, object] = {"execute": command}
        if arguments:
            message["arguments"] = arguments
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self.close()

    def messages(self) -> list[dict[str, Any]]:
        """All complete messages that have arrived; what is not JSON is dropped."""
        if self._socket is None:
            return []
        try:
            while data := self._socket.recv(65536):
                self._buffer += data
                if len(self._buffer) > LINE_LIMIT:
                    self._buffer = b""
                    self.close()
                    return []
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
