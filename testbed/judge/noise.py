# SPDX-License-Identifier: Apache-2.0
"""How far to trust a figure: what a scheduler differs by from itself (`policies/noise.yaml`, measured).

`benchmarks/noise_floor.py` makes the table: schedulers in variants that decide the same, under several seeds. Two of
them differ by chance alone, so a difference that chance makes is neither better nor worse. Chance makes less of a
median over more pairs of runs, so the floor falls with the number of seeds.

A share is always of the smaller of two values: 0.05 is said of 100 against 105, whichever is the candidate's.
"""

from __future__ import annotations

import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field

from testbed.data import data_directory
from testbed.spec import Clock, Model, RunSpec
from testbed.yamlfile import Document, read

FILE = data_directory("policies") / "noise.yaml"
LOSS = 0.05
"""The loss of which the table says how many seeds find it."""
HEADER = """\
# SPDX-License-Identifier: Apache-2.0
"""
SHOWN = (1, 3, 5, 9, 21)
"""Numbers of seeds that the page has a column for."""

Share = Annotated[float, Field(ge=0)]


class Floor(Model):
    """Of one figure of a scenario on its own machine.

    Attributes:
        machine: CPUs of the runs, in words.
        runs: of each scheduler, behind these numbers.
        noisiest: the scheduler that differs most from itself.
        shares: by pairs of runs, how far apart chance alone hardly ever puts their medians.
        finds: pairs of runs that find a loss of `LOSS` nine times in ten; None: no number of the table does.
    """

    scenario: str
    machine: str
    figure: str
    unit: str
    runs: dict[str, Annotated[int, Field(ge=2)]] = Field(min_length=1)
    noisiest: str
    shares: dict[Annotated[int, Field(ge=1)], Share] = Field(min_length=1)
    finds: int | None

    def over(self, pairs: int) -> float:
        """The floor of a median over so many pairs: that of the next smaller number in the table."""
        return self.shares[max((known for known in self.shares if known <= pairs), default=min(self.shares))]


class Noise(Model):
    """The table, and what it was measured with."""

    schema_: Literal["testbed.noise/1"] = Field(alias="schema")
    image: str
    kernel: str
    qemu: str
    icount_shift: int
    parallel_quantum: int
    date: datetime.date
    command: str
    floors: tuple[Floor, ...] = Field(min_length=1)

    def floor(self, spec: RunSpec, figure: str, unit: str, pairs: int) -> float:
        """The share that a figure must differ by, over so many pairs of runs, to say something.

        What was not measured (another scenario, machine or rate of the clock, another figure) is taken to be as noisy
        as the noisiest figure of the table in the same unit, or of all where none has it. `live` has a test over its
        pairs instead, and no floor.
        """
        if spec.clock is not Clock.SIM:
            return 0.0
        key = (spec.scenario, str(spec.topology), figure)
        known = [one for one in self.floors if (one.scenario, one.machine, one.figure) == key]
        if not known or (spec.icount_shift, spec.parallel_quantum) != (self.icount_shift, self.parallel_quantum):
            known = [one for one in self.floors if one.unit == unit] or list(self.floors)
        return max(one.over(pairs) for one in known)


@cache
def load() -> Noise:
    """The table that travels with the package."""
    return Document(read(FILE), str(FILE)).model(Noise)


def write(noise: Noise, path: Path = FILE) -> None:
    """Make it the table that judging reads."""
    text = yaml.safe_dump(noise.model_dump(by_alias=True), default_flow_style=None, sort_keys=False, width=120)
    path.write_text(HEADER + text, encoding="utf-8")


# --- how it is told ------------------------------------------------------------------------------------------


def table(noise: Noise) -> str:
    """The floors as a table of Markdown."""
    counts = [f"{pairs} seed{'s' if pairs > 1 else ''}" for pairs in SHOWN]
    head = ("scenario", "figure", "runs", *counts, "seeds that find 5 %", "noisiest")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for one in noise.floors:
        finds = "-" if one.finds is None else str(one.finds)
        floors = [f"{one.over(pairs):.1%}" for pairs in SHOWN]
        cells = (one.scenario, f"`{one.figure}`", str(sum(one.runs.values())), *floors, finds, one.noisiest)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page() -> str:
    """docs/reference/noise.md."""
    noise = load()
    quantum = noise.parallel_quantum << noise.icount_shift
    most = max(noise.floors, key=lambda one: sum(one.runs.values()))
    runs = ", ".join(f"{count} of {name}" for name, count in most.runs.items())
    return PAGE.format(
        table=table(noise), quantum=f"{quantum / 1000:g} µs", runs=runs, most=f"`{most.figure}` of {most.scenario}",
        date=noise.date, kernel=noise.kernel, qemu=noise.qemu, image=noise.image[:12], command=noise.command,
    )  # fmt: skip


