# SPDX-License-Identifier: Apache-2.0
"""Scenario files are checked when they are loaded, with a pointer to the line; and compiled into jobs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed import policy, scenario
from testbed.data import data_directory
from testbed.errors import ScenarioError, UsageError
from testbed.scenario import job_text, parse_job
from testbed.scenario.job import decode_word, encode_word, line
from tests.unit import case_builder  # noqa: F401 - its hypothesis profile

GOOD = """\
schema: testbed.scenario/1
name: tiny
title: a small one
description: what happens
catches: [canary-starved]
needs: {programs: [hackbench]}
limits: {virtual: 120s, wall: 1min, watchdog: 20s, starved: 5s, timeout: 3s}
steps:
  - sysctl: {kernel.watchdog_thresh: 2}
  - write: {path: /sys/x, value: "a b%"}
  - attach: {within: 30s}
  - start: {name: near, kind: canary, cpu: each, nice: -5, period: 5ms}
  - start: {name: hogs, kind: hog, per_cpu: 2}
  - exec: {name: talk, argv: [hackbench, -l, "10", ""]}
  - begin: loaded
  - hold: {at_least: 250ms, timeouts: 1.6}
  - end: loaded
  - wait: {name: talk, within: 2s}
  - stop: [near, hogs]
  - cycle: {times: 2, within: 1s}
  - sleep: 1s
  - health: {within: 1s}
checks:
  - {check: gap, load: near, code: canary-starved}
figures:
  - {name: near.gap.p99, better: lower}
""".replace("  - cycle", "  - detach: {within: 1s}\n  - cycle")


def parse(text: str) -> scenario.Scenario:
    return scenario.parse(text.encode(), "dir/tiny.yaml")


def refused(text: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        parse(text)
    error = caught.value
    return f"{error.message}\n  hint: {error.hint}" if error.hint else error.message


def test_the_kernels_statistics_are_on_for_who_wants_them_only() -> None:
    """They cost each call of a candidate's programs something, and the baseline calls none."""
    wanted = parse(GOOD.replace("near.gap.p99", "loaded.callbacks"))
    jobs = [job_text(one, seed=1, candidate=("none",), kind="object") for one in (wanted, parse(GOOD))]
    assert [parse_job(job).setting("callbacks") for job in jobs] == [("1",), ()]


def test_a_scenario_becomes_a_job() -> None:
    job = job_text(parse(GOOD), seed=42, candidate=("object", "c.bpf.o"), kind="object")
    assert (
        job
        == """\
testbed-job 1
seed 42
limit 256000
watchdog 20000
candidate object c.bpf.o
timeout_ms 3000
starved 5000
sysctl kernel/watchdog_thresh 2
write /sys/x a%20b%25
attach 150000
start near canary cpu=each nice=-5 period_us=5000
start hogs hog count=4
exec talk /usr/bin/hackbench -l 10 %
begin loaded
hold 4800
end loaded
wait talk 2000
stop near hogs
detach 1000
cycle 2 5000
sleep 1000
health 1000
"""
    )


def test_a_program_keeps_its_own_timeout_and_is_held_longer() -> None:
    words = ("program", "bin/scx_qmap", "-t", "5")
    job = parse_job(job_text(parse(GOOD), seed=1, candidate=words, kind="program"))
    assert job.setting("candidate") == words
    assert job.setting("timeout_ms") == ("0",)
    assert ("hold", "8000") in job.steps
    assert job.setting("limit") == (str(256_000 + 8_000 - 4_800),)
    longer = job_text(parse(GOOD), seed=1, candidate=words, kind="program", candidate_timeout_ms=10_000)
    assert ("hold", "16000") in parse_job(longer).steps


def test_the_baseline_runs_the_same_steps() -> None:
    for kind in ("object", "program"):
        one = parse_job(job_text(parse(GOOD), seed=1, candidate=("none",), kind=kind))
        two = parse_job(job_text(parse(GOOD), seed=1, candidate=(kind, "x"), kind=kind))
        assert one.steps == two.steps


