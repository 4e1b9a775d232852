# SPDX-License-Identifier: Apache-2.0
"""Loading, attaching, staying, leaving, and the machine's health afterwards; and steps that failed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from testbed.case import Event, printable
from testbed.judge.view import NS_PER_MS, View
from testbed.verdict import EvidenceRef, Finding

_REJECTED = re.compile(r"BPF program load failed|BEGIN PROG LOAD LOG|processed \d+ insns")


def findings(view: View, baseline: View | None) -> Iterator[Finding]:
    """What the steps say."""
    if view.has_candidate:
        yield from _attach(view)
        yield from _stayed(view)
        yield from _detach(view)
    yield from _health(view)
    yield from _limit(view)
    yield from _steps(view, baseline)


def _attach(view: View) -> Iterator[Finding]:
    failed = next((event for event in view.run.stream.of("attach") if not event.flag("ok")), None)
    steps = [done for step, done in view.steps if step.text("verb") in ("attach", "cycle") and done is not None]
    if failed is None:
        broken = next((done for done in steps if not done.flag("ok")), None)
        detached = any(not event.flag("ok") for event in view.run.stream.of("detach"))
        if broken is not None and view.ejection is None and not detached:
            detail = broken.text("detail") or "no reason given"
            yield view.found("attach-failed", f"attaching failed: {detail}", [view.ref(broken)])
        return
    stage, detail = failed.text("stage"), failed.text("detail")
    ejected = view.ejection
    if ejected is not None and stage in ("attach", "enable"):
        return  # the kernel's own reason is told by the kernel's checks
    refs = [view.ref(failed)]
    number = failed.text("errno") or (str(failed.integer("errno")) if failed.integer("errno") else "")
    words = f"stage `{stage}` failed" + (f" with {number}" if number else "") + (f": {detail}" if detail else "")
    rejected = _verifier(view)
    if rejected is not None and stage in ("open", "load", "attach", "enable"):
        log, source = rejected
        refs.append(EvidenceRef(file=refs[0].file, line=view.log_line(source), text=f"log of `{source}`"))
        yield _rejection(view, log, refs)
    elif stage in ("open", "load"):
        said = _tail(view.log("libbpf") or view.log("program"))
        yield view.found("load-failed", words + (f"; the loader says: {said}" if said else ""), refs)
    else:
        said = _tail(view.log("program") or view.log("libbpf"))
        yield view.found("attach-failed", words + (f"; its last words: {said}" if said else ""), refs)


def _verifier(view: View) -> tuple[str, str] | None:
    """The verifier's log of a rejection and who printed it, None if it rejected nothing."""
    refused = any(not event.flag("ok") for event in view.run.stream.of("load"))
    log = view.log("verifier")
    if log.strip() and (refused or _REJECTED.search(log)):
        return log, "verifier"
    for source in ("program", "libbpf"):
        log = view.log(source)
        if "BPF program load failed" in log or "BEGIN PROG LOAD LOG" in log:
            return log, source
    return None


def _rejection(view: View, log: str, refs: list[EvidenceRef]) -> Finding:
    """What the verifier wanted, in the build stage's words where it has some."""
    found = view.found("verifier-rejected", f"the verifier says: {_last_words(log)}", refs)
    try:
        # A case can be judged without the tools of the build stage.
        from testbed.build.verifier import explain_rejection
    except ImportError:
        return found
    explained = explain_rejection(log, view.sources).finding(tuple(refs))
    return explained.model_copy(update={"scenario": found.scenario, "clock": found.clock})


def _last_words(log: str) -> str:
    """The line of a verifier's log that says why: the last before its statistics."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for line in reversed(lines):
        if not re.match(r"processed \d+ insns|-- (?:BEGIN|END)|verification time|stack depth|libbpf:|max_states", line):
            return printable(line, 300)
    return "nothing"


def _tail(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return printable(" / ".join(lines[-2:]), 300)


def _stayed(view: View) -> Iterator[Finding]:
    """Between attaching and detaching: enabled, by us, once, with all tasks."""
    asked = view.restart

    def excused(event: Event) -> bool:
        """A scheduler that asked to be restarted while CPUs moved may be, and only then."""
        return asked is not None and view.cpus_moved(event.t)

    moves = (event for event in view.run.stream.of("tampered") if "enable_seq" in event.text("what"))
    moved = next((event for event in moves if not excused(event)), None)
    attached: Event | None = None
    sequence = 0
    gone: Event | None = None
    rejected: Event | None = None
    for event in view.run.stream.events:
        match event.name:
            case "attach":
                attached = event if event.flag("ok") else None
                sequence = event.integer("enable_seq")
            case "detach" | "exit":
                attached = None
            case "step" if event.text("verb") in ("detach", "cycle", "attach"):
                attached = None
            case "beat" if attached is not None:
                if event.integer("enable_seq") > sequence:
                    sequence = event.integer("enable_seq")
                    moved = moved or (None if excused(event) else event)
                elif event.text("state") not in ("enabled", ""):
                    gone = gone or event
                if event.integer("rejected") > 0:
                    rejected = rejected or event
    if moved is not None:
        yield view.found(
            "restart-loop",
            f"`enable_seq` moved {view.since_attach(moved)} although the testbed attached nothing",
            [view.ref(moved)],
        )
    elif gone is not None and view.ejection is None and asked is None and not _asked_to_leave(view):
        yield view.found(
            "unregistered-itself",
            f"the state was `{printable(gone.text('state'), 40)}` {view.since_attach(gone)}, and nobody had detached",
            [view.ref(gone)],
        )
    if rejected is not None:
        yield view.found(
            "tasks-rejected",
            f"the scheduler rejected {rejected.integer('rejected')} tasks, which run under EEVDF instead",
            [view.ref(rejected)],
        )


def _asked_to_leave(view: View) -> bool:
    """Whether the console names a reason of the kernel, which the kernel's checks tell."""
    return any(b"disabled (" in line and b"sched_ext: BPF" in line for line in view.run.console.lines)


