# SPDX-License-Identifier: Apache-2.0
"""One trial: a candidate in, a case with its verdict out. Composes the stages and nothing else."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from testbed import baseline, cases, controls, judge, policy, regressions, scenario, workload
from testbed.build import Artifact, build, files_for_guest, guest_command
from testbed.build.cache import cached_build
from testbed.candidate import Candidate, Kind, read_candidate
from testbed.case import (
    CASE_FILE,
    POLICY_FILE,
    SCENARIOS_DIR,
    Case,
    CaseFile,
    LiveProbe,
    need_empty,
    write_atomic,
    write_model,
)
from testbed.data import data_directory
from testbed.engine import Engine
from testbed.engine.cached import CachedEngine, holds
from testbed.engine.local import LocalEngine
from testbed.errors import UsageError
from testbed.image import Image
from testbed.image.cache import Cache
from testbed.image.cpio import write_archive
from testbed.plan import FIRST_SEED, Attached, Plan, Question, plan, select
from testbed.policy import Policy
from testbed.report.events import Listener, StageEnded, StageLine, StageStarted
from testbed.run import Pool
from testbed.scenario import Scenario
from testbed.spec import Clock, Role, RunSpec, Topology
from testbed.status import Status, worst
from testbed.verdict import BaselineFacts, ImageFacts, KernelFacts, ToolFacts, Verdict
from testbed.vm import snapshot
from testbed.vm.guest import Boot, Guest
from testbed.vm.sim import command as sim_command
from testbed.workload import SCHBENCH, OwnWorkload, Workload, bring, find_schbench
from testbed.yamlfile import plain, write

WORK_DIR = ".work"


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line.

    Attributes:
        candidate: a path, or the words behind `--`.
        policy: name or file.
        clock: None is the default: both where KVM works, else sim.
        pattern: `-k`.
        machine: instead of the scenarios' own topologies.
        jobs: guests side by side.
        out: the case's directory; None makes one.
        keep: `cases prune` leaves this case alone.
        cache: sim runs that were done before are not done again.
        seeds: orders of events in `sim`, in place of the policy's.
        first_seed: of them; another one asks about orders that nobody has seen yet.
        schbench: a schbench to run in the place of ours.
        workload: file of a workload of the user's (testbed/workload.py).
        baseline: what figures are compared with: `eevdf`, a file, a program with its options, a case.
        regressions: a file of runs that come first (testbed/regressions.py).
    """

    candidate: str | tuple[str, ...]
    policy: str = "default"
    clock: str | None = None
    pattern: str | None = None
    machine: Topology | None = None
    run_all: bool = False
    jobs: int = 2
    out: Path | None = None
    keep: bool = False
    cache: bool = True
    seeds: int | None = None
    first_seed: int = FIRST_SEED
    schbench: Path | None = None
    workload: Path | None = None
    baseline: str = baseline.EEVDF
    regressions: Path | None = None


@dataclass(frozen=True)
class Result:
    """A verdict and where its case lies."""

    verdict: Verdict
    case: Path
    elapsed_s: float


Prepare = Callable[[Image, RunSpec, Listener, threading.Event], None]
MakeEngine = Callable[[Image, Mapping[str, Path], Callable[[Boot], Guest]], Engine]


def _prepare_nothing(image: Image, spec: RunSpec, listener: Listener, cancelled: threading.Event) -> None:
    """For guests that start from nothing."""


@dataclass(frozen=True)
class Desk:
    """What every stage of a trial needs; tests put another `guest` or `image` here.

    `prepare` makes what the runs of a machine start from, so that it is told as a stage of its own; `engine` is what
    executes the runs that are not in the cache.
    """

    image: Image
    listener: Listener
    guest: Callable[[Boot], Guest]
    probe: Callable[[Image], LiveProbe]
    prepare: Prepare = _prepare_nothing
    engine: MakeEngine = LocalEngine
    cancelled: threading.Event = field(default_factory=threading.Event)


