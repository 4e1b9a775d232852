# SPDX-License-Identifier: Apache-2.0
"""The noise floor: what chance makes is neither better nor worse, and a loss of 5 % is found all the same."""

from __future__ import annotations

import random
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import noise_floor
from testbed import policy, scenario
from testbed.errors import ScenarioError
from testbed.judge import judge, noise
from testbed.spec import Clock, Role, RunSpec, Topology
from testbed.stats import agreement, chance_floor, compare, pairs_agree, power, share, sign_test
from testbed.yamlfile import Document
from tests.unit.case_builder import CaseBuilder, Script
from tests.unit.noise_table import TABLE

ROOT = Path(__file__).resolve().parents[2]
TRUE_LOSS = noise_floor.TRUE_LOSS
POSITIVE = st.floats(0.1, 1e6)


def spec(**changes: object) -> RunSpec:
    values = {
        "number": 0,
        "role": Role.CANDIDATE,
        "scenario": "crawl",
        "clock": Clock.SIM,
        "topology": Topology(cpus=2, memory_mb=512),
        "seed": 0,
        "job": "",
        "files": "f",
        "image": "i",
        "wall_limit_s": 60,
    }
    return RunSpec.model_validate({**values, **changes})


def chance(generator: random.Random, spread: float, runs: int = 10) -> list[float]:
    """Differences between runs that differ by chance alone."""
    values = [generator.gauss(100, 100 * spread) for _ in range(runs)]
    return [share(one, two) for one, two in combinations(values, 2)]


# --- shares and floors ---------------------------------------------------------------------------------------


@given(POSITIVE, POSITIVE)
def test_a_share_turns_its_sign_with_the_sides(first: float, second: float) -> None:
    assert share(first, second) == -share(second, first)


def test_a_share_is_of_the_smaller_value() -> None:
    assert share(105, 100) == pytest.approx(0.05)
    assert share(100, 105) == pytest.approx(-0.05)
    assert share(0, 0) == 0
    assert share(0, 1) == float("-inf")


def test_the_floor_of_one_run_is_about_the_largest_difference_seen() -> None:
    assert chance_floor([0.01, -0.02, 0.03], 1) == 0.03
    assert chance_floor([0.01] * 990 + [0.5] * 10, 1) == 0.01  # one in a hundred may be larger
    assert chance_floor([0.01] * 989 + [0.5] * 11, 1) == 0.5


def test_the_floor_of_three_runs_is_the_binomial_one() -> None:
    # Two of three must be beyond, to one side: 2 * (3 q^2 - 2 q^3) is below 1 % for q = 0.04 and not for q = 0.05.
    assert chance_floor([0.01] * 92 + [0.5] * 8, 3) == 0.01
    assert chance_floor([0.01] * 90 + [0.5] * 10, 3) == 0.5


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40))
def test_the_floor_never_rises_with_the_number_of_pairs(differences: list[float]) -> None:
    floors = [chance_floor(differences, count) for count in noise_floor.PAIRS]
    assert floors == sorted(floors, reverse=True)
    assert floors[0] <= max(abs(one) for one in differences)


