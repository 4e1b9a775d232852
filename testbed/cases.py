# SPDX-License-Identifier: Apache-2.0
"""All cases of this user: where they lie, what they say, which may go."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from testbed.case import CASE_FILE, VERDICT_FILE
from testbed.errors import UsageError

KEEP_FILE = ".keep"
LOCK_FILE = ".lock"
DAY_S = 86_400.0


@dataclass(frozen=True)
class Summary:
    """One line about a case.

    Attributes:
        outcome: the verdict, `interrupted` where there is none, `damaged` where it can't be read.
    """

    path: Path
    outcome: str
    title: str
    kept: bool
    modified: float

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {"case": str(self.path), "verdict": self.outcome, "title": self.title, "kept": self.kept}


def directory() -> Path:
    """Where cases go when nobody says where: `$TESTBED_CASES`, else below the user's state directory."""
    if configured := os.environ.get("TESTBED_CASES"):
        return Path(configured)
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "testbed" / "cases"


def all_cases() -> list[Summary]:
    """Every case of the directory, oldest first."""
    if not directory().is_dir():
        return []
    found = [_summary(path) for path in directory().iterdir() if (path / CASE_FILE).is_file() or _empty_case(path)]
    return sorted(found, key=lambda one: (one.modified, one.path.name))


def find(name: str) -> Path:
    """A case by path, or by its name in the list.

    Raises:
        UsageError: there is none.
    """
    for path in (Path(name), directory() / name):
        if (path / CASE_FILE).is_file():
            return path
    raise UsageError(f"`{name}` is no case", hint="see `testbed cases list`")


def prune(older_than_days: float, *, dry_run: bool) -> Iterable[Summary]:
    """Remove cases older than so many days, except those that were made with `--keep`; yields what goes."""
    limit = time.time() - older_than_days * DAY_S
    for one in all_cases():
        if one.kept or one.modified > limit:
            continue
        if not dry_run:
            # Renamed first: a case is there as a whole or not at all, whenever we are killed.
            doomed = one.path.with_name(f".{one.path.name}.removed")
            one.path.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
        yield one
    if not dry_run and directory().is_dir():
        for left in directory().glob(".*.removed"):
            shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def exclusive(directory: Path, what: str) -> Iterator[None]:
    """Hold a directory of several cases; a second one in it is refused, those in different ones don't know each other.

    Args:
        directory: made if it is not there.
        what: `gate` or `corpus`, for the message.

    Raises:
        UsageError: it can't be made, or somebody is at work in it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UsageError(f"`--out {directory}` can't be made: {(error.strerror or '').lower()}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another {what} is at work in `{directory}`", hint="name another directory") from None
        yield
    finally:
        os.close(handle)


def _empty_case(path: Path) -> bool:
    """A case whose making was cut off before it had a file."""
    return path.is_dir() and not path.name.startswith(".") and (path / "candidate").is_dir()


def _summary(path: Path) -> Summary:
    outcome, title = "interrupted", ""
    try:
        verdict = json.loads((path / VERDICT_FILE).read_bytes())
        outcome, title = str(verdict["verdict"]), str(verdict["title"])
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError):
        outcome = "damaged"
    return Summary(path, outcome, title, (path / KEEP_FILE).exists(), path.stat().st_mtime)