def test_cgroups_are_made_entered_and_removed() -> None:
    text = GOOD.replace(
        "  - attach: {within: 30s}\n",
        "  - cgroup: {make: a, files: {cpu.max: 1000 20000}}\n  - attach: {within: 30s}\n",
    )
    text = text.replace("kind: hog, per_cpu: 2}", "kind: hog, per_cpu: 2, cgroup: a}")
    text = text.replace("  - health", "  - cgroup: {remove: a}\n  - health")
    one = parse(text)
    job = parse_job(job_text(one, seed=1, candidate=("none",), kind="object"))
    made = [words for words in job.steps if words[0] == "cgroup"]
    assert made == [("cgroup", "make", "a", "cpu.max=1000 20000"), ("cgroup", "remove", "a")]
    assert ("start", "hogs", "hog", "count=4", "cgroup=a") in job.steps
    assert not one.is_bounded("a")


def test_a_cgroup_below_a_bounded_one_is_bounded() -> None:
    text = GOOD.replace(
        "  - attach: {within: 30s}\n",
        "  - cgroup: {make: a, files: {pids.max: 4}}\n  - cgroup: {make: a/b}\n  - attach: {within: 30s}\n",
    )
    one = parse(text)
    assert (one.is_bounded("a"), one.is_bounded("a/b"), one.is_bounded("ab")) == (True, True, False)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("cgroup: {make: a/b}", "cgroup `a` was not made\n  hint: add `cgroup: {make: a}` before it"),
        ("cgroup: {remove: a}", "cgroup `a` was not made"),
        ("cgroup: {}", "expected one of `make` and `remove`"),
        ("cgroup: {remove: a, files: {cpu.max: 1}}", "`files` belong to `make`"),
        ("cgroup: {make: ../a}", "should match pattern"),
        (
            "start: {name: x, kind: hog, cgroup: a}",
            "cgroup `a` was not made\n  hint: add a step `cgroup: {make: …}` before it",
        ),
    ],
)
def test_a_cgroup_that_is_not_there_is_the_authors_mistake(step: str, message: str) -> None:
    assert message in refused(GOOD.replace("  - attach", f"  - {step}\n  - attach", 1))


def test_a_program_can_be_killed_at_the_end() -> None:
    text = GOOD.replace("detach: {within: 1s}", "detach: {within: 1s, kill: true}")
    job = parse_job(job_text(parse(text), seed=1, candidate=("none",), kind="object"))
    assert ("detach", "1000", "kill") in job.steps


def test_more_cpus_mean_more_load() -> None:
    job = parse_job(job_text(parse(GOOD), seed=1, candidate=("none",), kind="object", cpus=8))
    assert ("start", "hogs", "hog", "count=16") in job.steps


@given(st.text(max_size=60))
def test_words_survive_the_encoding(word: str) -> None:
    if any(0xD800 <= ord(char) <= 0xDFFF for char in word):
        return
    encoded = encode_word(word)
    assert all("!" <= char <= "~" for char in encoded)
    assert decode_word(encoded) == word


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1, max_size=5), max_size=6))
def test_jobs_are_read_back_as_they_were_written(steps: list[list[str]]) -> None:
    steps = [["exec", *words] for words in steps]
    text = "testbed-job 1\nseed 4\n" + "".join(line(*words) for words in steps)
    job = parse_job(text)
    assert [list(words) for words in job.steps] == steps
    assert job.setting("seed") == ("4",)


