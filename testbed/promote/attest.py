# SPDX-License-Identifier: Apache-2.0
"""From a case to an attestation: believes nothing that lies in the case's directory.

The candidate is built again and must come out the same; the runs must be those that the case's policy and scenarios
plan; the evidence is judged again; and every run is made again: sim runs must be the same to the bit, live runs take
the place of those in the case before it is judged once more. Only then is anything signed.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from testbed import controls, judge, replay
from testbed.build import Artifact, altered, build, guest_command
from testbed.build import load as load_artifact
from testbed.candidate import Candidate, Kind, Library, read_candidate
from testbed.case import RUNS_DIR, Case, RunEvidence, printable
from testbed.engine.local import LocalEngine
from testbed.errors import ExitCode, Interrupted, TestbedError
from testbed.image import Image, btf_sha256
from testbed.plan import Question, plan
from testbed.promote import statement
from testbed.promote.statement import Descriptor, Judged, Predicate, Ran, Statement, Told
from testbed.report.events import Listener
from testbed.scenario.model import PROGRAMS
from testbed.spec import Clock, Role, RunSpec, sha256
from testbed.status import Status
from testbed.trial import archives, known_schedulers
from testbed.verdict import Outcome, Verdict
from testbed.vm.guest import Boot, Guest
from testbed.workload import files_of

SCHBENCH = "schbench"


class Refused(TestbedError):
    """A case that is not attested; not an error of anybody who asks, but an answer."""

    addressee = "the candidate's author"
    exit_code = ExitCode.REJECT

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


@dataclass(frozen=True)
class Desk:
    """What is needed to run guests; tests put another `guest` or `image` here."""

    image: Callable[[Case, Sequence[RunEvidence]], Image]
    guest: Callable[[Boot], Guest]
    listener: Listener
    jobs: int
    cancelled: threading.Event


def attest(place: Path, desk: Desk, *, self_signed: bool, now: datetime | None = None) -> Statement:
    """Check a case from the ground up, and say what it proves.

    Args:
        place: the case's directory.
        desk: how to run guests.
        self_signed: the key that will sign is one that the asking user can read.
        now: the time of signing; None is the clock's.

    Raises:
        Refused: it is not proven to have passed.
        UsageError: it is no case, or its image is not here.
        HostError: this machine can't run its guests.
        Interrupted: the user ended it.
    """
    case = Case.open(place)
    verdict = _passed(case)
    _no_own_workload(case)
    artifact = load_artifact(case.path / "candidate")
    image = desk.image(case, case.runs)
    _same_bytes(artifact, image)
    with tempfile.TemporaryDirectory(prefix="testbed-attest-") as name:
        work = Path(name)
        _as_planned(case, artifact, image, work)
        _again(case, artifact, image, desk, work)
    types = btf_sha256(image)
    return _statement(case, verdict, types, self_signed=self_signed, now=now or datetime.now(UTC))


def _passed(case: Case) -> Verdict:
    """The verdict of the evidence, which is the one in the case."""
    verdict = judge.judge(case)
    if verdict.verdict is not Outcome.PASS:
        raise Refused(
            "not-passed", f"the evidence does not pass: {verdict.title}", hint="`testbed judge CASE` says more"
        )
    if case.verdict is None or case.verdict != verdict:
        raise Refused(
            "another-verdict",
            "the verdict that lies in the case is not the one that its evidence gives",
            hint="it was edited, or judged by other rules: run the candidate again",
        )
    if verdict.baseline.kind != "eevdf":
        # What is better than something bad must not look like better than what the host has.
        raise Refused(
            "other-baseline",
            f"its figures are told against `{verdict.baseline.name}`, and a promotion policy speaks of EEVDF",
            hint="run the candidate again without `--baseline`",
        )
    return verdict


def _no_own_workload(case: Case) -> None:
    """No workload of the user's had a say."""
    given = case.facts.tool.schbench
    if given is not None and given.origin == "given":
        own = PROGRAMS[SCHBENCH]
        raise Refused(
            "own-workload",
            f"the case ran another schbench than the image's `{own}`, which no policy knows",
            hint="run the candidate again with our own schbench",
        )
    if case.facts.tool.workload is not None or any(one.needs.workload for one in case.scenarios().values()):
        raise Refused(
            "own-workload",
            "the case ran a workload of its user's, which no policy knows",
            hint="run the candidate again without `--workload`",
        )


