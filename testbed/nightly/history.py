# SPDX-License-Identifier: Apache-2.0
"""All nights in one SQLite file. Nights are counted, never dated: a clock may jump."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from testbed.corpus import Result
from testbed.errors import HostError, UsageError
from testbed.nightly.document import Answer, Asked, Kind, NightFacts
from testbed.spec import Model

APPLICATION_ID = 0x7462_6E31
VERSION = 1
KEEP_FACTS = 90
"""Nights that the trends show."""

_M = TypeVar("_M", bound=Model)
_EXPECTED = (Result.NAMED, Result.PASSED)
_TABLES = f"""\
CREATE TABLE nights (night INTEGER PRIMARY KEY, asked TEXT NOT NULL, began TEXT NOT NULL, facts TEXT);
CREATE TABLE answers (
    night INTEGER NOT NULL, subject TEXT NOT NULL, question TEXT NOT NULL, ran INTEGER NOT NULL, answer TEXT NOT NULL,
    PRIMARY KEY (night, subject)
) WITHOUT ROWID;
CREATE INDEX by_subject ON answers (subject, night);
CREATE INDEX by_question ON answers (question, night);
CREATE TABLE failed (
    name TEXT NOT NULL, machine TEXT NOT NULL, first_seed INTEGER NOT NULL, seeds INTEGER NOT NULL,
    night INTEGER NOT NULL, PRIMARY KEY (name, machine, first_seed, seeds)
) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""


@dataclass(frozen=True)
class Failed:
    """Orders of events in which a scheduler did not get the verdict that it must get."""

    name: str
    machine: str
    first_seed: int
    seeds: int


class History:
    """An open history; see `History.open`."""

    def __init__(self, file: Path, connection: sqlite3.Connection) -> None:
        self._file = file
        self._connection = connection

    @classmethod
    @contextmanager
    def open(cls, file: Path) -> Iterator[History]:
        """Open a history, or begin one.

        Raises:
            UsageError: the file is something else, damaged, or of another version of the testbed.
            HostError: it can't be written.
        """
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(file, isolation_level=None)
        except (OSError, sqlite3.OperationalError) as error:
            raise HostError(f"the history `{file}` can't be opened: {error}") from error
        with closing(connection):
            try:
                cls._check(file, connection)
                yield cls(file, connection)
            except sqlite3.OperationalError as error:
                raise HostError(f"the history `{file}` can't be used: {error}") from error
            except sqlite3.DatabaseError as error:
                raise _damaged(file, str(error)) from error

    @staticmethod
    def _check(file: Path, connection: sqlite3.Connection) -> None:
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            connection.executescript(f"BEGIN;{_TABLES}COMMIT;")
            return
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise UsageError(f"`{file}` is another program's database", hint="name a new file: --history FILE")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version != VERSION:
            raise UsageError(
                f"the history `{file}` is of version {version}, this testbed reads version {VERSION}",
                hint="use the testbed that wrote it, or begin a new history: --history FILE",
            )
        said = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if said != "ok":
            raise _damaged(file, str(said).splitlines()[-1])

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """All or nothing."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _read(self, kind: type[_M], text: str) -> _M:
        try:
            return kind.model_validate_json(text)
        except ValidationError as error:
            raise _damaged(self._file, str(error).splitlines()[0]) from error

    def begin(self, asked: Asked, now: str) -> int:
        """The number of the night: the last one's if it was killed and is asked the same, else a new one's."""
        words = asked.model_dump_json()
        last = self._connection.execute("SELECT night, asked, facts FROM nights ORDER BY night DESC LIMIT 1").fetchone()
        if last is not None and last[1] == words and last[2] is None:
            return int(last[0])
        night = 1 if last is None else int(last[0]) + 1
        self._connection.execute("INSERT INTO nights VALUES (?, ?, ?, NULL)", (night, words, now))
        return night

    def began(self, night: int) -> str:
        """When it began, as the host's clock had it."""
        return str(self._connection.execute("SELECT began FROM nights WHERE night = ?", (night,)).fetchone()[0])

    def asked(self, night: int) -> Asked:
        """What it was asked."""
        found = self._connection.execute("SELECT asked FROM nights WHERE night = ?", (night,)).fetchone()
        return self._read(Asked, found[0])

    def record(self, night: int, answers: Sequence[Answer]) -> None:
        """Write answers of a night, in the place of what it said to the same questions before it was killed."""
        with self._at_once():
            for one in answers:
                values = (night, one.subject, one.question, one.ran, one.model_dump_json())
                self._connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)", values)
                if one.kind is Kind.FRESH and one.ran and one.row.result not in (*_EXPECTED, Result.UNCLEAR):
                    failed = (one.row.name, one.row.machine, one.first_seed, one.row.seeds, night)
                    self._connection.execute("INSERT OR IGNORE INTO failed VALUES (?, ?, ?, ?, ?)", failed)

    def close(self, facts: NightFacts) -> None:
        """The night is over."""
        self._connection.execute("UPDATE nights SET facts = ? WHERE night = ?", (facts.model_dump_json(), facts.night))

    def earlier(self, subject: str, night: int) -> tuple[int, Answer] | None:
        """The last answer about a subject before a night."""
        found = self._connection.execute(
            "SELECT night, answer FROM answers WHERE subject = ? AND night < ? AND ran ORDER BY night DESC LIMIT 1",
            (subject, night),
        ).fetchone()
        return None if found is None else (int(found[0]), self._read(Answer, found[1]))

    def answered(self, question: str, night: int) -> Iterator[tuple[int, Answer]]:
        """Answers of earlier nights to exactly this question, the newest first."""
        rows = self._connection.execute(
            "SELECT night, answer FROM answers WHERE question = ? AND night < ? AND ran ORDER BY night DESC",
            (question, night),
        ).fetchall()
        for number, text in rows:
            yield int(number), self._read(Answer, text)

    def between(self, name: str, first: int, last: int) -> Iterator[Answer]:
        """Every answer about a scheduler of the corpus, or an installed one, in these nights, the oldest first."""
        rows = self._connection.execute(
            "SELECT answer FROM answers WHERE night BETWEEN ? AND ? AND ran ORDER BY night, subject", (first, last)
        ).fetchall()
        for (text,) in rows:
            found = self._read(Answer, text)
            if found.row.name == name and found.kind in (Kind.CORPUS, Kind.INSTALLED) and not found.named:
                yield found

    def failed(self, night: int) -> list[Failed]:
        """What failed in new orders of events before a night, the oldest first."""
        rows = self._connection.execute(
            "SELECT name, machine, first_seed, seeds FROM failed WHERE night < ? ORDER BY night, name, first_seed",
            (night,),
        ).fetchall()
        return [Failed(*row) for row in rows]

    def facts(self, night: int) -> list[NightFacts]:
        """The nights before one that came to their end, the oldest first."""
        rows = self._connection.execute(
            "SELECT facts FROM nights WHERE night < ? AND facts NOT NULL ORDER BY night DESC LIMIT ?",
            (night, KEEP_FACTS - 1),
        ).fetchall()
        return [self._read(NightFacts, row[0]) for row in reversed(rows)]


def _damaged(file: Path, why: str) -> UsageError:
    return UsageError(
        f"`{file}` is no history of nights, or it is damaged: {why}",
        hint="restore it from a backup, or begin a new history: --history FILE",
    )
