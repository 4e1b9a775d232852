# SPDX-License-Identifier: Apache-2.0
"""A person's session over ssh: keys and screen in raw mode, the window's size, the exit status."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
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
    with contextlib.ExitStack() as stack:
        stack.callback(channel.close)
        if command:
            channel.exec_command(command)
        elif os.isatty(keys):
            columns, lines = shutil.get_terminal_size()
            channel.get_pty(os.environ.get("TERM", "dumb"), columns, lines)
            channel.invoke_shell()
            stack.enter_context(_raw(keys))
            stack.enter_context(_follow_size(channel))
        else:
            channel.invoke_shell()
        return _talk(channel, keys, screen, errors)


def _talk(channel: paramiko.Channel, keys: int, screen: BinaryIO, errors: BinaryIO) -> int:
    inputs: list[int | paramiko.Channel] = [channel, keys]
    while True:
        ready, _, _ = select.select(inputs, [], [], POLL_S)
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


@contextlib.contextmanager
def _follow_size(channel: paramiko.Channel) -> Iterator[None]:
    """Tell the other end when the window changes its size."""

    def tell(_number: int, _frame: object) -> None:
        columns, lines = shutil.get_terminal_size()
        with contextlib.suppress(OSError, paramiko.SSHException):
            channel.resize_pty(columns, lines)

    before = signal.signal(signal.SIGWINCH, tell)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
