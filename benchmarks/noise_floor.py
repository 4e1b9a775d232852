# SPDX-License-Identifier: Apache-2.0
"""The noise floor of every figure: a scheduler in variants that decide the same, under several seeds (an A/A test).

    .venv/bin/python benchmarks/noise_floor.py                     # print; 198 runs, some 20 CPU seconds each
    .venv/bin/python benchmarks/noise_floor.py --write             # and make the table that judging reads
    .venv/bin/python benchmarks/noise_floor.py -k crawl            # a look at one scenario
    .venv/bin/python benchmarks/noise_floor.py --cached            # of those runs that the cache has; runs nothing
    .venv/bin/python benchmarks/noise_floor.py --variants 10 --seeds 10 --write   # with time for 1800 runs
    .venv/bin/python benchmarks/noise_floor.py --control           # does a loss of 5 % show? 10 runs; exits 1 if not

A variant differs in nothing that it decides: other names, another order of functions, data that nobody reads; beside
EEVDF, which we can't rename, it is a file in the guest that nobody opens. What two variants differ by under one seed
is chance. Runs come from the run cache where they were made before, so an interrupted table goes on where it was.
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from math import ceil
from pathlib import Path
from statistics import median
from typing import Literal

from testbed import image as images
from testbed import policy, scenario, trial
from testbed.build import guest_command
from testbed.build.cache import cached_build
from testbed.candidate import read_candidate
from testbed.case import read_run
from testbed.cli.run import make_guest
from testbed.engine.cached import CachedEngine, holds
from testbed.engine.local import LocalEngine
from testbed.image import Image
from testbed.image.cache import Cache
from testbed.image.cpio import write_archive
from testbed.judge import noise
from testbed.judge.assess import assess
from testbed.judge.benefit import resolution
from testbed.plan import Question, plan
from testbed.policy import Policy
from testbed.report.events import StageEnded, StageLine, StageStarted
from testbed.scenario import Scenario
from testbed.spec import Clock, Role, RunSpec
from testbed.stats import chance_floor, compare, power, share
from testbed.status import Status
from testbed.vm import snapshot

ROOT = Path(__file__).parent.parent
EEVDF = "EEVDF"
# Variants and seeds of each: much of one scheduler, and others to see whether it speaks for them. EEVDF is the other
# side of every comparison of `testbed run`.
SAMPLES = {"global_fifo": (10, 2), EEVDF: (5, 2), "weighted_vtime": (3, 1)}
PAIRS = (1, 3, 5, 7, 9, 11, 15, 21, 31)
SURE = 0.9
TRUE_LOSS = 1 / (1 - noise.LOSS) - 1
"""In shares of the smaller value."""
BUCKET = 0.063
"""The runner's histograms have buckets of up to a sixteenth, so quantiles of gaps move in such steps."""
QUANTILE = re.compile(r"\.gap\.p[0-9.]+$")
CONTROL = ROOT / "bpf/good/burns_five_percent.bpf.c"
CONTROL_SEEDS = 5
WORSE = re.compile(r"^ \* worse: (\S+) of ([a-z-]+) than (\w+)$", re.MULTILINE)
CALLBACK = re.compile(r"(?:^/\*(?:(?!\*/)[\s\S])*?\*/\n)?^\w+ BPF_STRUCT_OPS[\s\S]*?^}\n", re.MULTILINE)


# --- variants ------------------------------------------------------------------------------------------------


def _with(text: str) -> Callable[[str, str], str]:
    """Put declarations before the first callback."""

    def change(source: str, name: str) -> str:
        first = CALLBACK.search(source)
        assert first is not None, f"{name} has no callback"
        return f"{source[: first.start()]}{text}\n{source[first.start() :]}"

    return change


def _map(kind: str, entries: int) -> str:
    lines = (
        f"__uint(type, BPF_MAP_TYPE_{kind});",
        f"__uint(max_entries, {entries});",
        "__type(key, u32);",
        "__type(value, u64);",
    )
    return "struct {\n\t" + "\n\t".join(lines) + '\n} nobody_reads_it SEC(".maps");\n'


def _other_functions(source: str, name: str) -> str:
    return re.sub(rf"\b{name}_(?=\w)", f"another_{name}_", source)


def _other_ops(source: str, name: str) -> str:
    return source.replace(f'.name\t= "{name}"', f'.name\t= "a_{name}"').replace(
        f'.name\t\t= "{name}"', f'.name\t\t= "a_{name}"'
    )


def _reversed(source: str, name: str) -> str:
    callbacks = [found[0] for found in CALLBACK.finditer(source)]
    return CALLBACK.sub(lambda _: callbacks.pop(), source)