def check(request: Request) -> None:
    """Find what can be known to be wrong before an image is built or a case is made.

    Raises:
        UsageError: the policy, the pattern, the candidate or the baseline can't be meant.
        DamagedCaseError: the baseline is a case that is not what it was.
    """
    own = read_candidate(request.candidate).sha256 if isinstance(request.candidate, str) else None
    given = _own_workload(request)
    demanded, _, scenarios = _demanded(request, own, given)
    selected = select([demand.name for demand in demanded.scenarios], request.pattern)
    if given is not None and given.scenario.name not in selected:
        raise UsageError(
            f"`--workload {request.workload}` is of no use: `-k {request.pattern}` leaves it out",
            hint=f"its scenario is `{given.scenario.name}`",
        )
    baseline.check(request.baseline)
    _schbench(request, demanded, scenarios)
    if request.out is not None:
        need_empty(request.out)


def hold(request: Request, desk: Desk) -> Result:
    """Build, run, judge.

    Raises:
        UsageError: the candidate, the policy or the options can't be meant.
        HostError: this machine can't do it; the case so far is kept and has no verdict.
    """
    started = time.monotonic()
    candidate = _read(request.candidate, desk.image)
    own = _own_workload(request)
    demanded, policy_bytes, scenarios = _demanded(request, candidate.sha256, own)
    known = {name: one for name, (one, _) in scenarios.items()}
    runs_schbench, schbench = _schbench(request, demanded, scenarios)
    live, clocks = _clocks(request.clock, demanded, desk)
    note = baseline.other_conditions(request.baseline, desk.image.id, demanded.name)
    with _reference(request, desk) as ready:
        case = _make_case(request, candidate)
        reference = _kept(ready, case)
    artifact = _build(candidate, desk.image, case / "candidate", desk.listener, cached=request.cache)
    write_atomic(case / POLICY_FILE, policy_bytes)
    for name, (_, data) in scenarios.items():
        write_atomic(case / SCENARIOS_DIR / f"{name}.yaml", data)
    theirs = bring(schbench, case, desk.image) if runs_schbench else None
    travels = {**(theirs.files if theirs else {}), **(own.bring(case, desk.image) if own else {})}
    with _work(case) as work:
        inputs = archives(artifact, travels, work, reference)
        question = _question(request, demanded, known, artifact, theirs, clocks, inputs, desk.image, reference, work)
        planned = plan(question)
        record = CaseFile(
            clock=_clock_word(clocks),
            selected=_selected(planned) if request.pattern else None,
            cpus=request.machine.cpus if request.machine else None,
            topology=request.machine,
            planned=planned.planned,
            not_run=planned.not_run,
            interrupted=True,  # until the end proves otherwise, so that a killed tool leaves the truth
            image=image_facts(desk.image),
            kernel=kernel_facts(desk.image),
            tool=tool_facts(desk.image, theirs, own),
            live=live,
            controls=controls.expected(planned.specs),
            baseline=baseline.facts(reference, note) if reference is not None else BaselineFacts(),
        )
        write_model(case / CASE_FILE, record)
        engine = desk.engine(desk.image, inputs.by_hash, desk.guest)
        pool = Pool(
            CachedEngine(engine, Cache.open(), _warn(desk.listener)) if request.cache else engine,
            case,
            desk.listener,
            desk.cancelled,
            demanded,
            known,
            jobs=request.jobs,
            run_all=request.run_all,
            sources=Case.open(case).sources(),
            early_repeat=True,
            controls=record.controls,
        )
        if artifact.ok:
            _prepare(planned, desk, cached=request.cache)
            pool.run(planned.specs)
        record = record.model_copy(update={"interrupted": desk.cancelled.is_set(), "stopped_early": pool.stopped_early})
        write_model(case / CASE_FILE, record)
    verdict = judge.judge(Case.open(case))
    judge.write_verdict(case, verdict)
    return Result(verdict, case, time.monotonic() - started)


def _prepare(planned: Plan, desk: Desk, *, cached: bool) -> None:
    """Make what sim runs start from, once for each machine among them that has something to run."""
    cache = Cache.open()
    machines: dict[str, RunSpec] = {}
    for spec in planned.specs:
        if spec.clock is Clock.SIM and not (cached and holds(cache, spec)):
            machines.setdefault(snapshot.key_of(desk.image.id, spec.topology, snapshot.rate_of(spec)), spec)
    for spec in machines.values():
        desk.prepare(desk.image, spec, desk.listener, desk.cancelled)