def _same_bytes(artifact: Artifact, image: Image) -> None:
    """The candidate's files are what their hashes say, and what the compiler makes of the source."""
    if (changed := altered(artifact)) is not None:
        raise Refused(
            "other-bytes",
            f"`candidate/{printable(changed, 100)}` is not what was judged",
            hint="run the candidate again",
        )
    if artifact.candidate.kind == "program":
        _same_program(artifact)  # it was copied, not made
        return
    with tempfile.TemporaryDirectory(prefix="testbed-attest-") as name:
        again = build(
            read_candidate(str(artifact.directory / artifact.candidate.name)), image, Path(name) / "candidate"
        )
    made, known = again.facts, artifact.facts
    if (made.candidate, made.files, made.timeout_ms, made.findings) != (
        known.candidate, known.files, known.timeout_ms, known.findings,
    ):  # fmt: skip
        raise Refused(
            "other-bytes",
            "the candidate, built again from the case's source, is not the one that was judged",
            hint="the case was edited, or made with another image: run the candidate again",
        )


def _same_program(artifact: Artifact) -> None:
    """A program is called what its files are."""
    named = artifact.candidate
    parts = {f"lib/{soname}": digest for soname, digest in named.libraries.items()}
    candidate = Candidate(
        kind=Kind.PROGRAM,
        name=named.name,
        path=artifact.directory,
        content_sha256=named.program_sha256 or "",
        options=named.options,
        libraries=tuple(Library(soname, artifact.directory, digest, 0) for soname, digest in named.libraries.items()),
        interpreter=artifact.facts.interpreter,
    )
    if artifact.facts.files != {f"bin/{named.name}": named.program_sha256, **parts} or candidate.sha256 != named.sha256:
        raise Refused(
            "other-bytes",
            "the program, its libraries or its options are not those that the case names",
            hint="the case was edited: run the candidate again",
        )


def _as_planned(case: Case, artifact: Artifact, image: Image, work: Path) -> None:
    """The runs are those that policy and scenarios ask for, and were given the job that these make."""
    specs = plan(_question(case, artifact, image, work)).specs
    if case.facts.controls != controls.expected(specs):
        raise Refused(
            "no-controls",
            f"the case names {len(case.facts.controls)} controls, "
            f"expected {', '.join(one.name for one in controls.KNOWN)}",
            hint="it was edited, or made by a testbed without controls: run the candidate again",
        )
    planned = {spec.number: spec for spec in specs}
    for run in case.runs:
        wanted = planned.get(run.spec.number if run.spec.repeats is None else run.spec.repeats)
        if wanted is None or _comparable(run.spec) != _comparable(wanted):
            raise Refused(
                "other-runs",
                f"`{run.name}` is not a run that the case's policy and scenarios make",
                hint="a case is never edited; run the candidate again",
            )


def _comparable(spec: RunSpec) -> RunSpec:
    """A spec without what says how it came about."""
    return spec.model_copy(update={"number": 0, "repeats": None, "attached": False, "wall_limit_s": 1})


def _question(case: Case, artifact: Artifact, image: Image, work: Path) -> Question:
    """The question that the case says it is the answer to."""
    facts = case.facts
    policy = case.policy()
    inputs = archives(artifact, files_of(case.path), work)
    own = {demand.name for demand in policy.scenarios if demand.seed is not None}
    seeds = {
        run.spec.seed
        for run in case.runs
        if run.clock is Clock.SIM and run.spec.role is not Role.CONTROL and run.spec.scenario not in own
    }
    return Question(
        policy=policy,
        scenarios=case.scenarios(),
        candidate=artifact.candidate.sha256,
        words=guest_command(artifact),
        timeout_ms=artifact.facts.timeout_ms,
        clocks=frozenset(run.clock for run in case.runs),
        pattern=None,
        machine=facts.topology,
        files=inputs.candidate,
        baseline_files=inputs.baseline,
        image=facts.image.id if facts.image else "",
        # Always from the first one on: who may choose where they begin may look for those that pass.
        seeds=max(len(seeds), policy.seeds),
        controls=known_schedulers(image, work, inputs.by_hash),
        control_scenario=controls.SCENARIO,
    )