CHANGES: Mapping[str, Callable[[str, str], str]] = {
    "as it is": lambda source, name: source,
    "an unused hash": _with(_map("HASH", 1024)),
    "4 KiB of .rodata": _with("const volatile u64 nobody_reads_it[512] = { 1, 2 };\n"),
    "functions in reverse": _reversed,
    "other names of functions": _other_functions,
    "64 KiB of .bss": _with("u64 nobody_reads_it[8192];\n"),
    "an unused array": _with(_map("ARRAY", 64)),
    "16 bytes of .data": _with("u64 nobody_reads_it[2] = { 1, 2 };\n"),
    "another ops.name": _other_ops,
    "16 bytes of .rodata": _with("const volatile u64 nobody_reads_it[2] = { 1, 2 };\n"),
    "16 bytes of .bss": _with("u64 nobody_reads_it[2];\n"),
}
PADDING = (0, 1, 5_000, 70_000, 300_000, 1_000, 20_000, 130_000, 40_000, 200_000, 500_000)
"""Bytes of the file that nobody opens."""


def variants(source: str, name: str) -> dict[str, str]:
    """Sources that decide the same, by what is different; a change that a source has no place for is left out."""
    made = {words: change(source, name) for words, change in CHANGES.items()}
    return {words: text for words, text in made.items() if words == "as it is" or text != source}


# --- measuring -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """A figure of one run."""

    scheduler: str
    variant: str
    spec: RunSpec
    figure: str
    unit: str
    value: float


@dataclass(frozen=True)
class Bench:
    """What measuring needs."""

    image: Image
    work: Path
    scenarios: Mapping[str, Scenario]
    demanded: Policy
    pattern: str | None
    jobs: int
    cached: bool

    def sample(self, scheduler: str, count: int, seeds: int) -> Iterator[Sample]:
        """All figures of so many variants of a scheduler."""
        if scheduler == EEVDF:
            for size in PADDING[:count]:
                yield from self._padded(size, seeds)
            return
        source = (ROOT / f"bpf/good/{scheduler}.bpf.c").read_text(encoding="utf-8")
        for words, text in list(variants(source, scheduler).items())[:count]:
            yield from self._changed(scheduler, words, text, seeds)

    def _padded(self, size: int, seeds: int) -> Iterator[Sample]:
        place = Path(tempfile.mkdtemp(dir=self.work))
        padding, archive = place / "padding", place / "files.cpio"
        padding.write_bytes(bytes(size))
        files = write_archive(archive, {"nobody-opens-it": padding} if size else {})
        specs = self._specs(Role.BASELINE, "", ("none",), None, files, seeds)
        yield from self._run(EEVDF, f"{size} bytes", specs, {files: archive}, place)

    def _changed(self, scheduler: str, words: str, source: str, seeds: int) -> Iterator[Sample]:
        place = Path(tempfile.mkdtemp(dir=self.work))
        file = place / f"{scheduler}.bpf.c"
        file.write_text(source, encoding="utf-8")
        artifact = cached_build(read_candidate(str(file)), self.image, self.image.id, place / "candidate", Cache.open())
        if not artifact.ok:
            raise SystemExit(f"{scheduler}, {words}: {artifact.findings[0].message}")
        inputs = trial.archives(artifact, {}, place)
        specs = self._specs(
            Role.CANDIDATE,
            artifact.candidate.sha256,
            guest_command(artifact),
            artifact.facts.timeout_ms,
            inputs.candidate,
            seeds,
        )
        yield from self._run(scheduler, words, specs, inputs.by_hash, place)

    def _specs(
        self, role: Role, candidate: str, words: tuple[str, ...], timeout_ms: int | None, files: str, seeds: int
    ) -> list[RunSpec]:
        """The runs of scenarios that have figures, as `testbed run` would plan them."""
        question = Question(
            policy=self.demanded,
            scenarios=self.scenarios,
            candidate=candidate,
            words=words,
            timeout_ms=timeout_ms,
            clocks=frozenset({Clock.SIM}),
            pattern=self.pattern,
            machine=None,
            files=files,
            baseline_files=files,
            image=self.image.id,
            seeds=seeds,
        )
        return [one for one in plan(question).specs if one.role is role and self.scenarios[one.scenario].figures]

    def _run(
        self, scheduler: str, words: str, specs: Sequence[RunSpec], inputs: Mapping[str, Path], place: Path
    ) -> Iterator[Sample]:
        local = LocalEngine(self.image, inputs, make_guest)
        engine = CachedEngine(local, Cache.open(), lambda text: print(text, file=sys.stderr))
        if self.cached:
            specs = [spec for spec in specs if holds(Cache.open(), spec)]
        for spec in specs[:1]:
            snapshot.prepare(self.image, spec, listen, threading.Event())

        def run(spec: RunSpec) -> list[Sample]:
            directory = place / "runs" / spec.name
            engine.execute(spec, directory, threading.Event(), lambda line: None)
            known = self.scenarios[spec.scenario]
            one = assess(read_run(directory), scenario=known, policy=self.demanded, baseline=None)
            for finding in one.findings:
                # Checks that ask for a baseline are of no interest here.
                if finding.status in (Status.FAIL, Status.ERROR) and finding.code != "no-baseline":
                    raise SystemExit(f"{scheduler}, {words}, {spec.scenario}: {finding.message}")
            found = []
            for figure in known.figures:
                metric = one.view.metrics.get(figure.name)
                if metric is None:
                    raise SystemExit(f"{scheduler}, {words}, {spec.scenario}: no `{figure.name}`")
                found.append(Sample(scheduler, words, spec, figure.name, metric.unit, metric.value))
            return found

        with ThreadPoolExecutor(self.jobs) as threads:
            for found in threads.map(run, specs):
                yield from found
        print(f"# {scheduler}: {words}", file=sys.stderr, flush=True)


