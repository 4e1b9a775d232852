# SPDX-License-Identifier: Apache-2.0
"""A night beside the nights before it: what is not as it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import exp, log

from testbed.corpus import Result
from testbed.nightly.document import Answer, Change, Kind
from testbed.nightly.history import History
from testbed.spec import sha256
from testbed.verdict import Outcome

_RANK = {
    Result.NAMED: 0,
    Result.PASSED: 0,
    Result.OTHERWISE: 1,
    Result.UNCLEAR: 2,
    Result.MISSED: 3,
    Result.FALSE_ALARM: 3,
}
"""How far a result is from what it must be."""


def worse(now: Result, before: Result) -> bool:
    """Whether one result is further from what it must be than another; both are of schedulers that ran."""
    return _RANK[now] > _RANK[before]


class Comparison:
    """One night's answers and their predecessors."""

    def __init__(self, history: History, night: int, answers: Sequence[Answer]) -> None:
        self.answers = [one for one in answers if one.ran]
        self._night = night
        self._history = history
        self._tonight = {one.subject: one for one in answers}
        self._before = {one.subject: self._predecessor(one) for one in self.answers}

    def before(self, answer: Answer) -> tuple[int | None, Answer] | None:
        """What an answer is compared with, and its night; None as the night: it is of this one."""
        return self._before[answer.subject]

    def _predecessor(self, answer: Answer) -> tuple[int | None, Answer] | None:
        found = self._history.earlier(answer.subject, self._night)
        if answer.kind is Kind.AGAIN and found is None:
            fresh = self._history.earlier(answer.model_copy(update={"kind": Kind.FRESH}).subject, self._night)
            return fresh if fresh is not None and fresh[1].first_seed == answer.first_seed else None
        if answer.kind is not Kind.FRESH or found is not None:
            return found
        # The first time: new orders of events must say what the usual ones say.
        for kind in (Kind.CORPUS, Kind.INSTALLED):
            usual = self._tonight.get(answer.model_copy(update={"kind": kind}).subject)
            if usual is not None and usual.ran:
                return None, usual
        return None

    def changes(self) -> list[Change]:
        """Everything that is not as it was, what is worse first."""
        found = [change for one in self.answers for change in (*self._flaky(one), *self._verdict(one))]
        found += [change for one in self.answers for change in self._latencies(one)]
        return sorted(found, key=lambda change: not change.worse)

    def _flaky(self, answer: Answer) -> Iterator[Change]:
        """Under `sim` the same question has one answer."""
        if answer.diverged:
            yield change(
                answer, "flaky", True, "runs of the same inputs are the same", "a repeated run was another one"
            )
        decided = (Outcome.PASS, Outcome.REJECT)
        if not answer.question or answer.row.verdict not in decided:
            return
        for night, other in self._history.answered(answer.question, self._night):
            if other.row.verdict in decided and (said(other), other.latencies) != (said(answer), answer.latencies):
                words = said(answer) if said(other) != said(answer) else f"{said(answer)} with other figures"
                told = f"{words}, and nothing that is recorded had changed"
                yield change(answer, "flaky", True, said(other), told, night)
                return

    def _verdict(self, answer: Answer) -> Iterator[Change]:
        known = self.before(answer)
        if known is None or said(known[1]) == said(answer):
            return
        night, other = known
        # Codes of a false alarm or a miss may change without making it better or worse.
        yield change(answer, "verdict", worse(answer.row.result, other.row.result), said(other), said(answer), night)

    def _latencies(self, answer: Answer) -> Iterator[Change]:
        """Waiting times that differ by more than chance makes them; the orders of events are the same."""
        known = self.before(answer)
        if known is None or answer.kind not in (Kind.CORPUS, Kind.INSTALLED):
            return
        night, other = known
        old = {one.name: one for one in other.latencies}
        for one in answer.latencies:
            before = old.get(one.name)
            if before is None or before.unit != one.unit:
                continue
            noise = max(one.resolution, before.resolution, max(one.floor, before.floor) * min(one.value, before.value))
            if abs(one.value - before.value) > noise:
                old_words, new_words = (f"{one.name}: {value:.5g} {one.unit}" for value in (before.value, one.value))
                slower = one.value > before.value
                yield change(answer, "latency", slower, old_words, new_words, night, figure=one.name)

    def latency_ratio(self) -> float | None:
        """Waiting times now, in those of the same schedulers before."""
        return geometric_mean(
            one.value / before.value
            for answer, other in self._comparable()
            for one in answer.latencies
            for before in other.latencies
            if before.name == one.name and before.unit == one.unit and before.value > 0 and one.value > 0
        )

    def time_ratio(self) -> float | None:
        """What judging took the host now, in what it took for the same schedulers before."""
        return geometric_mean(
            answer.row.elapsed_s / other.row.elapsed_s
            for answer, other in self._comparable()
            if answer.row.elapsed_s > 0 and other.row.elapsed_s > 0
        )

    def _comparable(self) -> Iterator[tuple[Answer, Answer]]:
        for answer in self.answers:
            known = self.before(answer)
            if known is not None and answer.kind in (Kind.CORPUS, Kind.INSTALLED):
                yield answer, known[1]


def change(
    answer: Answer, what: str, worse: bool, before: str, now: str, since: int | None = None, *, figure: str = ""
) -> Change:
    """A change of an answer's subject, or of one figure of it."""
    return Change.model_validate(
        {
            "key": sha256(f"{what}|{answer.subject}|{figure}".encode())[:16],
            "what": what,
            "worse": worse,
            "kind": answer.kind,
            "name": answer.row.name,
            "machine": answer.row.machine,
            "policy": answer.row.policy,
            "image": answer.image,
            "kernel": answer.kernel,
            "first_seed": answer.first_seed,
            "before": before,
            "now": now,
            "since": since,
            "case": answer.row.case,
        }
    )


def said(answer: Answer) -> str:
    """The result with the codes that rejected."""
    row = answer.row
    return f"{row.result} ({', '.join(row.codes)})" if row.codes else str(row.result)


def geometric_mean(ratios: Iterable[float]) -> float | None:
    """None if there are none."""
    logs = [log(one) for one in ratios]
    return round(exp(sum(logs) / len(logs)), 4) if logs else None
