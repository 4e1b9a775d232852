# SPDX-License-Identifier: Apache-2.0
"""`testbed-host` on a host, as functions (docs/reference/host.md says what it says).

A host may be broken or lie. What it says is bounded, cleaned of everything that is not a printable character, and never
becomes a part of a command.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from typing import Any

from testbed.case import printable
from testbed.errors import ExitCode, HostError, TestbedError
from testbed.hosts.reach import COMMAND_S, Line, Reached

PROGRAM = "/usr/local/sbin/testbed-host"
# Attaching has its own limits on the host; this is for a connection that hangs.
START_S = 180.0
MAX_TEXT = 2000
_DEPTH = 12
_ID = re.compile(r"[0-9a-f]{64}")

Document = dict[str, Any]


class HostSays(TestbedError):
    """A host refuses, or says that it can't; the text is the host's own."""

    addressee = "the host's administrator"

    def __init__(self, host: str, code: str, message: str, *, hint: str, exit_code: ExitCode) -> None:
        super().__init__(f"{host}: {message}", hint=hint)
        self.code = code
        self.exit_code = exit_code


class Resident:
    """The program on one host.

    Attributes:
        host: how it is reached.
        before: words that give the program root's rights.
    """

    def __init__(self, host: Reached) -> None:
        """Look whether it is there.

        Raises:
            HostError: it is not, or does not answer.
        """
        self.host = host
        self.before: tuple[str, ...] = ()
        self.facts = self._run(["facts"])
        if self.facts.get("schema") != "testbed.host-facts/1":
            raise HostError(
                f"`{host.name}` has another version of {PROGRAM}", hint=f"testbed host install {host.name} …"
            )
        if not self.facts.get("root"):
            self.before = ("sudo", "-n")

    def stage(self, place: str) -> str:
        """Have an uploaded bundle copied in; returns its id."""
        told = self._run(["stage", place])
        return _checked_id(self.host.name, told.get("id"))

    def check(self, bundle: str) -> Document:
        """What speaks against a bundle."""
        return self._run(["check", bundle])

    def start(self, bundle: str) -> Document:
        """Attach it; what speaks against it, or how it failed, is in the document."""
        return self._run(["start", bundle], START_S)

    def follow(self) -> Line:
        """The watcher's events; the connection is the scheduler's lifeline."""
        return self.host.talk([*self.before, PROGRAM, "follow"])

    def stop(self) -> Document:
        """Take back what runs."""
        return self._run(["stop"])

    def status(self) -> Document:
        """The kernel's truth."""
        return self._run(["status"])

    def history(self) -> Document:
        """The log."""
        return self._run(["history"])

    def _run(self, words: Sequence[str], wall_s: float = COMMAND_S) -> Document:
        answer = self.host.run([*self.before, PROGRAM, *words], wall_s)
        try:
            told = parse(answer.out)
        except ValueError:
            raise self._silent(answer.code, answer.complaint) from None
        error = told.get("error")
        if isinstance(error, dict):
            code = ExitCode.REJECT if answer.code == 1 else ExitCode.INCONCLUSIVE
            raise HostSays(
                self.host.name,
                str(error.get("code", "")),
                str(error.get("message", "")),
                hint=str(error.get("hint", "")),
                exit_code=code,
            )
        return told

    def _silent(self, code: int, complaint: str) -> HostError:
        """Why a command gave no document."""
        name = self.host.name
        if complaint.startswith("sudo:"):
            return HostError(
                f"`{name}` does not let us use root's rights: {complaint[:200]}",
                hint=f"its administrator must allow them: `testbed host install {name} --promoter USER`, "
                "or the rules in docs/guides/promote.md",
            )
        if code in (126, 127):
            return HostError(
                f"`{name}` has no {PROGRAM}", hint=f"testbed host install {name} --trust KEY.pub --policy default"
            )
        return HostError(f"`{name}`: {PROGRAM} ended with status {code} and said nothing: {complaint[:200]}")


def parse(data: bytes) -> Document:
    """A document of a host's, harmless.

    Raises:
        ValueError: it is none.
    """
    try:
        told = json.loads(data.decode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(told, dict):
        raise ValueError("no object")
    cleaned = _clean(told, _DEPTH)
    assert isinstance(cleaned, dict)
    return cleaned


def section(told: Document, name: str) -> Document:
    """A part of a document; empty where a host says something else there."""
    part = told.get(name)
    return part if isinstance(part, dict) else {}


def rows(told: Document, name: str) -> list[Any]:
    """A list in a document; empty where a host says something else there."""
    part = told.get(name)
    return part if isinstance(part, list) else []


def number(told: Document, name: str) -> float:
    """A number in a document; 0 where a host says something else there."""
    part = told.get(name)
    return float(part) if isinstance(part, int | float) else 0.0


def _clean(value: object, depth: int) -> object:
    if depth == 0:
        return None
    if isinstance(value, str):
        return printable(value, MAX_TEXT)
    if isinstance(value, list):
        return [_clean(item, depth - 1) for item in value]
    if isinstance(value, dict):
        return {printable(key, 100): _clean(item, depth - 1) for key, item in value.items()}
    return value


def _checked_id(name: str, told: object) -> str:
    if not isinstance(told, str) or _ID.fullmatch(told) is None:
        raise HostError(f"`{name}` names a bundle in a way that is none of ours: {printable(str(told), 80)}")
    return told


def settled(resident: Resident, patience_s: float) -> Document:
    """The status once nothing is in the middle of anything, or when patience ends."""
    deadline = time.monotonic() + patience_s
    while True:
        told = resident.status()
        going_on = section(told, "record").get("phase") in ("starting", "canary") and told.get("watcher") is True
        if not going_on or time.monotonic() > deadline:
            return told
        time.sleep(1.0)