def listen(event: object) -> None:
    """Say what is worth knowing: snapshots that are made, and what is wrong with the cache."""
    if isinstance(event, StageStarted):
        print(f"# {event.title}", file=sys.stderr)
    elif isinstance(event, StageLine):
        print(f"# {event.text}", file=sys.stderr)
    elif isinstance(event, StageEnded) and event.status is not Status.DONE:
        raise SystemExit(f"{event.title}: {event.summary}")


# --- what it says --------------------------------------------------------------------------------------------


def apart(one: Sample, two: Sample) -> float:
    """How far two values of a figure are apart, as a share; 0 where the clock can't tell them apart."""
    if abs(one.value - two.value) <= resolution(one.spec, one.unit):
        return 0.0
    return share(one.value, two.value)


def differences(samples: Sequence[Sample]) -> list[float]:
    """What any two variants of one scheduler differ by under the same seed, in one figure."""
    seeds: dict[int, list[Sample]] = defaultdict(list)
    for one in samples:
        seeds[one.spec.seed].append(one)
    return [apart(one, two) for ones in seeds.values() for one, two in combinations(ones, 2)]


def rounded_up(value: float) -> float:
    """To a tenth of a per mille, never down."""
    return ceil(value * 1e4 - 1e-9) / 1e4


def floors_of(chance: Sequence[float], figure: str) -> dict[int, float]:
    """By pairs of runs, the floor of their median."""
    least = BUCKET if QUANTILE.search(figure) else 0.0
    return {count: rounded_up(max(least, chance_floor(chance, count))) for count in PAIRS}


def floor(samples: Sequence[Sample]) -> noise.Floor:
    """The floor of one figure: at each number of pairs that of the scheduler that differs most from itself."""
    first = samples[0]
    by_scheduler = {
        name: differences([one for one in samples if one.scheduler == name])
        for name in dict.fromkeys(one.scheduler for one in samples)
    }
    chances = {name: chance for name, chance in by_scheduler.items() if chance}
    if not chances:
        raise SystemExit(f"{first.spec.scenario}: {first.figure}: no two variants were run under the same seed")
    known = {name: floors_of(chance, first.figure) for name, chance in chances.items()}
    shares = {count: max(one[count] for one in known.values()) for count in PAIRS}
    least = policy.load("default")[0].benefit.indistinct
    visible = noise.LOSS * min(one.value for one in samples) > resolution(first.spec, first.unit)
    found = [
        count
        for count in PAIRS
        if visible
        and all(power(chance, TRUE_LOSS, max(least, shares[count]), count) >= SURE for chance in chances.values())
    ]
    return noise.Floor(
        scenario=first.spec.scenario,
        machine=str(first.spec.topology),
        figure=first.figure,
        unit=first.unit,
        runs={name: sum(one.scheduler == name for one in samples) for name in chances},
        noisiest=max(known, key=lambda name: sum(known[name].values())),
        shares=shares,
        finds=found[0] if found else None,
    )


