# SPDX-License-Identifier: Apache-2.0
"""Errors by addressee: the type says who has to act, the exit code follows from it.

A rejected candidate is not an error, it is a verdict.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of every verb."""

    PASS = 0
    REJECT = 1
    USAGE = 2
    INCONCLUSIVE = 3
    INTERRUPTED = 130


class TestbedError(Exception):
    """Base of all errors that are reported without a traceback.

    Attributes:
        message: what was found and what was expected; lower case, no final stop.
        hint: what the addressee can do, empty if nothing sensible is known.
    """

    __test__ = False  # pytest: the name begins with "Test"
    addressee = "somebody"
    exit_code = ExitCode.INCONCLUSIVE

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(TestbedError):
    """The caller asked for something that can't be meant: bad option, no such file, unknown name."""

    addressee = "you"
    exit_code = ExitCode.USAGE


class ScenarioError(UsageError):
    """A scenario or policy file is wrong; its author must act."""

    addressee = "the file's author"


class HostError(TestbedError):
    """The machine that runs the testbed lacks something; its owner must act."""

    addressee = "the machine's owner"


class Bug(TestbedError):
    """The testbed contradicts itself; we must act."""

    addressee = "the testbed's authors"


class Interrupted(TestbedError):
    """The user ended the work (SIGINT, SIGTERM)."""

    addressee = "nobody"
    exit_code = ExitCode.INTERRUPTED
