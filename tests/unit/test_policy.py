# SPDX-License-Identifier: Apache-2.0
"""Policies: every number has a reason, and the shipped ones keep their promises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from testbed import policy
from testbed.errors import ScenarioError, UsageError
from testbed.spec import Clock

TEXT = policy.load("default")[1].decode()


def refused(text: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        policy.parse(text.encode(), "p.yaml")
    return f"{caught.value.message} | {caught.value.hint}"


@pytest.mark.parametrize("name", ["quick", "default", "full"])
def test_shipped_policies_require_only_sim(name: str) -> None:
    one, data = policy.load(name)
    assert one.name == name
    assert all(demand.clock is Clock.SIM for demand in one.scenarios if demand.required)
    assert any(demand.required for demand in one.scenarios)
    assert data.startswith(b"# SPDX-License-Identifier: Apache-2.0\n")


def test_quick_is_about_safety_only() -> None:
    one, _ = policy.load("quick")
    assert one.seeds == 1
    assert one.benefit.required == "nothing"
    assert len([demand for demand in one.scenarios if demand.clock is Clock.SIM]) <= 4


def test_a_number_without_a_reason_is_refused() -> None:
    assert refused(re.sub(r"seeds_reason: .*\n", "", TEXT)).startswith("p.yaml:")
    assert "`seeds_reason` is missing" in refused(re.sub(r"seeds_reason: .*\n", "", TEXT))
    assert "reason" in refused(re.sub(r"live_pairs_reason: .*\n", "live_pairs_reason: because\n", TEXT))


def test_an_unknown_word_gets_a_suggestion() -> None:
    assert refused(TEXT.replace("  idle:", "  idel:")).endswith("unknown key `idel` | did you mean `idle`?")
    message = refused(TEXT.replace("clock: sim", "clock: simm", 1))
    assert message.endswith("is `simm`, which is unknown | did you mean `sim`?")


def test_a_demand_is_made_once() -> None:
    twice = TEXT.replace(
        "scenarios:\n", "scenarios:\n  - {name: stall, clock: sim, required: true, reason: said before already}\n"
    )
    assert "`stall` under `sim` is demanded twice" in refused(twice)


def test_an_override_names_a_scenario_of_the_policy() -> None:
    assert "override for `stal`, which the policy does not name | did you mean `stall`?" in refused(
        TEXT.replace("    stall: {gap", "    stal: {gap")
    )


def test_a_promotion_policy_is_no_verdict_policy() -> None:
    assert "this is a `promotion` policy" in refused(TEXT.replace("kind: verdict", "kind: promotion"))


def test_policies_are_found_by_name_or_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        policy.load("defualt")
    assert (caught.value.message, caught.value.hint) == ("there is no policy `defualt`", "did you mean `default`?")
    file = tmp_path / "mine.yaml"
    file.write_text(TEXT)
    assert policy.load(str(file))[0].name == "default"


def test_overrides_apply_to_their_scenario_only() -> None:
    one, _ = policy.load("default")
    assert (one.gap("stall").floor, one.gap("starvation").floor) == (2000, 500)


def test_a_share_of_turns_is_no_finding_for_any_shipped_policy() -> None:
    """Queues without balancing give 1 : 2, and one hog against three that share a CPU has 1 : 3."""
    for one in policy.load_all().values():
        for demand in one.scenarios:
            assert 2 < one.share(demand.name).floor < 3
