# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a scenario that its model, which sees one value at a time, can't see."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from testbed.scenario.job import WATCHDOG_SLACK, step_limit_ms
from testbed.scenario.model import CLASSES, GAP_KINDS, PROGRAMS, THROUGHPUT, Scenario
from testbed.yamlfile import did_you_mean

Mistake = tuple[tuple[str | int, ...], str, str]


def mistakes(scenario: Scenario, stem: str) -> Iterator[Mistake]:
    """What a model of single values can't see: place, message, hint; `stem` is the name that it must have."""
    from testbed.judge.catalogue import CODES

    if scenario.name != stem:
        yield ("name",), f"`name` is `{scenario.name}`, expected the file's name `{stem}`", ""
    for index, code in enumerate(scenario.catches):
        if code not in CODES:
            yield ("catches", index), f"unknown finding code `{code}`", did_you_mean(code, CODES)
    for index, program in enumerate(scenario.needs.programs):
        if program not in PROGRAMS:
            yield (
                ("needs", "programs", index),
                f"the image has no program `{program}`",
                did_you_mean(program, PROGRAMS),
            )
    yield from _step_mistakes(scenario)
    yield from _group_mistakes(scenario)
    yield from _reference_mistakes(scenario, CODES)
    yield from _limit_mistakes(scenario)


def _step_mistakes(scenario: Scenario) -> Iterator[Mistake]:
    started: set[str] = set()
    executed: set[str] = set()
    open_windows: list[str] = []
    attached = False
    for index, step in enumerate(scenario.steps):
        place = ("steps", index, step.verb)
        match step.verb, step.value:
            case (("start" | "exec"), value):
                if value.name in started | executed or value.name in scenario.windows():
                    yield (*place, "name"), f"`{value.name}` is used twice", "names of loads are unique"
                (started if step.start else executed).add(value.name)
                if step.exec and not step.exec.is_given:
                    program = Path(value.argv[0]).name
                    if program not in PROGRAMS:
                        yield (
                            (*place, "argv"),
                            f"the image has no program `{program}`",
                            did_you_mean(program, PROGRAMS),
                        )
                    elif program not in scenario.needs.programs:
                        yield (*place, "argv"), f"`{program}` is not among `needs.programs`", ""
            case "wait", value:
                if value.name not in executed:
                    yield (*place, "name"), f"`{value.name}` was not started by `exec`", ""
            case "stop", names:
                for position, name in enumerate(names):
                    if name not in started | executed:
                        yield (
                            (*place, position),
                            f"`{name}` was not started",
                            did_you_mean(name, started | executed) if started | executed else "",
                        )
            case "begin", name:
                if open_windows:
                    yield place, f"window `{open_windows[0]}` is still open", "one window at a time"
                open_windows.append(name)
            case "end", name:
                if name not in open_windows:
                    yield place, f"window `{name}` is not open", ""
                else:
                    open_windows.remove(name)
            case (("attach" | "cycle"), _):
                if attached:
                    yield place, f"`{step.verb}` while attached", "`detach` first"
                attached = step.verb == "attach"
            case "detach", _:
                if not attached:
                    yield place, "`detach` without `attach`", ""
                attached = False
            case "cpu", value:
                present = scenario.topology.cpus
                if value.which != "others" and value.which >= present:
                    yield (*place, value.how), f"there is no CPU {value.which}", f"the machine has {present}, from 0"
            case "sysctl", values:
                for name in values:
                    if not re.fullmatch(r"[a-z0-9_]+([./][a-z0-9_]+)+", name):
                        yield (*place, name), f"`{name}` is not the name of a sysctl", ""
            case _:
                pass
    if open_windows:
        yield ("steps",), f"window `{open_windows[0]}` is never closed", f"add `end: {open_windows[0]}`"


def _group_mistakes(scenario: Scenario) -> Iterator[Mistake]:
    """Cgroups that are used, removed or made below another one, and are not there."""
    groups: set[str] = set()
    for index, step in enumerate(scenario.steps):
        place = ("steps", index, step.verb)
        if step.start and step.start.cgroup is not None and step.start.cgroup not in groups:
            hint = did_you_mean(step.start.cgroup, groups) if groups else "add a step `cgroup: {make: …}` before it"
            yield (*place, "cgroup"), f"cgroup `{step.start.cgroup}` was not made", hint
        if step.cgroup is None:
            continue
        if step.cgroup.make is None:
            assert step.cgroup.remove is not None
            if step.cgroup.remove not in groups:
                yield (*place, "remove"), f"cgroup `{step.cgroup.remove}` was not made", ""
            groups.discard(step.cgroup.remove)
            continue
        parent = step.cgroup.make.rpartition("/")[0]
        if step.cgroup.make in groups:
            yield (*place, "make"), f"cgroup `{step.cgroup.make}` is made twice", ""
        if parent and parent not in groups:
            yield (*place, "make"), f"cgroup `{parent}` was not made", f"add `cgroup: {{make: {parent}}}` before it"
        groups.add(step.cgroup.make)


def _reference_mistakes(scenario: Scenario, codes: object) -> Iterator[Mistake]:
    loads, programs, windows = scenario.loads(), scenario.programs(), scenario.windows()
    known = {*loads, *programs, *windows, *CLASSES}
    for index, check in enumerate(scenario.checks):
        place = ("checks", index)
        allowed = {
            "gap": {name for name, start in loads.items() if start.kind in GAP_KINDS},
            "wait": {*loads, *programs, *CLASSES},
            "idle": set(windows),
            "work": {name for name, start in loads.items() if start.kind in THROUGHPUT} | set(programs),
            "share": {name for name, start in loads.items() if start.tasks_are_equal},
        }[check.check]
        if check.load not in allowed:
            yield (
                (*place, "load"),
                f"`{check.load}` has no `{check.check}` to check",
                did_you_mean(check.load, allowed) if allowed else "",
            )
        if check.code not in codes:  # type: ignore[operator]
            yield (
                (*place, "code"),
                f"unknown finding code `{check.code}`",
                did_you_mean(check.code, codes),  # type: ignore[arg-type]
            )
    for index, figure in enumerate(scenario.figures):
        load = figure.program
        if figure.read is not None and load not in programs:
            yield ("figures", index, "read"), f"`{load}` is no program whose output could be read", ""
        elif load not in known:
            yield (
                ("figures", index, "name"),
                f"`{load}` is neither a load nor a window",
                did_you_mean(load, known) if known else "",
            )


def _limit_mistakes(scenario: Scenario) -> Iterator[Mistake]:
    limits = scenario.limits
    total = sum(step_limit_ms(scenario, step, "object", None, stretch=1) for step in scenario.steps)
    if total > limits.virtual_ms:
        yield (
            ("limits", "virtual"),
            f"the steps may take {total} ms, more than `limits.virtual` of {limits.virtual_ms} ms",
            f"raise it to {-(-total // 1000)}s, or shorten a step",
        )
    if limits.starved_ms < WATCHDOG_SLACK * limits.timeout_ms:
        yield (
            ("limits", "starved"),
            f"`starved` is {limits.starved_ms} ms, before the kernel's own watchdog has looked",
            f"at least {int(WATCHDOG_SLACK * limits.timeout_ms)}ms, 1.5 × `timeout`",
        )
    if not limits.starved_ms < limits.watchdog_ms < limits.virtual_ms:
        yield (
            ("limits",),
            "limits do not nest",
            "`starved` < `watchdog` < `virtual`",
        )