@given(st.text(max_size=200))
def test_no_text_makes_the_job_parser_do_anything_but_refuse(text: str) -> None:
    try:
        parse_job(text)
    except ValueError:
        return
    assert text.startswith("testbed-job 1\n")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            ("title: a", "titel: a"),
            "dir/tiny.yaml:3: unknown key `titel`\n  hint: did you mean `title`?",
        ),
        (
            ("within: 30s}", "wihtin: 30s}"),
            "dir/tiny.yaml:11: unknown key `wihtin`\n  hint: did you mean `within`?",
        ),
        (
            ("  - detach", "  - dettach"),
            "dir/tiny.yaml:20: unknown key `dettach`\n  hint: did you mean `detach`?",
        ),
        (
            ("kind: canary", "kind: canari"),
            "dir/tiny.yaml:12: `steps.3.start.kind` is `canari`, which is unknown\n  hint: did you mean `canary`?",
        ),
        (
            ("[canary-starved]", "[canary-starve]"),
            "dir/tiny.yaml:5: unknown finding code `canary-starve`\n  hint: did you mean `canary-starved`?",
        ),
        (
            ("[hackbench]}", "[hackbenhc]}"),
            "dir/tiny.yaml:6: the image has no program `hackbenhc`\n  hint: did you mean `hackbench`?",
        ),
        (
            ("within: 30s", "within: 30"),
            "dir/tiny.yaml:11: `steps.2.attach.within`: `30` is not a duration, "
            "expected a number and `ms`, `s` or `min`",
        ),
        (
            ("virtual: 120s", "virtual: 60s"),
            "dir/tiny.yaml:7: the steps may take 84900 ms, more than `limits.virtual` of 60000 ms\n"
            "  hint: raise it to 85s, or shorten a step",
        ),
        (
            ("starved: 5s", "starved: 4s"),
            "dir/tiny.yaml:7: `starved` is 4000 ms, before the kernel's own watchdog has looked\n"
            "  hint: at least 4500ms, 1.5 × `timeout`",
        ),
        (
            ("name: tiny", "name: small"),
            "dir/tiny.yaml:2: `name` is `small`, expected the file's name `tiny`",
        ),
        (
            ("stop: [near, hogs]", "stop: [near, hog]"),
            "dir/tiny.yaml:19: `hog` was not started\n  hint: did you mean `hogs`?",
        ),
        (
            ("  - end: loaded\n", ""),
            "dir/tiny.yaml:8: window `loaded` is never closed\n  hint: add `end: loaded`",
        ),
        (
            ("load: near, code", "load: hogs, code"),
            "dir/tiny.yaml:25: `hogs` has no `gap` to check\n  hint: known: near",
        ),
        (
            ("check: gap, load: near, code", "check: share, load: near, code"),
            "dir/tiny.yaml:25: `near` has no `share` to check\n  hint: known: hogs",
        ),
        (("title: a", "name: tiny\ntitle: a"), "dir/tiny.yaml:3: `name` is given twice"),
        (("title: a small one", "title: &a b"), None),
        (("title: a small one", "title: [a"), "dir/tiny.yaml:4: not YAML: "),
    ],
)
def test_mistakes_are_told_with_line_and_hint(change: tuple[str, str], expected: str | None) -> None:
    assert change[0] in GOOD
    text = GOOD.replace(*change, 1)
    if expected is None:
        parse(text)
    elif expected.endswith(": "):
        assert refused(text).startswith(expected)
    else:
        assert refused(text) == expected


def test_aliases_are_refused() -> None:
    text = GOOD.replace("title: a small one", "title: &a b").replace("description: what happens", "description: *a")
    assert refused(text) == "dir/tiny.yaml:3: anchors and aliases are not allowed"


def test_a_file_that_cannot_be_read_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or directory"):
        scenario.load(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", sorted(scenario.load_all()))
def test_shipped_scenarios_are_sound(name: str) -> None:
    one = scenario.load_all()[name]
    file = data_directory("scenarios") / f"{name}.yaml"
    assert file.read_text().startswith("# SPDX-License-Identifier: Apache-2.0\n")
    holds = sum(
        scenario.hold_ms(step.hold, scenario.effective_timeout_ms(one, "object", None))
        for step in one.steps
        if step.hold
    )
    assert holds <= 12_000 or name == "soak", "a scenario is cheap in guest time; idle time is nearly free"
    verbs = [step.verb for step in one.steps]
    assert verbs[-1] == "health"
    for kind in ("object", "program"):
        parse_job(job_text(one, seed=1, candidate=("none",), kind=kind, cpus=4))


def test_a_stall_shows_within_the_stall_scenario() -> None:
    one = scenario.load_all()["stall"]
    for kind in ("object", "program"):
        job = parse_job(job_text(one, seed=1, candidate=("none",), kind=kind))
        timeout = scenario.effective_timeout_ms(one, kind, None)
        held = next(int(words[1]) for words in job.steps if words[0] == "hold")
        assert held >= 1.6 * timeout


def test_every_demand_of_the_policies_is_a_scenario() -> None:
    known = scenario.load_all()
    for one in policy.load_all().values():
        assert {demand.name for demand in one.scenarios} <= set(known)
