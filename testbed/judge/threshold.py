# SPDX-License-Identifier: Apache-2.0
"""What the threshold checks share: a figure on both sides, and the excuse where the baseline crosses too."""

from __future__ import annotations

from testbed.judge.view import Metric, View
from testbed.scenario.model import Check
from testbed.verdict import Finding


def missing(view: View, check: Check, what: str) -> Finding:
    """The check's load left no figure."""
    return view.found(
        "not-measured",
        f"check `{check.check}` of `{check.load}`: the run has no figure for {what}",
        [view.outcome_ref()],
    )


def no_baseline(view: View, check: Check, metric: Metric) -> Finding:
    """There is nothing to compare the figure with."""
    return view.found(
        "no-baseline", f"check `{check.check}` of `{check.load}`: the baseline has no figure", [metric.ref]
    )


def excused(view: View, check: Check, words: str, metric: Metric, other: Metric) -> Finding:
    """EEVDF crosses the same threshold under the same conditions: the machine is measured, not the scheduler."""
    return view.found(
        "baseline-crosses-too",
        f"check `{check.check}` of `{check.load}` (`{check.code}`): {words}",
        [metric.ref, other.ref],
    )