def test_chance_stays_below_its_floor_in_99_of_100_cases() -> None:
    generator = random.Random(1)
    known = chance(generator, 0.02, runs=20)
    for count in (1, 5, 9):
        floor = chance_floor(known, count)
        above = sum(
            abs(sorted(generator.choice((1, -1)) * generator.choice(known) for _ in range(count))[count // 2]) > floor
            for _ in range(1000)
        )
        assert above <= 20


def test_a_true_loss_is_found_as_often_as_foretold() -> None:
    generator = random.Random(2)
    known = chance(generator, 0.02, runs=20)
    count = 15
    floor = chance_floor(known, count)
    foretold = power(known, TRUE_LOSS, floor, count)
    found = 0
    for _ in range(1000):
        pairs = [1 + TRUE_LOSS + generator.choice((1, -1)) * generator.choice(known) for _ in range(count)]
        found += compare([1.0] * count, pairs, better="higher", floor=floor, noise=False) == "worse"
    assert found / 1000 == pytest.approx(foretold, abs=0.03)
    assert foretold > 0.9
    assert power(known, TRUE_LOSS, chance_floor(known, 1), 1) < 0.5  # one run finds it sometimes


def test_so_many_pairs_must_agree_that_a_sign_test_would_say_so() -> None:
    assert [agreement(count) for count in range(1, 11)] == [1, 2, 3, 4, 5, 6, 7, 8, 8, 9]
    for count in range(6, 30):
        needed = agreement(count)
        values = [1.0] * needed + [-1.0] * (count - needed)
        assert sign_test(values, [0.0] * count) <= 0.05
        assert pairs_agree(values, [0.0] * count)
        assert sign_test([-1.0, *values[1:]], [0.0] * count) > 0.05
        assert not pairs_agree([-1.0, *values[1:]], [0.0] * count)


def test_one_pair_that_disagrees_does_not_hide_a_loss_in_ten() -> None:
    baseline = [100.0] * 10
    assert compare([94.0] * 9 + [101.0], baseline, better="higher", floor=0.03, noise=False) == "worse"
    assert (
        compare([94.0] * 8 + [101.0] * 2, baseline, better="higher", floor=0.03, noise=False) == "not distinguishable"
    )


# --- the table -----------------------------------------------------------------------------------------------


def test_the_table_knows_every_figure_that_default_looks_at_and_none_that_is_not_there() -> None:
    scenarios = scenario.load_all()
    there = {(one.name, str(one.topology), figure.name) for one in scenarios.values() for figure in one.figures}
    known = {(one.scenario, one.machine, one.figure) for one in noise.load().floors}
    usual = {demand.name for demand in policy.load("default")[0].scenarios}
    assert {one for one in there if one[0] in usual} <= known <= there, "run `benchmarks/noise_floor.py --write`"


def test_floors_fall_and_the_table_says_what_finds_five_percent() -> None:
    for one in noise.load().floors:
        floors = [one.shares[count] for count in sorted(one.shares)]
        assert floors == sorted(floors, reverse=True)
        assert one.finds is None or one.over(one.finds) < TRUE_LOSS
        assert set(one.runs) <= set(noise_floor.SAMPLES)
        assert one.noisiest in one.runs


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "noise.yaml"
    noise.write(TABLE, path)
    assert Document(path.read_bytes(), str(path)).model(noise.Noise) == TABLE
    assert path.read_text().startswith(f"{noise.HEADER}schema: testbed.noise/1")


def test_a_table_without_its_floors_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"noise\.yaml:1: `image` is missing"):
        Document(b"schema: testbed.noise/1\n", "noise.yaml").model(noise.Noise)


def test_a_floor_is_that_of_the_next_smaller_number_of_pairs() -> None:
    found = [TABLE.floor(spec(), "hogs.work", "iterations/s", pairs) for pairs in (0, 1, 2, 3, 8, 9, 100)]
    assert found == [0.06, 0.06, 0.06, 0.04, 0.04, 0.02, 0.02]


@pytest.mark.parametrize(
    "changes",
    [
        {"scenario": "mine"},
        {"topology": Topology(cpus=4, memory_mb=512)},
        {"parallel_quantum": 5000},
        {"icount_shift": 0},
    ],
)
def test_what_was_not_measured_is_as_noisy_as_the_noisiest_of_its_unit(changes: dict[str, object]) -> None:
    assert TABLE.floor(spec(**changes), "hogs.work", "iterations/s", 1) == 0.08
    assert TABLE.floor(spec(**changes), "hogs.work", "iterations/s", 3) == 0.04
    assert TABLE.floor(spec(**changes), "frames", "frames/s", 1) == 0.1


def test_more_memory_is_no_other_machine_and_live_has_no_floor() -> None:
    more = spec(topology=Topology(cpus=2, memory_mb=1024))
    assert TABLE.floor(more, "hogs.work", "iterations/s", 1) == 0.06
    assert TABLE.floor(spec(clock=Clock.LIVE), "hogs.work", "iterations/s", 1) == 0.0


# --- a verdict -----------------------------------------------------------------------------------------------


def judged(builder: CaseBuilder, monkeypatch: pytest.MonkeyPatch, values: list[float]) -> tuple[str, float]:
    """How `hogs.work` of crawl is judged, over so many seeds, and by which floor; the baseline does 1e6."""
    monkeypatch.setattr(noise, "load", lambda: TABLE)
    builder.demand("crawl")
    for seed, value in enumerate(values):
        builder.run("crawl", role=Role.BASELINE, seed=seed)
        builder.run("crawl", Script(figures={"hogs.work": value}), seed=seed)
    figures = judge(builder.finish()).benefit.figures
    found = next(figure for figure in figures if figure.name == "hogs.work")
    return found.judgement, found.floor


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([950_000], ("not distinguishable", 0.06)),  # one seed does not find 5 %
        ([940_000], ("worse", 0.06)),
        ([950_000, 960_000, 940_000], ("worse", 0.04)),
        ([950_000, 940_000, 1_010_000], ("not distinguishable", 0.04)),  # one of three disagrees
        ([970_000] * 9, ("worse", 0.02)),
        ([985_000] * 9, ("not distinguishable", 0.02)),
        ([1_050_000] * 8 + [990_000], ("better", 0.02)),
    ],
)
def test_a_verdict_follows_the_floor_of_its_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: list[float], expected: tuple[str, float]
) -> None:
    assert judged(CaseBuilder(tmp_path / "case"), monkeypatch, values) == expected


