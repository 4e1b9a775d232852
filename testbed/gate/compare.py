# SPDX-License-Identifier: Apache-2.0
"""A verdict beside that of the base branch: what this change made worse, and what was bad before."""

from __future__ import annotations

from testbed.gate.document import Change, Document, Entry, State
from testbed.verdict import Outcome, Verdict

_RANK = {Outcome.PASS: 0, Outcome.INCONCLUSIVE: 1, Outcome.REJECT: 2}


def compare(entry: Entry, base: Document | None) -> Entry:
    """The entry with how it compares; what has no verdict compares with nothing."""
    if base is None or entry.verdict is None or entry.state is not State.JUDGED:
        return entry
    same = (one for one in base.candidates if one.path in (entry.path, entry.was) and one.kernel == entry.kernel)
    before = next(same, None)
    if before is None:
        return entry.model_copy(update={"change": Change.NEW})
    if before.verdict is None or not _comparable(before.verdict, entry.verdict):
        return entry.model_copy(update={"change": Change.NOT_COMPARABLE})
    return entry.model_copy(update={"change": _change(before.verdict, entry.verdict), "before": before.verdict.title})


def _comparable(before: Verdict, now: Verdict) -> bool:
    """Whether the same question was asked."""
    return (
        before.policy.sha256 == now.policy.sha256
        and before.tool.judge == now.tool.judge
        and (before.image.id if before.image else "") == (now.image.id if now.image else "")
        and _machines(before) == _machines(now)
    )


def _machines(verdict: Verdict) -> set[tuple[str, str]]:
    """The scenarios and clocks that a verdict tells of."""
    return {(one.name, str(one.clock)) for one in verdict.scenarios}


def _change(before: Verdict, now: Verdict) -> Change:
    worse = _RANK[now.verdict] - _RANK[before.verdict]
    if worse > 0:
        return Change.REGRESSION
    if worse < 0:
        return Change.FIXED
    if now.verdict is Outcome.PASS:
        return Change.SAME
    return Change.BAD_BEFORE if now.title == before.title else Change.REGRESSION