def _detach(view: View) -> Iterator[Finding]:
    for event in view.run.stream.of("detach"):
        if event.flag("ok"):
            continue
        state = event.text("state")
        elapsed = event.integer("elapsed_ns") // NS_PER_MS
        detail = event.text("detail")
        words = f"after {elapsed} ms the state was `{printable(state, 40)}`" + (f": {detail}" if detail else "")
        later = next(
            (beat for beat in view.run.stream.of("beat") if beat.seq > event.seq and beat.text("state") == "disabled"),
            None,
        )
        if later is not None or state == "disabled":
            after = f"; it was gone {view.since_attach(later)}" if later is not None else ""
            yield view.found("slow-detach", words + after, [view.ref(event)])
        else:
            yield view.found("detach-failed", words, [view.ref(event)])
        return


def _health(view: View) -> Iterator[Finding]:
    failed = [event for event in view.run.stream.of("health") if not event.flag("ok")]
    if failed:
        probes = ", ".join(f"`{printable(event.text('probe'), 20)}`" for event in failed[:6])
        yield view.found(
            "unhealthy-after-detach",
            f"probes that failed after the scheduler was gone: {probes}",
            [view.ref(event) for event in failed[:4]],
        )


def _limit(view: View) -> Iterator[Finding]:
    limit = view.run.stream.first("limit")
    if limit is None:
        return
    going = next((step for step, done in view.steps if done is None), None)
    words = "the job was not over when its limit in guest time was"
    if going is not None:
        words += f", during step {going.integer('i')} (`{printable(going.text('verb'), 20)}`)"
    code = "no-progress" if view.attach_begun is not None else "guest-no-status"
    yield view.found(code, words, [view.ref(limit)])


_TOLD = ("attach", "cycle", "detach", "health", "hold", "sleep", "write")
_TOLD_OF_WORKLOADS = (*_TOLD, "wait")
"""What testbed/judge/own.py tells of the user's."""


def _steps(view: View, baseline: View | None) -> Iterator[Finding]:
    """Steps that failed and have no finding of their own yet."""
    if view.ejection is not None or view.run.stream.first("limit") is not None:
        return
    fine = {
        step.integer("i") for step, done in (baseline.steps if baseline is not None else ()) if done and done.flag("ok")
    }
    told = _TOLD if view.scenario.needs.workload is None else _TOLD_OF_WORKLOADS
    for step, done in view.steps:
        verb = step.text("verb")
        if done is None or done.flag("ok") or verb in told:
            continue
        detail = done.text("detail")
        words = f"step {step.integer('i')} (`{printable(verb, 20)}`) failed" + (f": {detail}" if detail else "")
        yield view.found(_step_code(view, step, verb, detail, fine), words, [view.ref(done)])
        return


_PREPARES = ("sysctl", "begin", "end")
_NO_SUCH = re.compile(
    r"no load of kind|not an option|too many|more than|runs already|no such|nothing of the name|exit status 127"
)


def _step_code(view: View, step: Event, verb: str, detail: str, fine: set[int]) -> str:
    """Whose fault a failed step is.

    After attaching, whatever the baseline's same step did well is the candidate's: a task that can't be forked, gives
    no sign of life, does not end or does not die. What a scenario asks wrongly fails without a candidate too.
    """
    after = view.attach_begun is not None and step.seq > view.attach_begun.seq
    if not after or verb in _PREPARES or _NO_SUCH.search(detail):
        return "step-failed"
    if verb == "cpu":
        return "hotplug-blocked" if step.integer("i") in fine else "step-failed"
    if re.search(r"; last line: memory grew by \d+ kB", detail):
        return "memory-grows" if step.integer("i") in fine else "step-failed"
    if re.search(r"\bcgroup\b", detail) and "ETIMEDOUT" not in detail:
        return "cgroup-vetoed" if step.integer("i") in fine else "step-failed"
    if re.search(r"\bfork\b", detail) and "ETIMEDOUT" not in detail:
        return "fork-vetoed"
    slow = re.search(r"ETIMEDOUT|in time|no sign of life|have not died|has not died", detail)
    return "no-progress" if slow or step.integer("i") in fine else "step-failed"