# --- the benchmark -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in noise_floor.SAMPLES if name != noise_floor.EEVDF])
def test_variants_differ_and_keep_every_callback(name: str) -> None:
    source = (ROOT / f"bpf/good/{name}.bpf.c").read_text()
    made = noise_floor.variants(source, name)
    assert len(made) >= noise_floor.SAMPLES[name][0]
    assert len(set(made.values())) == len(made)
    for text in made.values():
        assert text.count("BPF_STRUCT_OPS") == source.count("BPF_STRUCT_OPS")
        assert len(text) >= len(source)


def sample(variant: int, seed: int, value: float, scheduler: str = "global_fifo", **changes: str) -> noise_floor.Sample:
    known = {"figure": "hogs.work", "unit": "iterations/s", **changes}
    return noise_floor.Sample(scheduler, str(variant), spec(seed=seed), known["figure"], known["unit"], value)


def test_only_runs_of_one_scheduler_and_seed_are_compared() -> None:
    known = [sample(variant, seed, 100 + variant + 1000 * seed) for variant in range(2) for seed in range(2)]
    known += [sample(variant, 0, 50.0 + variant, scheduler="EEVDF") for variant in range(2)]
    floor = noise_floor.floor(known)
    assert floor.runs == {"global_fifo": 4, "EEVDF": 2}
    assert (floor.shares[1], floor.noisiest, floor.finds) == (0.02, "EEVDF", 1)
    assert noise_floor.held(known, floor) == "0 of 2"


def test_a_step_of_the_clock_or_of_the_histogram_is_no_difference() -> None:
    near = [sample(variant, 0, 20 + 9 * variant, figure="a.gap.p50", unit="us") for variant in range(2)]
    floor = noise_floor.floor(near)
    assert set(floor.shares.values()) == {noise_floor.BUCKET}
    assert floor.finds is None


def test_a_figure_without_two_variants_of_a_seed_is_named() -> None:
    with pytest.raises(SystemExit, match=r"crawl: hogs\.work: no two variants were run under the same seed"):
        noise_floor.floor([sample(0, 0, 1.0), sample(1, 1, 1.0)])