PAGE = """\
<!-- SPDX-License-Identifier: Apache-2.0 -->
<!-- Generated by `python -m testbed.judge.docs --write` from policies/noise.yaml; do not edit. -->
# The noise floor

A run under `sim` repeats to the bit, and still it is one sample: a scheduler with one more unused map is loaded a
little later, and from then on everything comes in another order. So the same scheduler, in variants that decide the
same, was measured against itself (an A/A test). What two variants differ by under one seed is chance, and no
difference that chance makes is called better or worse, in `run`, `compare` and `gate`.

{table}

A share is of the smaller value: 5.0% is 100 against 105. Columns in the middle: over so many seeds, 1 % of pairs of
variants are farther apart. Floors are those of the scheduler that differs most from itself, named last.
"seeds that find 5 %": with so many, a scheduler that is 5 % worse in this figure is called worse nine times in ten
("-": not with 31, because of the noise, or because 5 % of it is below the quantum or a step of its histogram).

Measured on {date}: kernel {kernel}, QEMU {qemu}, image {image}, `{command}`.
Most runs stand behind {most}: {runs}. A figure with
fewer than ten runs of a scheduler has seen little of what chance can do: its floor is too low rather than too high, and
its last but one column promises too much.

## When a figure is called better or worse

`sim`, over the pairs of runs with the same seed; all three must be true:

1. The median of the pairs' differences is above `resolution`: for times the quantum, {quantum}.
2. The median of the pairs' shares is above `floor`: the one above for so many seeds, and never below the policy's
   `indistinct` (2 %: the model of a CPU is no better than that, see [parallel time](../parallel_time.md)).
3. The pairs agree: all of them below 6 seeds, from then on as many as make a sign test significant (6 of 6, 8 of 9,
   9 of 10, 15 of 20). That is a test by the case's own runs, whatever the table says.

`compare` also tests all figures together from about ten seeds on ([guide](../guides/compare.md)). `live` has an exact
rank test over its pairs in the place of 2 and 3, and `indistinct`.

A verdict says which `floor` and `resolution` each of its figures was judged by. One figure in a hundred may still be
called better or worse by chance, so of verdicts with 14 figures up to one in eight has such a figure: what matters is
worth more seeds, and a look at `compare`, which counts all figures together.

**Not in the table**: another machine (`--topology`), another rate or quantum, a scenario or a figure of yours. It is
taken to be as noisy as the noisiest figure in the same unit, or of all where none has the unit.

## How the floor falls

For each scheduler and figure all differences between two variants under the same seed are taken, with either sign.
The floor of *n* seeds is what the median of *n* of them, drawn at random, exceeds in one case of a hundred, computed
exactly from the binomial distribution; for one seed that is about the largest difference seen. It assumes that seeds
are independent of each other and that no variant is better in all of them; the benchmark prints how many pairs of
variants stay above the floor in their medians over all seeds, to check that. Quantiles of gaps come from histograms
with buckets of up to a sixteenth, so their floor never falls below 6.3 %, however many seeds.

What a true loss needs is more than the floor: a loss as large as the floor is found every second time.

## A control that is 5 % worse

`bpf/good/burns_five_percent.bpf.c` decides what `global_fifo` decides and spins away a twentieth of each busy CPU. A
test on real guests, and `benchmarks/noise_floor.py --control`, want it to be called worse than `global_fifo`, by the
same rules and the same table.

## Measure it again

    .venv/bin/python benchmarks/noise_floor.py --write
    python -m testbed.judge.docs --write

It takes 198 runs of some 20 CPU seconds; those that the run cache has are not run again, so it may be interrupted,
and `--cached` makes a table of what is there (column `runs`). The table in use was measured on a small machine. With a
larger one, more variants and seeds make it surer, first of all what it says of one and three seeds:
`--variants 10 --seeds 10 -j CORES` is 1800 runs. Another table may judge the same evidence differently, so
`JUDGE_VERSION` is raised with it.
"""