def _again(case: Case, artifact: Artifact, image: Image, desk: Desk, work: Path) -> None:
    """Make every run again."""
    sim = [run for run in case.runs if run.clock is Clock.SIM and run.spec.repeats is None]
    found = 0
    for one in (
        replay.replay(case, sim, guest=desk.guest, listener=desk.listener, jobs=desk.jobs, cancelled=desk.cancelled)
        if sim
        else ()
    ):
        found += 1
        if not one.identical:
            raise Refused(
                "not-repeatable",
                f"{one.run} ({one.scenario}), run again, is another run than the one in the case",
                hint=f"testbed replay {case.path.name}/{one.run}",
            )
    if found < len(sim):
        raise Interrupted(f"interrupted after {found} of {len(sim)} runs")
    live = [run for run in case.runs if run.clock is Clock.LIVE]
    if not live:
        return
    fresh = work / "case"
    shutil.copytree(case.path, fresh)
    inputs = work / "inputs"
    inputs.mkdir()
    engine = LocalEngine(image, replay.inputs_of(case, live, inputs, image).by_hash, desk.guest)
    for run in live:
        shutil.rmtree(fresh / RUNS_DIR / run.spec.name)
        if engine.execute(run.spec, fresh / RUNS_DIR / run.spec.name, desk.cancelled, lambda line: None) is None:
            raise Interrupted("interrupted while live runs were made again")
    again = judge.judge(Case.open(fresh))
    if again.verdict is not Outcome.PASS:
        raise Refused("not-repeatable", f"with its live runs made again the case does not pass: {again.title}")


def _statement(case: Case, verdict: Verdict, types: str, *, self_signed: bool, now: datetime) -> Statement:
    """What is signed; `types` is the hash of the kernel's BTF."""
    facts = case.facts
    assert facts.kernel is not None and facts.image is not None
    runs = [run for run in case.runs if run.spec.role is Role.CANDIDATE and run.spec.repeats is None]
    by_scenario: dict[str, set[int]] = {}
    for run in runs:
        if run.clock is Clock.SIM:
            by_scenario.setdefault(run.spec.scenario, set()).add(run.spec.seed)
    ran = Ran(
        clocks=tuple(sorted({run.clock for run in runs})),
        seeds=min((len(seeds) for seeds in by_scenario.values()), default=0),
        topologies=tuple(sorted({str(run.spec.topology) for run in runs})),
        digests={run.name: run.outcome.digest for run in runs if run.outcome.digest},
    )
    told = Told(
        id=verdict.id,
        benefit=verdict.benefit.outcome,
        baseline=verdict.baseline.name,
        not_checked=tuple(one.code for one in verdict.not_checked),
    )
    judged = Judged(
        version=facts.tool.testbed,
        judge=judge.VERSION,
        time=now.astimezone(UTC).replace(microsecond=0),
        self_signed=self_signed,
    )
    candidate = verdict.candidate
    subject = statement.subject(candidate)
    configuration = [
        _descriptor(statement.CANDIDATE, subject.digest["sha256"], candidate.model_dump(mode="json")),
        _descriptor(
            statement.KERNEL,
            facts.kernel.sha256,
            {"release": facts.kernel.release, "version": facts.kernel.version, "btf_sha256": types},
        ),
        _descriptor(statement.IMAGE, facts.image.id, {"qemu": facts.tool.qemu, "qemu_sha256": facts.tool.qemu_sha256}),
        _descriptor(statement.POLICY, verdict.policy.sha256, {"name": verdict.policy.name}),
        _descriptor(statement.TOOL, facts.tool.runner_sha256, judged.model_dump(mode="json")),
        _descriptor(statement.VERDICT, sha256(judge.verdict_bytes(verdict)), told.model_dump(mode="json")),
        _descriptor(statement.RUNS, sha256(repr(sorted(ran.digests.items())).encode()), ran.model_dump(mode="json")),
        *(
            _descriptor(f"{statement.SCENARIO}{name}", sha256(data), {})
            for name, data in sorted(case.scenario_bytes.items())
        ),
    ]
    passed = tuple(f"{one.name}/{one.clock}" for one in verdict.scenarios if one.status in (Status.PASS, Status.DONE))
    return Statement(
        _type=statement.STATEMENT,
        subject=(subject,),
        predicateType=statement.PREDICATE,
        predicate=Predicate(result="PASSED", configuration=tuple(configuration), passedTests=passed),
    )


def _descriptor(name: str, digest: str, annotations: dict[str, object]) -> Descriptor:
    return Descriptor(name=name, digest={"sha256": digest}, annotations=annotations)
