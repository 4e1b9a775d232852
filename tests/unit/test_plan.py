# SPDX-License-Identifier: Apache-2.0
"""The plan: which guests are booted, in which order, and what is said of those that are not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from testbed import policy, scenario
from testbed.errors import UsageError
from testbed.plan import Attached, Question, plan, select
from testbed.spec import Clock, Role, Topology


def question(**changes: Any) -> Question:
    demanded, _ = policy.load("quick")
    base = Question(
        policy=demanded,
        scenarios=scenario.load_all(),
        candidate="c" * 64,
        words=("object", "candidate.bpf.o"),
        timeout_ms=None,
        clocks=frozenset({Clock.SIM}),
        pattern=None,
        machine=None,
        files="f" * 64,
        baseline_files="b" * 64,
        image="i" * 64,
        seeds=demanded.seeds,
    )
    return dataclasses.replace(base, **changes)


def test_every_candidate_run_has_a_baseline_with_the_same_seed_topology_and_steps() -> None:
    specs = plan(question()).specs
    assert specs
    for candidate, baseline in zip(specs[::2], specs[1::2], strict=True):
        assert (candidate.role, baseline.role) == (Role.CANDIDATE, Role.BASELINE)
        assert candidate.scenario == baseline.scenario
        assert (candidate.seed, candidate.topology) == (baseline.seed, baseline.topology)
        assert (candidate.candidate, baseline.candidate) == ("c" * 64, "")
        steps = [line for line in candidate.job.splitlines() if not line.startswith("candidate ")]
        assert steps == [line for line in baseline.job.splitlines() if not line.startswith("candidate ")]


def test_runs_are_numbered_from_zero_without_gaps() -> None:
    assert [spec.number for spec in plan(question()).specs] == list(range(len(plan(question()).specs)))


def test_a_clock_that_was_not_asked_for_is_named_with_its_reason() -> None:
    left_out = plan(question()).not_run
    assert {(one.clock, one.reason) for one in left_out} == {(Clock.LIVE, "clock `live` was not asked for")}


def test_a_deselected_scenario_is_named_with_its_reason() -> None:
    planned = plan(question(pattern="starv"))
    assert {spec.scenario for spec in planned.specs} == {"starvation"}
    assert ("stall", "deselected by -k") in {(one.scenario, one.reason) for one in planned.not_run}


@pytest.mark.parametrize(("kind", "left_out"), [("object", "loader-killed"), ("program", "second-scheduler")])
def test_a_scenario_for_another_kind_of_candidate_is_not_run(kind: str, left_out: str) -> None:
    demanded, _ = policy.load("full")
    planned = plan(question(policy=demanded, words=(kind, "x")))
    reasons = {one.scenario: one.reason for one in planned.not_run if "kind" in one.reason}
    assert reasons == {left_out: f"is for candidates of the kind `{'program' if kind == 'object' else 'object'}`"}


def test_a_pattern_without_a_match_is_the_callers_mistake() -> None:
    with pytest.raises(UsageError, match="`-k nothing` matches no scenario"):
        plan(question(pattern="nothing"))


@pytest.mark.parametrize(
    ("pattern", "found"),
    [(None, {"stall", "crawl"}), ("st", {"stall"}), ("*l", {"stall", "crawl"}), ("crawl", {"crawl"})],
)
def test_a_pattern_is_a_glob_or_a_part_of_the_name(pattern: str | None, found: set[str]) -> None:
    assert select(["stall", "crawl"], pattern) == found


def test_live_runs_alternate_between_candidate_and_baseline_with_one_seed() -> None:
    demanded, _ = policy.load("quick")
    live = [spec for spec in plan(question(clocks=frozenset(Clock))).specs if spec.clock is Clock.LIVE]
    assert [spec.role for spec in live] == [Role.CANDIDATE, Role.BASELINE] * demanded.live_pairs
    assert len({spec.seed for spec in live}) == 1


def test_cpus_override_the_scenarios_topology_in_spec_and_job() -> None:
    for spec in plan(question(machine=Topology(cpus=4, memory_mb=512))).specs:
        assert spec.topology.cpus == 4


def test_orders_of_events_may_begin_with_another_one_than_the_first() -> None:
    sim = {spec.seed for spec in plan(question(seeds=3, first_seed=2000)).specs if spec.clock is Clock.SIM}
    assert sim == {2000, 2001, 2002}
    live = plan(question(seeds=3, first_seed=2000, clocks=frozenset({Clock.LIVE}))).specs
    assert {spec.seed for spec in live} == {0}


CONTROLS = (
    Attached("d" * 64, ("object", "candidate.bpf.o"), None, "1" * 64),
    Attached("e" * 64, ("object", "candidate.bpf.o"), 5000, "2" * 64),
)


def with_controls(**changes: Any) -> Question:
    return question(controls=CONTROLS, control_scenario="first-look", **changes)


def test_controls_run_once_behind_the_first_round_on_the_candidates_machine() -> None:
    machine = Topology(cpus=4, memory_mb=512)
    specs = plan(with_controls(seeds=3, machine=machine)).specs
    assert [spec.number for spec in specs] == list(range(len(specs)))
    places = [place for place, spec in enumerate(specs) if spec.role is Role.CONTROL]
    assert places == [6, 7], "three seeds of candidate and EEVDF come first"
    found = [specs[place] for place in places]
    assert [(one.candidate, one.files) for one in found] == [("d" * 64, "1" * 64), ("e" * 64, "2" * 64)]
    assert {(one.scenario, one.clock, one.seed, one.topology.cpus) for one in found} == {
        ("first-look", Clock.SIM, 0, 4)
    }


def test_controls_have_the_clock_that_there_is() -> None:
    found = [one for one in plan(with_controls(clocks=frozenset({Clock.LIVE}))).specs if one.role is Role.CONTROL]
    assert [one.clock for one in found] == [Clock.LIVE, Clock.LIVE]
    assert (
        len(plan(with_controls(clocks=frozenset(Clock))).specs)
        == len(plan(question(clocks=frozenset(Clock))).specs) + 2
    )


def test_where_nothing_runs_no_control_runs() -> None:
    demanded = question().policy
    live_only = demanded.model_copy(
        update={"scenarios": tuple(one for one in demanded.scenarios if one.clock is Clock.LIVE)}
    )
    assert plan(with_controls(policy=live_only)).specs == ()
