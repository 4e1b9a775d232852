# SPDX-License-Identifier: Apache-2.0
"""The table of failure modes: complete, and everything that it names exists."""

from __future__ import annotations

import re

from testbed import policy, scenario
from testbed.judge.modes import BESIDE, MODES, page, unseen
from testbed.lint.texts import RULES


def test_the_table_has_every_mode_once() -> None:
    assert [mode.number for mode in MODES] == list(range(1, 46))
    assert len({mode.code for mode in MODES}) == len(MODES)
    assert all(re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", mode.code) for mode in MODES)


def test_scenarios_and_rules_that_it_names_exist() -> None:
    scenarios, rules = set(scenario.load_all()), set(RULES)
    for mode in MODES:
        assert set(mode.scenarios) <= scenarios, mode.code
        assert set(mode.lint) <= rules, mode.code


def test_what_no_guest_can_show_says_why_and_how_else() -> None:
    for mode in MODES:
        if not mode.scenarios:
            assert mode.open, mode.code
            assert mode.how, mode.code


def test_every_scenario_shows_something() -> None:
    named = {name for mode in MODES for name in mode.scenarios}
    assert set(scenario.load_all()) == named | set(BESIDE)
    assert not named & set(BESIDE)


def test_the_full_policy_demands_every_scenario_that_shows_something() -> None:
    full = {demand.name for demand in policy.load_all()["full"].scenarios}
    assert {name for mode in MODES for name in mode.scenarios} <= full


def test_what_ran_is_not_unseen() -> None:
    left = [mode.code for mode in unseen(frozenset(("rt-hog",)))]
    assert "real-time-hog-blamed" not in left
    assert "endless-slice" not in left
    assert "suspend" in left
    everything = frozenset(scenario.load_all())
    assert {mode.code for mode in unseen(everything)} == {mode.code for mode in MODES if not mode.scenarios}


def test_the_page_has_a_row_for_each() -> None:
    rows = [line for line in page().splitlines() if re.match(r"\| \d+ \|", line)]
    assert len(rows) == len(MODES)
    assert all(row.count(" | ") == 5 for row in rows)
