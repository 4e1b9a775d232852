# SPDX-License-Identifier: Apache-2.0
"""A whole case: runs paired with baselines, failures confirmed, scenarios added up, the verdict."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.case import CASE_FILE, OUTCOME_FILE, VERDICT_FILE, Case, RunEvidence, canonical_json, write_atomic
from testbed.errors import ExitCode
from testbed.judge import benefit, own, truth_table, unseen
from testbed.judge.assess import Assessment, assess
from testbed.judge.catalogue import CODES
from testbed.policy import Demand, Policy
from testbed.policy import facts as policy_facts
from testbed.scenario import Scenario
from testbed.spec import Clock, Role, sha256
from testbed.status import Status, worst
from testbed.verdict import (
    Benefit,
    CandidateFacts,
    ControlResult,
    EvidenceRef,
    Figure,
    Finding,
    Outcome,
    ProgramFacts,
    RunResult,
    Safety,
    ScenarioResult,
    Verdict,
)

JUDGE_VERSION = 6
"""Raised whenever the same evidence may get another verdict."""

_BENEFIT_CODES = frozenset(("latency-collapse", "throughput-collapse", "workload-worse"))

Key = tuple[str, Clock]


@dataclass
class _Part:
    """What is known of one demanded (scenario, clock)."""

    demand: Demand
    status: Status
    reason: str = ""
    findings: list[Finding] = field(default_factory=list)
    confirmed: bool = False
    runs: list[RunResult] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    unmeasured: str = ""
    """How what figures are compared with failed."""


def judge(case: Case, policy: Policy | None = None, policy_bytes: bytes | None = None) -> Verdict:
    """The verdict of a case: a pure function of its files and the policy (default: the case's own)."""
    demanded = policy if policy is not None else case.policy()
    raw = policy_bytes if policy_bytes is not None else case.policy_bytes
    scenarios = case.scenarios()
    build = list(case.artifact.findings) if case.artifact else []
    built = case.artifact is not None and not any(one.status in (Status.FAIL, Status.ERROR) for one in build)
    assessed = _assess_all(case, scenarios, demanded)
    parts = [_part(case, demand, demanded, assessed, built=built) for demand in demanded.scenarios]
    controls = _controls(case, assessed)
    surprises = list(_surprises(case, controls))
    facts = truth_table.Facts(
        control_surprised=bool(surprises),
        build_failed=any(one.status is Status.FAIL for one in build),
        confirmed_fail=any(part.confirmed for part in parts),
        required_error=any(part.demand.required and part.status is Status.ERROR for part in parts)
        or any(one.status is Status.ERROR for one in build),
        required_miss=any(part.demand.required and part.status is Status.MISS for part in parts)
        or not any(part.demand.required for part in parts),
        interrupted=case.facts.interrupted,
        reference_failed=any(part.demand.required and part.unmeasured for part in parts),
    )
    row = truth_table.decide(facts)
    findings = _ordered(build, parts, surprises)
    figures = [figure for part in parts for figure in part.figures]
    results = tuple(
        ScenarioResult(
            name=part.demand.name,
            clock=part.demand.clock,
            required=part.demand.required,
            status=part.status,
            reason=part.reason,
            runs=tuple(part.runs),
        )
        for part in parts
    )
    looked_at = [one for key, ones in assessed.items() if demanded.demand(*key) for one in ones]
    values: dict[str, Any] = {
        "verdict": row.outcome,
        "exit_code": int(ExitCode.INTERRUPTED if case.facts.interrupted else row.outcome.exit_code),
        "complete": not case.facts.interrupted
        and (built or facts.build_failed)
        and not any(part.demand.required and part.status is Status.MISS for part in parts),
        "title": _title(row, findings, parts),
        "safety": _safety(row, facts, findings, parts),
        "benefit": _benefit(case, figures, parts, built=built),
        "candidate": _candidate(case, looked_at),
        "baseline": case.facts.baseline,
        "kernel": case.facts.kernel,
        "image": case.facts.image,
        "tool": case.facts.tool.model_copy(update={"judge": JUDGE_VERSION}),
        "policy": policy_facts(raw, demanded),
        "scenarios": results,
        "controls": controls,
        "findings": findings,
        "not_checked": unseen.not_checked(case, results, looked_at, figures, built=built),
    }
    return sealed(Verdict(id="", **values))


def sealed(verdict: Verdict) -> Verdict:
    """The verdict with the id that its content gives it."""
    content = verdict.model_dump(mode="json", by_alias=True, exclude={"id"})
    return verdict.model_copy(update={"id": sha256(canonical_json(content))[:16]})


def verdict_bytes(verdict: Verdict) -> bytes:
    """`verdict.json`, byte for byte the same wherever it is made."""
    return canonical_json(verdict.model_dump(mode="json", by_alias=True))


def write_verdict(case_dir: Path, verdict: Verdict) -> Path:
    """Write `verdict.json`, the last file of a case."""
    path = case_dir / VERDICT_FILE
    write_atomic(path, verdict_bytes(verdict))
    return path


# --- runs ----------------------------------------------------------------------------------------------------


def pairs(runs: Sequence[RunEvidence], role: Role = Role.BASELINE) -> dict[int, RunEvidence]:
    """Number of a run → the baseline run (or that of another `role`) that it is compared with.

    Same scenario, clock, machine, image and seed. Where several have all that (live), the first goes with the first;
    a repetition has the baseline of the run that it repeats.
    """

    def key(run: RunEvidence) -> tuple[object, ...]:
        spec = run.spec
        return spec.scenario, spec.clock, spec.topology, spec.image, spec.seed

    baselines: dict[tuple[object, ...], list[RunEvidence]] = defaultdict(list)
    for run in runs:
        if run.spec.role is role and run.spec.repeats is None:
            baselines[key(run)].append(run)
    found: dict[int, RunEvidence] = {}
    used: dict[tuple[object, ...], int] = defaultdict(int)
    for run in runs:
        ones = baselines[key(run)]
        if run.spec.role in (role, Role.BASELINE) or run.spec.repeats is not None or not ones:
            continue
        place = (run.spec.role, *key(run))
        found[run.spec.number] = ones[min(used[place], len(ones) - 1)]
        used[place] += 1
    for run in runs:
        if run.spec.repeats is not None and run.spec.repeats in found:
            found[run.spec.number] = found[run.spec.repeats]
    return found


def _assess_all(case: Case, scenarios: dict[str, Scenario], policy: Policy) -> dict[Key, list[Assessment]]:
    result: dict[Key, list[Assessment]] = defaultdict(list)
    baselines = pairs(case.runs)
    sources = case.sources()
    for run in case.runs:
        scenario = scenarios.get(run.spec.scenario)
        if scenario is None:
            continue
        baseline = baselines.get(run.spec.number)
        result[run.spec.scenario, run.clock].append(
            assess(run, scenario=scenario, policy=policy, baseline=baseline, sources=sources)
        )
    return result


# --- scenarios -----------------------------------------------------------------------------------------------


def _part(case: Case, demand: Demand, policy: Policy, assessed: dict[Key, list[Assessment]], *, built: bool) -> _Part:
    ones = assessed.get((demand.name, demand.clock), [])
    part = _Part(demand, Status.MISS)
    part.runs = [_run_result(one) for one in ones if one.view.run.spec.role is not Role.CONTROL]
    repeats = {
        one.view.run.spec.repeats: one
        for one in ones
        if one.view.run.spec.role is Role.CANDIDATE and one.view.run.spec.repeats is not None
    }
    first = [one for one in ones if one.view.run.spec.role is Role.CANDIDATE and one.view.run.spec.repeats is None]
    statuses: list[Status] = []
    for one in first:
        cut_short = case.facts.stopped_early or case.facts.interrupted
        statuses.append(_confirmed(part, one, repeats.get(one.view.run.spec.number), cut_short=cut_short))
    for finding in _diverged(ones):
        part.findings.append(finding)
        statuses.append(Status.ERROR)
    for one in ones:
        if one.view.run.spec.role is Role.BASELINE and one.status is Status.ERROR:
            statuses.append(Status.ERROR)
            part.findings.extend(one.findings)
    if first:
        against_eevdf = _measured(ones, first, Role.BASELINE)
        other = case.facts.baseline.kind != "eevdf"
        measured = _measured(ones, first, Role.REFERENCE) if other else against_eevdf
        if other:
            _look_at_reference(part, ones)
        part.figures = list(benefit.figures(measured, policy))
        beside_eevdf = list(benefit.figures(against_eevdf, policy))
        _live_collapse(part, policy, first[0], beside_eevdf, statuses)
        for finding in own.worse(first[0].view, beside_eevdf):
            # All pairs together say so: they repeat each other.
            part.findings.append(finding.model_copy(update={"confirmed": True}))
            part.confirmed = True
            statuses.append(Status.FAIL)
    seeds = {one.view.run.spec.seed for one in first}
    missing = _missing(case, demand, policy, seeds, built=built)
    if not missing and Status.MISS in statuses:
        missing = "the case ended before a failure could be confirmed"
    elif missing:
        statuses.append(Status.MISS if built else Status.SKIP)
    part.status = worst(statuses)
    part.reason = _reason(part, missing)
    return part


def _measured(ones: Sequence[Assessment], first: Sequence[Assessment], role: Role) -> list[benefit.Pair]:
    """First runs of the candidate with what they are compared with, where both did their job."""
    by_number = {one.view.run.spec.number: one for one in ones}
    chosen = {number: by_number[run.spec.number] for number, run in pairs([one.view.run for one in ones], role).items()}
    return [
        (one.view, beside.view)
        for one in first
        if one.status is Status.PASS
        and (beside := chosen.get(one.view.run.spec.number)) is not None
        and beside.status in (Status.DONE, Status.PASS)
    ]


def _look_at_reference(part: _Part, ones: Sequence[Assessment]) -> None:
    """Tell, without blaming the candidate, what keeps figures from being compared."""
    for one in ones:
        spec = one.view.run.spec
        if spec.role is not Role.REFERENCE or spec.repeats is not None or one.status is Status.PASS:
            continue
        cause = next(finding for finding in one.findings if finding.status is one.status)
        words = cause.title.removesuffix(f" in {part.demand.name}")
        part.unmeasured = part.unmeasured or words
        part.findings.append(one.view.found("reference-failed", f"{words}: {cause.message}", cause.evidence))


def _diverged(ones: Sequence[Assessment]) -> Iterator[Finding]:
    """Runs under virtual time whose repetition did something else: what must not happen, whoever the candidate is."""
    by_number = {one.view.run.spec.number: one for one in ones}
    for one in ones:
        spec = one.view.run.spec
        if spec.repeats is None or spec.clock is not Clock.SIM or spec.repeats not in by_number:
            continue
        first = by_number[spec.repeats].view
        digests = (first.run.outcome.digest, one.view.run.outcome.digest)
        if all(digests) and digests[0] != digests[1]:
            yield one.view.found(
                "run-diverged",
                f"{first.run.name} and {one.view.run.name} had the same inputs; "
                f"their digests are {digests[0][:16]} and {digests[1][:16]}",
                [first.outcome_ref(), one.view.outcome_ref()],
            )


def _confirmed(part: _Part, one: Assessment, repeat: Assessment | None, *, cut_short: bool) -> Status:
    """The status of a run after its repetition has been asked; MISS if the case ended before it could be."""
    if one.status is not Status.FAIL:
        part.findings.extend(one.findings)
        return one.status
    if repeat is not None and repeat.status is Status.FAIL:
        again = {finding.code for finding in repeat.findings if finding.status is Status.FAIL}
        part.findings.extend(
            finding.model_copy(update={"confirmed": finding.code in again})
            if finding.status is Status.FAIL
            else finding
            for finding in one.findings
        )
        part.confirmed = True
        return Status.FAIL
    failed = [finding for finding in one.findings if finding.status is Status.FAIL]
    part.findings.extend(finding for finding in one.findings if finding.status is not Status.FAIL)
    if repeat is None and cut_short:
        return Status.MISS
    if repeat is None:
        words = f"{one.view.run.name} failed and was not repeated"
    else:
        words = f"{one.view.run.name} failed, {repeat.view.run.name} repeated it and ended as {repeat.status}"
    refs = [ref for finding in failed for ref in finding.evidence[:1]][:4]
    if repeat is not None:
        refs.append(EvidenceRef(file=f"{repeat.view.run.name}/{OUTCOME_FILE}", line=1))
    part.findings.append(
        one.view.found("not-reproduced", f"{words}; the failure was: {failed[0].title}: {failed[0].message}", refs)
    )
    return Status.ERROR


def _live_collapse(
    part: _Part, policy: Policy, one: Assessment, figures: Iterable[Figure], statuses: list[Status]
) -> None:
    """Live figures collapse against EEVDF over all their pairs, which repeat each other."""
    if part.demand.clock is not Clock.LIVE or policy.benefit.required != "not-collapsed":
        return
    for figure in figures:
        if figure.judgement != "worse" or figure.candidate is None or figure.baseline is None:
            continue
        if not benefit.collapsed(figure.candidate, figure.baseline, figure.unit, figure.better, policy):
            continue
        code = "latency-collapse" if benefit.is_latency(figure.unit) else "throughput-collapse"
        found = one.view.found(
            code,
            f"`{figure.name}` is {figure.candidate:.6g} {figure.unit}, the baseline's {figure.baseline:.6g} "
            f"{figure.unit} (medians)",
            [one.view.outcome_ref()],
        )
        part.findings.append(found.model_copy(update={"confirmed": True}))
        part.confirmed = True
        statuses.append(Status.FAIL)


def _missing(case: Case, demand: Demand, policy: Policy, seeds: set[int], *, built: bool) -> str:
    """Why a demanded part did not run, or not often enough; empty if it did."""
    wanted = max(policy.seeds, demand.seeds) if demand.clock is Clock.SIM and demand.seed is None else 1
    if len(seeds) >= wanted:
        return ""
    if not built:
        return "the candidate was not built"
    for one in case.facts.not_run:
        if (one.scenario, one.clock) == (demand.name, demand.clock):
            return one.reason
    if case.facts.interrupted:
        return "the user ended it"
    if case.facts.selected is not None and demand.name not in case.facts.selected:
        return "deselected by an option"
    if case.facts.clock not in ("both", demand.clock):
        return f"only the clock `{case.facts.clock}` was asked for"
    if demand.clock is Clock.LIVE and not case.facts.live.available:
        return f"the live clock is not available: {case.facts.live.reason}"
    if case.facts.stopped_early:
        return "stopped after the first failure"
    if seeds:
        return f"{len(seeds)} of {wanted} seeds ran"
    return "it did not run"


def _reason(part: _Part, missing: str) -> str:
    """Why the part is not PASS, in a line."""
    if part.status in (Status.FAIL, Status.ERROR):
        deciding = next((one for one in part.findings if one.status is part.status), None)
        if deciding is not None:
            return deciding.title.removesuffix(f" in {part.demand.name}")
    return missing


def _run_result(one: Assessment) -> RunResult:
    run = one.view.run
    return RunResult(
        run=run.name,
        role=run.spec.role,
        status=one.status,
        accelerator=run.outcome.accelerator,
        topology=run.spec.topology,
        seed=run.spec.seed,
        repeats=f"runs/{run.spec.repeats:03d}" if run.spec.repeats is not None else None,
        ended=run.outcome.ended,
        virtual_ms=one.view.last_ms,
        measurements=one.measurements,
    )


def answer(status: Status) -> str:
    """What a run says, in the words in which a control's answer is known."""
    return {Status.FAIL: "fail", Status.PASS: "pass"}.get(status, str(status).lower())


def _controls(case: Case, assessed: dict[Key, list[Assessment]]) -> tuple[ControlResult, ...]:
    """What became of the runs whose answer is known."""
    got = {
        one.view.run.spec.number: answer(one.status)
        for ones in assessed.values()
        for one in ones
        if one.view.run.spec.role is Role.CONTROL
    }
    return tuple(
        ControlResult(name=known.name, run=f"runs/{known.run:03d}", expected=known.expect, got=got.get(known.run, ""))
        for known in case.facts.controls
    )


def _surprises(case: Case, controls: Sequence[ControlResult]) -> Iterator[Finding]:
    """Controls that got another answer than the known one, or none though the case came to its end."""
    cut_short = case.facts.stopped_early or case.facts.interrupted or not case.runs
    for one in controls:
        if one.got == one.expected or (not one.got and cut_short):
            continue
        what = f"got {one.got}" if one.got else "it did not run"
        place = f"{one.run}/{OUTCOME_FILE}" if one.got else CASE_FILE
        entry = CODES["control-surprised"]
        yield Finding(
            code="control-surprised",
            status=entry.status,
            title=entry.title,
            message=f"control `{one.name}`: expected {one.expected}, {what}",
            evidence=(EvidenceRef(file=place, line=1),),
            cause=entry.cause,
            hint=entry.fix,
        )


# --- the whole -----------------------------------------------------------------------------------------------


def _ordered(build: Sequence[Finding], parts: Sequence[_Part], surprises: Sequence[Finding]) -> tuple[Finding, ...]:
    """Worst first, required before optional, else in the order of the policy."""
    ranked: list[tuple[int, int, int, Finding]] = []
    for finding in (*surprises, *build):
        ranked.append((finding.status.rank, 0, len(ranked), finding))
    seen: set[tuple[str, str, str, str]] = set()
    for part in parts:
        for finding in part.findings:
            # The same finding under other seeds is told once.
            key = (finding.code, finding.scenario, str(finding.clock), _load(finding))
            if key not in seen:
                seen.add(key)
                ranked.append((finding.status.rank, not part.demand.required, len(ranked), finding))
    return tuple(finding for *_, finding in sorted(ranked, key=lambda one: one[:3]))


def _load(finding: Finding) -> str:
    return finding.message.partition("`")[2].partition("`")[0] if finding.code in _TOLD_PER_LOAD else ""


_TOLD_PER_LOAD = frozenset(
    (
        "canary-starved",
        "crawl",
        "unfair-share",
        "latency-collapse",
        "throughput-collapse",
        "not-measured",
        "workload-broken",
        "workload-failed",
        "workload-worse",
    )
)


def _title(row: truth_table.Row, findings: Sequence[Finding], parts: Sequence[_Part]) -> str:
    if row.outcome is Outcome.PASS:
        return "no fault found"
    wanted = Status.FAIL if row.outcome is Outcome.REJECT else Status.ERROR
    deciding = next((one for one in findings if one.status is wanted), None)
    if row.outcome is Outcome.REJECT and deciding is not None:
        return deciding.title
    required = {
        part.demand.name
        for part in parts
        if part.demand.required
        and (part.unmeasured if row is truth_table.REFERENCE_FAILED else part.status is Status.ERROR)
    }
    deciding = next(
        (
            one
            for one in findings
            if one.status is Status.ERROR
            and (one.scenario in required or not one.scenario or one.code == "control-surprised")
        ),
        None,
    )
    if deciding is not None:
        return deciding.title
    missed = [part for part in parts if part.demand.required and part.status is Status.MISS]
    if missed:
        return f"{missed[0].demand.name} did not run: {missed[0].reason}"
    return "nothing was required"


def _safety(
    row: truth_table.Row, facts: truth_table.Facts, findings: Sequence[Finding], parts: Sequence[_Part]
) -> Safety:
    failed = [one for one in findings if one.status is Status.FAIL and one.code not in _BENEFIT_CODES]
    if row.outcome is not Outcome.INCONCLUSIVE and failed:
        clocks = {one.clock for one in failed if one.clock is not None}
        decided = Clock.SIM if Clock.SIM in clocks else Clock.LIVE if clocks else None
        summary = failed[0].title + (f" (decided by `{decided}`)" if decided else " (build stage)")
        return Safety(outcome="fail", decided_by=decided, summary=summary)
    passed = [part for part in parts if part.status in (Status.PASS, Status.FAIL)]  # FAILs are collapses here
    if (
        row.outcome is Outcome.PASS
        or row is truth_table.REFERENCE_FAILED
        or (row.outcome is Outcome.REJECT and not facts.required_error and not facts.required_miss)
    ):
        names = ", ".join(dict.fromkeys(part.demand.name for part in passed)) or "nothing"
        return Safety(outcome="pass", summary=f"no task starved, no CPU locked up, healthy after detach: {names}")
    return Safety(outcome="inconclusive", summary=f"{row.when}: {row.because}")


def _benefit(case: Case, figures: Sequence[Figure], parts: Sequence[_Part], *, built: bool) -> Benefit:
    if not built:
        return Benefit(outcome="not measured", summary="the candidate was not built")
    failed = {part.demand.name: part.unmeasured for part in parts if part.unmeasured}
    return benefit.conclude(figures, case.facts.baseline.name, failed)


def _candidate(case: Case, looked_at: Iterable[Assessment]) -> CandidateFacts:
    """The facts of the build stage, and what the guest's verifier added to them."""
    if case.artifact is None:
        return CandidateFacts(kind="source", name="unknown", sha256="")
    facts = case.artifact.candidate
    programs: dict[str, ProgramFacts] = {program.name: program for program in facts.programs}
    ops_name = facts.ops_name
    for one in looked_at:
        run = one.view.run
        if run.spec.role is not Role.CANDIDATE or not run.stream.of("load", "attach"):
            continue
        for event in run.stream.of("load"):
            name = event.text("prog")
            known = programs.get(name, ProgramFacts(name=name, section=event.text("section")))
            programs[name] = known.model_copy(
                update={
                    "instructions": event.integer("insns") or known.instructions,
                    "verified_instructions": event.integer("verified") or known.verified_instructions,
                }
            )
        attached = next((event for event in run.stream.of("attach") if event.text("ops")), None)
        ops_name = ops_name or (attached.text("ops") if attached else None)
        break
    return facts.model_copy(
        update={"programs": tuple(programs[name] for name in sorted(programs)), "ops_name": ops_name}
    )
