# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C ends the work, whatever the main thread is doing when it comes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from testbed.cli import run


@pytest.fixture
def cancelled() -> Iterator[threading.Event]:
    """An event that is set by a signal."""
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    event = threading.Event()
    run.cancel_on_signal(event)
    yield event
    for number, handler in before:
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels(cancelled: threading.Event, number: signal.Signals) -> None:
    assert not cancelled.is_set()
    signal.raise_signal(number)
    assert cancelled.wait(10)


def test_a_handler_waits_for_no_lock_that_it_has_interrupted(cancelled: threading.Event) -> None:
    with cancelled._cond:  # type: ignore[attr-defined]  # where the main thread is for a moment in `wait()` and `set()`
        signal.raise_signal(signal.SIGINT)
        assert not cancelled.is_set()
    assert cancelled.wait(10)


def test_two_signals_at_once_are_one(cancelled: threading.Event) -> None:
    for _ in range(3):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert cancelled.wait(10)


def test_a_later_signal_ends_the_work_at_once(cancelled: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_SAME_SIGNAL_S", 0.0)
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert cancelled.wait(10)
