# SPDX-License-Identifier: Apache-2.0
"""The gate: all candidates of a repository, the changed ones judged, one answer (docs/reference/gate.md)."""

from __future__ import annotations

from testbed.gate.config import Config
from testbed.gate.document import Document, Entry, State
from testbed.gate.merge import merge
from testbed.gate.session import Session, Settings
from testbed.gate.survey import Survey, survey

__all__ = ["Config", "Document", "Entry", "Session", "Settings", "State", "Survey", "merge", "survey"]
