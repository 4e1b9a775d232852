# SPDX-License-Identifier: Apache-2.0
"""From statuses to a verdict: one table, read from top to bottom, the first row that applies decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from testbed.verdict import Outcome


@dataclass(frozen=True)
class Facts:
    """What a verdict depends on, and nothing else.

    Attributes:
        control_surprised: a control got another answer than the known one.
        build_failed: the candidate does not compile, or the build stage found something that rejects it.
        confirmed_fail: a run FAILed and its repetition FAILed too, in any demanded scenario, required or not.
        required_error: a required scenario, or the build stage, ended as ERROR.
        required_miss: a required scenario did not run, was deselected, or was cut short.
        interrupted: the user ended the case.
        reference_failed: what figures are compared with, if not EEVDF, failed in a required scenario.
    """

    control_surprised: bool = False
    build_failed: bool = False
    confirmed_fail: bool = False
    required_error: bool = False
    required_miss: bool = False
    interrupted: bool = False
    reference_failed: bool = False


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    when: str
    applies: Callable[[Facts], bool]
    outcome: Outcome
    because: str


REFERENCE_FAILED = Row(
    "what figures are compared with (`--baseline`) failed in a required scenario",
    lambda facts: facts.reference_failed,
    Outcome.INCONCLUSIVE,
    "the comparison that was asked for was not made; what is said of safety holds",
)

ROWS = (
    Row(
        "a control surprised",
        lambda facts: facts.control_surprised,
        Outcome.INCONCLUSIVE,
        "a testbed that gets known answers wrong has nothing to say about unknown ones",
    ),
    Row(
        "the build stage found a FAIL",
        lambda facts: facts.build_failed,
        Outcome.REJECT,
        "what does not build can't be loaded; compiling is deterministic, so nothing has to be repeated",
    ),
    Row(
        "a run FAILed, and FAILed again when it was repeated",
        lambda facts: facts.confirmed_fail,
        Outcome.REJECT,
        "a confirmed fault of the candidate beats everything that is merely unknown, under either clock",
    ),
    Row(
        "the user ended it",
        lambda facts: facts.interrupted,
        Outcome.INCONCLUSIVE,
        "what was not run may hold the fault; the exit code is 130",
    ),
    Row(
        "a required scenario is ERROR",
        lambda facts: facts.required_error,
        Outcome.INCONCLUSIVE,
        "the test broke: harness, guest or host",
    ),
    Row(
        "a required scenario is MISS",
        lambda facts: facts.required_miss,
        Outcome.INCONCLUSIVE,
        "it did not run, was deselected, or was cut short; MISS is never PASS",
    ),
    REFERENCE_FAILED,
    Row(
        "otherwise: every required scenario is PASS, DONE or SKIP",
        lambda _: True,
        Outcome.PASS,
        "everything that the policy requires ran, and nothing was found",
    ),
)


def decide(facts: Facts) -> Row:
    """The first row that applies."""
    return next(row for row in ROWS if row.applies(facts))


def page() -> str:
    """The table as a page of the documentation."""
    lines = [
        "<!-- Generated from testbed/judge/truth_table.py by `python -m testbed.judge.docs --write`. -->",
        "",
        "# From statuses to a verdict",
        "",
        "Read from top to bottom; the first row that applies decides.",
        "",
        "| # | when | verdict | exit code | because |",
        "|---|---|---|---|---|",
    ]
    for number, row in enumerate(ROWS, start=1):
        lines.append(f"| {number} | {row.when} | `{row.outcome}` | {row.outcome.exit_code:d} | {row.because} |")
    lines += [
        "",
        "An interrupted case exits with 130 whatever its verdict says, and is never `pass`.",
        "",
        "## From runs to a scenario",
        "",
        "A scenario under a clock has the worst status of its runs: FAIL > ERROR > MISS > PASS > DONE > SKIP.",
        "",
        "| what happened | status of the scenario |",
        "|---|---|",
        "| a run FAILed, and its repetition FAILed | FAIL |",
        "| a run FAILed, and its repetition did not, or was not made | ERROR, finding `not-reproduced` |",
        "| a threshold is crossed, and the baseline crosses it too | ERROR, finding `baseline-crosses-too` |",
        "| ejection, panic, lock-up, tampering | FAIL, whatever the baseline did |",
        "| the run without the candidate failed | ERROR, finding `baseline-failed` |",
        "| the run of what figures are compared with failed | none by it, finding `reference-failed` |",
        "| guest lost before the candidate was being attached, paused, killed, over its wall-clock limit | ERROR |",
        "| no run, or fewer seeds than the policy wants; deselected by an option | MISS |",
        "| the candidate was not built, so nothing could run | SKIP |",
        "| it ran, and nothing was found | PASS |",
        "",
        "An optional scenario that is ERROR or MISS is listed under `not_checked` and decides nothing; an optional one",
        "that is FAIL rejects. Scenarios that the policy does not name are not looked at.",
        "",
    ]
    return "\n".join(lines)