def rehearse(request: Request, image: Image) -> Iterator[tuple[str, str]]:
    """`--dry-run`: the title and the pasteable command of every run that would be started."""
    candidate = _read(request.candidate, image)
    demanded, _, scenarios = _demanded(request, candidate.sha256, _own_workload(request))
    clocks = frozenset({Clock(request.clock)} if request.clock in ("sim", "live") else {Clock.SIM})
    question = Question(
        policy=demanded,
        scenarios={name: one for name, (one, _) in scenarios.items()},
        candidate=candidate.sha256,
        words=("program", candidate.name) if candidate.kind is Kind.PROGRAM else ("object", "candidate.bpf.o"),
        timeout_ms=None,
        clocks=clocks,
        pattern=request.pattern,
        machine=request.machine,
        files="0" * 64,
        baseline_files="0" * 64,
        image=image.id,
        seeds=request.seeds or demanded.seeds,
        first_seed=request.first_seed,
        reference=_rehearsed(request),
    )
    for spec in plan(question).specs:
        directory = Path("CASE/runs") / spec.name
        boot = Boot(spec, image, directory, Path("CASE/files"), b"", threading.Event(), lambda _: None)
        title = f"{spec.scenario} {spec.clock} {spec.role} seed {spec.seed} cpus {spec.topology.cpus}"
        if spec.clock is Clock.SIM:
            yield title, shlex.join(sim_command(boot))
        else:
            from testbed.vm.live import command as live_command

            yield title, shlex.join(live_command(boot))


def _rehearsed(request: Request) -> Attached | None:
    named = baseline.find(request.baseline)
    return None if named is None else Attached("0" * 64, baseline.words_for_dry_run(named), None, "0" * 64)


def image_facts(image: Image) -> ImageFacts:
    """The image as a verdict names it."""
    return ImageFacts(id=image.manifest.id, recipe=image.manifest.recipe)


def kernel_facts(image: Image) -> KernelFacts:
    """The guest's kernel as a verdict names it."""
    kernel = image.manifest.kernel
    return KernelFacts(release=kernel.release, version=kernel.version, sha256=kernel.sha256)


def tool_facts(image: Image, schbench: Workload | None = None, own: OwnWorkload | None = None) -> ToolFacts:
    """Ourselves as a verdict names us."""
    from testbed import __version__

    manifest = image.manifest
    return ToolFacts(
        testbed=__version__,
        judge=judge.VERSION,
        qemu=manifest.qemu.version,
        qemu_sha256=manifest.qemu.sha256,
        clang=manifest.clang,
        runner_sha256=manifest.runner_sha256,
        schbench=schbench.facts if schbench is not None else None,
        workload=own.facts if own is not None else None,
    )


def _read(candidate: str | tuple[str, ...], image: Image) -> Candidate:
    if isinstance(candidate, str):
        return read_candidate(candidate)
    from testbed.image import schedulers

    return read_candidate(
        candidate, examples=image.examples / "bin", examples_root=image.builder, schedulers=schedulers.directory()
    )


def _own_workload(request: Request) -> OwnWorkload | None:
    return workload.load(request.workload) if request.workload is not None else None


def _demanded(
    request: Request, candidate: str | None, own: OwnWorkload | None
) -> tuple[Policy, bytes, dict[str, tuple[Scenario, bytes]]]:
    """The policy and the scenarios that it names, each with its bytes.

    The runs that failed once come before everything else, the user's own workload behind.

    Raises:
        UsageError: the policy or the regression file can't be meant, or needs a workload that was not given.
    """
    given, data = policy.load(request.policy)
    found = regressions.load(request.regressions) if request.regressions is not None else None
    demanded, data, added = regressions.demanded(given, data, found, candidate)
    for one in added.values():
        if one.needs.workload not in (None, own.sha256 if own is not None else None):
            raise UsageError(
                f"`{one.name}` of `{request.regressions}` runs a workload that is not the one that was given",
                hint="give that one by `--workload FILE`, unchanged, or take the entry out",
            )
    demanded, data = workload.demanded(demanded, data, own)
    if own is not None:
        added = {**added, own.scenario.name: own.scenario}
    return demanded, data, {**_scenarios(given), **{name: (one, write(plain(one))) for name, one in added.items()}}


