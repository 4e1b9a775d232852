# SPDX-License-Identifier: Apache-2.0
"""A person's session over ssh: keys and screen in raw mode, the window's size, the exit status."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import termios
import tty
from collections.abc import Iterator
from typing import BinaryIO

import paramiko

from testbed.errors import HostError

# How long nothing may happen before it is looked whether the other end is still there.
POLL_S = 0.5
_PIECE = 1 << 16


def hold(transport: paramiko.Transport, command: str, keys: int, screen: BinaryIO, errors: BinaryIO) -> int:
    """Run a command, or a login shell if it is empty, until it ends; returns its exit status.

    Args:
        transport: logged in.
        command: for the shell of the other end.
        keys: descriptor of what is typed. A terminal is put into raw mode if there is no command.
        screen: gets what is said.
        errors: gets what is said on stderr.

    Raises:
        HostError: it has none, because the connection was lost or a signal ended the command.
    """
    channel = transport.open_session()
    size = None
    with contextlib.ExitStack() as stack:
        stack.callback(channel.close)
        if command:
            channel.exec_command(command)
        elif os.isatty(keys):
            size = shutil.get_terminal_size()
            channel.get_pty(os.environ.get("TERM", "dumb"), *size)
            channel.invoke_shell()
            stack.enter_context(_raw(keys))
        else:
            channel.invoke_shell()
        return _talk(channel, keys, screen, errors, size)


def _talk(
    channel: paramiko.Channel, keys: int, screen: BinaryIO, errors: BinaryIO, size: os.terminal_size | None
) -> int:
    """`size`: what the other end takes for that of the window; None where there is none."""
    inputs: list[int | paramiko.Channel] = [channel, keys]
    while True:
        ready, _, _ = select.select(inputs, [], [], POLL_S)
        # Looked at here and not on SIGWINCH: a handler may interrupt whoever holds a lock that the channel needs.
        if size is not None and (now := shutil.get_terminal_size()) != size:
            size = now
            with contextlib.suppress(OSError, paramiko.SSHException):
                channel.resize_pty(*size)
        over = channel.closed or (channel.exit_status_ready() and channel.eof_received)
        for has_some, take, target in (
            (channel.recv_ready, channel.recv, screen),
            (channel.recv_stderr_ready, channel.recv_stderr, errors),
        ):
            while has_some():
                target.write(take(_PIECE))
            target.flush()
        if over:
            break
        if keys in ready:
            data = os.read(keys, _PIECE)
            if data:
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    channel.sendall(data)
            else:
                inputs = [channel]
                channel.shutdown_write()
    status = channel.recv_exit_status()
    if status < 0:
        raise HostError("there is no exit status: the connection was lost, or a signal ended the command")
    return status


@contextlib.contextmanager
def _raw(keys: int) -> Iterator[None]:
    """Every key goes through as it is; afterwards the terminal is what it was."""
    before = termios.tcgetattr(keys)
    try:
        tty.setraw(keys)
        yield
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, before)
