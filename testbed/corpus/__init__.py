# SPDX-License-Identifier: Apache-2.0
"""The corpus: schedulers of which the right verdict is known, judged, and what that says about the gate."""

from __future__ import annotations

from testbed.corpus.classes import CLASSES, FailureClass
from testbed.corpus.document import Asked, Document, Result, Row, Table
from testbed.corpus.header import Header
from testbed.corpus.members import Member, Origin, build_program, members, usual_folder
from testbed.corpus.session import Session, Settings, Task, tasks

__all__ = [
    "CLASSES",
    "Asked",
    "Document",
    "FailureClass",
    "Header",
    "Member",
    "Origin",
    "Result",
    "Row",
    "Session",
    "Settings",
    "Table",
    "Task",
    "build_program",
    "members",
    "tasks",
    "usual_folder",
]