def _scenarios(demanded: Policy) -> dict[str, tuple[Scenario, bytes]]:
    """The scenarios that a policy names, checked, with the bytes that go into the case."""
    folder = data_directory("scenarios")
    found = {}
    for name in dict.fromkeys((*(demand.name for demand in demanded.scenarios), controls.SCENARIO)):
        file = folder / f"{name}.yaml"
        if file.is_file():
            data = file.read_bytes()
            found[name] = (scenario.parse(data, str(file)), data)
    return found


def _schbench(
    request: Request, demanded: Policy, scenarios: Mapping[str, tuple[Scenario, bytes]]
) -> tuple[bool, Candidate | None]:
    """Whether a scenario that is to run has schbench, and the user's own if there is one.

    Raises:
        UsageError: it can't be used, or was given for nothing.
    """
    selected = select([demand.name for demand in demanded.scenarios], request.pattern)
    needed = any(SCHBENCH in one.needs.programs for name, (one, _) in scenarios.items() if name in selected)
    if not needed and request.schbench is not None:
        raise UsageError(
            f"`--schbench {request.schbench}` is of no use: no scenario that is to run has schbench",
            hint="`testbed scenarios` lists them; policy `default` has one",
        )
    return needed, find_schbench(request.schbench, os.environ) if needed else None


def _clocks(word: str | None, demanded: Policy, desk: Desk) -> tuple[LiveProbe, frozenset[Clock]]:
    """Which clocks run, after a look at what this machine can do if that matters."""
    if word == "sim":
        return LiveProbe(available=False, reason="not asked for"), frozenset({Clock.SIM})
    if word is None and all(demand.clock is Clock.SIM for demand in demanded.scenarios):
        return LiveProbe(available=False, reason="the policy has no live scenario"), frozenset({Clock.SIM})
    live = desk.probe(desk.image)
    if word == "live":
        return live, frozenset({Clock.LIVE})
    if word == "both" or live.accelerator == "kvm":
        return live, frozenset(Clock)
    return live, frozenset({Clock.SIM})


def _clock_word(clocks: frozenset[Clock]) -> str:
    return "both" if len(clocks) > 1 else str(next(iter(clocks)))


def _selected(planned: Plan) -> tuple[str, ...]:
    return tuple(sorted({spec.scenario for spec in planned.specs if spec.role is not Role.CONTROL}))


def _question(
    request: Request,
    demanded: Policy,
    scenarios: Mapping[str, Scenario],
    artifact: Artifact,
    schbench: Workload | None,
    clocks: frozenset[Clock],
    inputs: Inputs,
    image: Image,
    reference: Artifact | None,
    work: Path,
) -> Question:
    return Question(
        policy=demanded,
        scenarios=scenarios,
        candidate=artifact.candidate.sha256,
        words=guest_command(artifact),
        timeout_ms=artifact.facts.timeout_ms,
        clocks=clocks,
        pattern=request.pattern,
        machine=request.machine,
        files=inputs.candidate,
        baseline_files=inputs.baseline,
        image=image.manifest.id,
        seeds=request.seeds or demanded.seeds,
        first_seed=request.first_seed,
        programs={SCHBENCH: schbench.argv} if schbench is not None and schbench.argv else {},
        reference=None if reference is None else attached(reference, inputs.reference),
        controls=known_schedulers(image, work, inputs.by_hash),
        control_scenario=controls.SCENARIO,
    )


def attached(artifact: Artifact, files: str) -> Attached:
    """An artifact as a plan names it."""
    return Attached(artifact.candidate.sha256, guest_command(artifact), artifact.facts.timeout_ms, files)


def known_schedulers(image: Image, work: Path, by_hash: dict[str, Path]) -> tuple[Attached, ...]:
    """The controls; their archives are written into `work` and added to `by_hash`."""
    found = []
    for number, artifact in enumerate(controls.bring(image, work, Cache.open())):
        path = work / f"control-{number}.cpio"
        digest = write_archive(path, files_for_guest(artifact))
        by_hash[digest] = path
        found.append(attached(artifact, digest))
    return tuple(found)


