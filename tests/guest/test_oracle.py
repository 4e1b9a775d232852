# SPDX-License-Identifier: Apache-2.0
"""The guest's oracle on real guests: it agrees with what loads say, and its record tells what led to a stall."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.topologies import boot
from testbed.case import Event, RunEvidence, read_run
from testbed.image import Image
from testbed.topology import preset
from tests.guest.conftest import testbed

JOB = (
    "testbed-job 1\nseed 3\nlimit 60000\nwatchdog 20000\ncandidate none\n"
    "start pinned hog count=2 cpu=1\nstart near canary cpu=1\nstart forks fork count=1\n"
    "begin busy\nsleep 600\nend busy\nstop pinned near forks\n"
)


def records(run: RunEvidence) -> list[list[int]]:
    """The record of a run, with ns in place of µs after a line's begin."""
    return [
        [event.integer("base") + 1000 * record[0], *record[1:]]
        for event in run.stream.of("trace")
        for record in listed(event, "r")
    ]


def listed(event: Event, key: str) -> list[Any]:
    found = event.fields[key]
    assert isinstance(found, list)
    return found


def test_it_agrees_with_what_loads_and_the_kernel_say(image: Image, tmp_path: Path) -> None:
    run = boot(image, preset("two"), JOB, tmp_path / "run").evidence
    assert not run.stream.of("tampered")
    watching = run.stream.first("oracle")
    assert watching is not None
    assert watching.flag("ok"), watching.fields
    measured = {
        (event.text("load"), event.text("name"), event.text("stat"), event.integer("task")): event.number("value")
        for event in run.stream.of("measure")
        if event.text("window") == "busy" or event.text("load") == "busy"
    }
    # the sleeper's own view has its way to the clock in it, and each side rounds up by a sixteenth
    told, seen = measured["near", "gap", "max", 0], measured["near", "wait", "max", -1]
    assert abs(told - seen) < told / 10 + 200
    # two hogs have one CPU for themselves, and share it
    one, two = (measured["pinned", "cputime", "", task] for task in (0, 1))
    assert 0.8 < one / two < 1.25
    assert 0.85 < (one + two) / measured["busy", "duration", "", 0] <= 1
    assert measured["pinned", "migrations", "", -1] == 0
    # a hog that may not run on the other CPU is no reason for that one not to idle
    assert measured["busy", "wasted", "", -1] < 0.15
    # whoever a load forks is of the load
    assert measured["forks", "runs", "", -1] > 1.5 * measured["forks", "forks", "", 0] > 0


def test_its_record_is_whole_and_in_order(image: Image, tmp_path: Path) -> None:
    run = boot(image, preset("two"), JOB, tmp_path / "run").evidence
    found = records(run)
    assert 300 < len(found) <= 1000, "the tail of a run that went well"
    assert all(one[0] <= two[0] + 1000 for one, two in pairwise(found)), "each is rounded to a µs"
    on: dict[int, int] = {}
    for record in found:
        if len(record) == 5:
            _, cpu, pid, left, then = record
            assert on.get(cpu, pid) == pid, "who leaves a CPU is who came to it"
            assert left in (0, 1, 2)
            on[cpu] = then
    names = {pid: (comm, kthread) for event in run.stream.of("names") for pid, comm, kthread in listed(event, "tasks")}
    switched = {pid for record in found if len(record) == 5 for pid in (record[2], record[4]) if pid}
    assert switched <= names.keys()
    tasks = {event.integer("pid"): event.text("comm") for event in run.stream.of("task")}
    assert all(names[pid] == (comm, 0) for pid, comm in tasks.items() if pid in names)
    assert any(kthread for _, kthread in names.values())


def test_what_led_to_a_stall_is_told(image: Image, tmp_path: Path) -> None:
    bad = "bpf/bad/drops_one_process.bpf.c"
    answer = testbed(tmp_path, bad, "--policy", "quick", "--clock", "sim", "-k", "first-look", "-j", "1")
    assert answer.failures == {"runnable-task-stall"}, answer.about()
    runs = [read_run(place) for place in sorted((answer.case / "runs").iterdir())]
    run = next(run for run in runs if run.spec.candidate)
    left = run.stream.first("exit")
    assert left is not None
    lost = int(left.text("message").partition("[")[2].partition("]")[0])
    found = records(run)
    assert len(found) > 1000
    assert found[-1][0] <= left.t, "it stands still when the scheduler is thrown out"
    assert not any(lost in (record[4:5] or [0]) for record in found[-1000:]), "who was dropped did not run at the end"
