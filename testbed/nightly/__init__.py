# SPDX-License-Identifier: Apache-2.0
"""A night: the corpus and the installed schedulers judged again, and compared with the nights before."""

from __future__ import annotations

from testbed.nightly.document import Answer, Asked, Change, Document, Kind, NightFacts
from testbed.nightly.history import History
from testbed.nightly.session import Session, Settings, installed

__all__ = [
    "Answer",
    "Asked",
    "Change",
    "Document",
    "History",
    "Kind",
    "NightFacts",
    "Session",
    "Settings",
    "installed",
]