def _make_case(request: Request, candidate: Candidate) -> Path:
    """An empty directory for the case; never one that holds something."""
    if request.out is not None:
        case = request.out
        need_empty(case)
        try:
            case.mkdir(parents=True, exist_ok=True)
        except (NotADirectoryError, PermissionError) as error:
            raise UsageError(f"`--out {case}` can't be made: {(error.strerror or '').lower()}") from error
    else:
        folder = cases.directory()
        folder.mkdir(parents=True, exist_ok=True)
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", candidate.name.split(".")[0])[:40] or "candidate"
        now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        case = Path(tempfile.mkdtemp(prefix=f"{stem}-{now}-", dir=folder))
        case.chmod(0o755)
    if request.keep:
        (case / cases.KEEP_FILE).touch()
    (case / SCENARIOS_DIR).mkdir()
    return case


def build_only(candidate: str | tuple[str, ...], image: Image, out: Path | None, listener: Listener) -> Artifact:
    """`testbed build`: compile and look at what came out; nothing is run."""
    with ExitStack() as stack:
        directory = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="testbed-build-")))
        if out is not None:
            need_empty(out)
        return _build(_read(candidate, image), image, directory, listener, cached=False)


@dataclass(frozen=True)
class Inputs:
    """The archives that travel with jobs, by sha256.

    EEVDF's has nothing of the candidate in it, so all candidates share its runs. A reference's is what it would be if
    it were the candidate, so the runs that it had as one are found in the cache; empty if there is none.
    """

    candidate: str
    baseline: str
    by_hash: dict[str, Path]
    reference: str = ""


def archives(artifact: Artifact, travels: Mapping[str, Path], work: Path, reference: Artifact | None = None) -> Inputs:
    """Write the archives of a case into a directory; all have the files of its workloads, by path below /job."""

    def write(name: str, files: Mapping[str, Path]) -> str:
        path = work / f"{name}.cpio"
        digest = write_archive(path, {**files, **travels})
        by_hash[digest] = path
        return digest

    by_hash: dict[str, Path] = {}
    return Inputs(
        write("candidate", files_for_guest(artifact)),
        write("baseline", {}),
        by_hash,
        write("reference", files_for_guest(reference)) if reference is not None else "",
    )


def no_archives(work: Path) -> Inputs:
    """The archive of runs that have no candidate."""
    path = work / "baseline.cpio"
    name = write_archive(path, {})
    return Inputs(name, name, by_hash={name: path})


def _warn(listener: Listener) -> Callable[[str], None]:
    """Tell a listener what is wrong with the cache."""
    return lambda text: listener(StageLine(stage="cache", text=text))


@contextmanager
def _work(case: Path) -> Iterator[Path]:
    """A directory for what is needed while the guests run and is no evidence."""
    work = case / WORK_DIR
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _reference(request: Request, desk: Desk) -> Iterator[Artifact | None]:
    """What figures are compared with, built in a place that goes away; None for EEVDF.

    Raises:
        UsageError: it can't be had, or can't be attached.
        DamagedCaseError: it is a case that is not what it was.
    """
    named = baseline.find(request.baseline)
    if named is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="testbed-baseline-") as name:
        place = Path(name) / baseline.FOLDER
        place.mkdir()
        if named.case is not None:
            yield baseline.bring(named.case, place)
            return
        from testbed.image import schedulers

        candidate = baseline.candidate_of(
            request.baseline,
            named,
            examples=desk.image.examples / "bin",
            examples_root=desk.image.builder,
            schedulers=schedulers.directory(),
        )
        built = _build(candidate, desk.image, place, desk.listener, cached=request.cache, role="baseline ")
        yield baseline.usable(request.baseline, built)


def _kept(ready: Artifact | None, case: Path) -> Artifact | None:
    """What figures are compared with, as a part of the case."""
    if ready is None:
        return None
    place = case / baseline.FOLDER
    shutil.copytree(ready.directory, place)
    return Artifact(place, ready.facts)


def _build(
    candidate: Candidate, image: Image, directory: Path, listener: Listener, *, cached: bool, role: str = ""
) -> Artifact:
    """The build stage, told to the listener."""
    started = time.monotonic()
    title = f"build {role}{candidate.name}"
    listener(StageStarted(stage="build", title=title))
    if cached:
        artifact = cached_build(candidate, image, image.id, directory, Cache.open())
    else:
        artifact = build(candidate, image, directory)
    listener(
        StageEnded(
            stage="build",
            title=title,
            status=worst([Status.DONE, *(finding.status for finding in artifact.findings)]),
            elapsed_s=time.monotonic() - started,
            summary=", ".join(finding.title for finding in artifact.findings),
        )
    )
    return artifact