def grouped(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Samples of one figure each, in the order of the scenarios."""
    groups: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for one in samples:
        groups[one.spec.scenario, one.figure].append(one)
    return list(groups.values())


def held(samples: Sequence[Sample], known: noise.Floor) -> str:
    """Whether medians over the seeds stay below the floor that single runs foretold: a check of independence."""
    above = pairs = 0
    for name in dict.fromkeys(one.scheduler for one in samples):
        by_variant: dict[str, dict[int, Sample]] = defaultdict(dict)
        for one in samples:
            if one.scheduler == name:
                by_variant[one.variant][one.spec.seed] = one
        for first, second in combinations(by_variant.values(), 2):
            middle = median(apart(first[seed], second[seed]) for seed in first.keys() & second.keys())
            pairs += 1
            above += abs(middle) > known.over(len(first))
    return f"{above} of {pairs}"


def worse(file: Path) -> tuple[str, str, str]:
    """What a control's header says that it must be worse in: figure, scenario, and the scheduler that it copies."""
    found = WORSE.search(file.read_text(encoding="utf-8"))
    if found is None:
        raise SystemExit(f"{file}: no `worse:` line in the header")
    return found[1], found[2], found[3]


def control(bench: Bench, figure: str, original: str, seeds: int) -> int:
    """Judge a scheduler that is 5 % worse against its original, by the table in use; 0 if it is found to be worse."""
    name = CONTROL.name.removesuffix(".bpf.c")
    ones, twos = (
        [sample for sample in bench.sample(scheduler, 1, seeds) if sample.figure == figure]
        for scheduler in (name, original)
    )
    first, table = ones[0], noise.load()
    judged = ""
    for count in range(1, len(ones) + 1):
        values = [one.value for one in ones[:count]], [two.value for two in twos[:count]]
        limit = table.floor(first.spec, figure, first.unit, count)
        judged = compare(*values, better=better(bench.scenarios[first.spec.scenario], figure), floor=limit, noise=False)
        middle = median(share(one, two) for one, two in zip(*values, strict=True))
        print(f"{count:2} seeds: {figure} {middle:+.2%}, floor {limit:.2%}: {judged}")
    return 0 if judged == "worse" else 1


def better(known: Scenario, figure: str) -> Literal["lower", "higher"]:
    """Which direction of a figure is good."""
    return next(one.better for one in known.figures if one.name == figure)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", dest="pattern", help="only scenarios whose name matches")
    parser.add_argument("-j", dest="jobs", type=int, default=1, help="guests side by side (default: 1)")
    parser.add_argument("--only", nargs="+", choices=list(SAMPLES), default=list(SAMPLES), metavar="SCHEDULER")
    parser.add_argument("--variants", type=int, help="of each scheduler, up to 11")
    parser.add_argument("--seeds", type=int, help="of each scheduler, or of the control")
    parser.add_argument("--cached", action="store_true", help="leave out runs that the run cache does not have")
    parser.add_argument("--values", action="store_true", help="print every value, too")
    parser.add_argument("--write", action="store_true", help="make the table that judging reads")
    parser.add_argument("--control", action="store_true", help=f"judge {CONTROL.name} against its original instead")
    options = parser.parse_args()
    if options.write and (options.pattern is not None or options.only != list(SAMPLES)):
        parser.error("--write needs every scheduler and scenario")
    image = images.ensure()
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory(prefix="testbed-noise-") as name:
        demanded, _ = policy.load("default")
        figure, place, original = worse(CONTROL)
        pattern = place if options.control else options.pattern
        bench = Bench(image, Path(name), scenario.load_all(), demanded, pattern, options.jobs, options.cached)
        if options.control:
            return control(bench, figure, original, options.seeds or CONTROL_SEEDS)
        for scheduler in options.only:
            count, seeds = SAMPLES[scheduler]
            samples += bench.sample(scheduler, options.variants or count, options.seeds or seeds)
    if options.values:
        for one in samples:
            print(
                f"{one.scheduler}, {one.variant}, {one.spec.scenario}, seed {one.spec.seed}: {one.figure} {one.value:g}"
            )
    floors = [floor(ones) for ones in grouped(samples)]
    table = noise.Noise(
        schema="testbed.noise/1",
        image=image.id,
        kernel=image.manifest.kernel.release,
        qemu=image.manifest.qemu.version,
        icount_shift=RunSpec.model_fields["icount_shift"].default,
        parallel_quantum=RunSpec.model_fields["parallel_quantum"].default,
        date=datetime.datetime.now(datetime.UTC).date(),
        command=" ".join(["benchmarks/noise_floor.py", *sys.argv[1:]]),
        floors=tuple(floors),
    )
    print(noise.table(table))
    for ones, known in zip(grouped(samples), floors, strict=True):
        print(f"# {known.scenario}: {known.figure}: {held(ones, known)} pairs of variants above the floor")
    if options.write:
        noise.write(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
