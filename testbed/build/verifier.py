# SPDX-License-Identifier: Apache-2.0
"""What the verifier wanted, in plain words, at the source line that it means.

Pure: the log goes in, a diagnosis comes out. Known messages are in one table, newest wording first; an unknown one is
told in the verifier's own words. The whole log stays in the case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from testbed.build.diagnostics import Diagnostic, render
from testbed.build.hints import OLD_NAMES
from testbed.build.verifier_rules import RULES, Rule
from testbed.sources import printable
from testbed.status import Status
from testbed.verdict import EvidenceRef, Finding

CODE = "verifier-rejected"
MAX_LOG = 8 << 20
_TAIL = 5000  # lines of the log's end in which the reason is looked for
_LAST = 3  # of those that say anything, so many are looked at


@dataclass(frozen=True, slots=True)
class VerifierDiagnosis:
    """Why a program was not loaded.

    Attributes:
        program: the BPF program; empty where the log does not say.
        title: stable: no register, number or name of this candidate.
        said: the verifier's own line.
        wanted: what it wanted, in plain words.
        hint: the smallest thing that usually helps.
        file, line, text: the source line; empty, 0 and empty where the log does not say.
        log_line: line of `said` in the log, from 1.
        known: the message is in the table.
        rendered: everything, several lines, the source line underlined.
    """

    program: str
    title: str
    said: str
    wanted: str
    hint: str
    file: str
    line: int
    text: str
    log_line: int
    known: bool
    rendered: str

    def finding(self, evidence: tuple[EvidenceRef, ...] = ()) -> Finding:
        """The diagnosis as a finding; `evidence` says where in the case the log is."""
        own: tuple[EvidenceRef, ...] = ()
        if self.file and self.line:
            own = (EvidenceRef(file=f"candidate/{self.file}", line=self.line, text=self.text[:400]),)
        return Finding(
            code=CODE,
            status=Status.FAIL,
            title=f"the verifier rejects it: {self.title}",
            message=self.rendered,
            evidence=(*own, *evidence),
            cause=self.wanted,
            hint=self.hint,
        )


_BEGIN = re.compile(r"prog '([^']+)': -- BEGIN PROG LOAD LOG --")
_END = re.compile(r"-- END PROG LOAD LOG --")
_FAILED = re.compile(
    r"prog '([^']+)': (?:BPF program load failed|failed to load|failed to auto-attach|failed to create)"
)
_VALIDATING = re.compile(r"^Validating (\w+)\(\) func#\d+")
_PLACE = re.compile(r"^(?:\d+: )?; (?P<text>.*?) ?@ (?P<file>[^@\s]+):(?P<line>\d+)\s*$")
_NOISE = re.compile(
    r"^\s*$|^processed \d+ insns|^verification time|^stack depth"
    r"|^(?:from )?\d+(?: to \d+)?(?: \([^)]*\))?: |^; |"
    r"^(?:libbpf: )?(?:prog '[^']*': )?(?:-- (?:BEGIN|END)|BPF program load failed|failed to load)"
    r"|^R\d+(?:_\w)?=|"
    r"^libbpf: (?:failed to load|loading|elf:|map|sec|struct_ops|extern|CO-RE|collecting|license of"
    r"|kernel version)|"
    r"^(?:func#\d+ @\d+|Live regs before insn:|last_idx|mark_precise|regs=|parent |frame\d+:|cur state:"
    r"|old state:|"
    r"mark_read|insn_processed|peak_states|\s+\d+: )|^Func#\d+|^arg#\d+ reference type\(|^Validating |"
    r"^func '[^']*' arg\d+ (?:has btf_id|type)|^(?:caller|callee|returning from callee|to caller at \d+):"
    r"|^<invalid "
)
_REPORT = re.compile(r"^Verification failed: (.*)$")
_AT = re.compile(r"^  (?:(?P<who>\S+) @ )?(?P<file>[^\s:]+):(?P<line>\d{1,7}):(?P<column>\d{1,5})$")
_STORE = re.compile(r"^\d+: \([0-9a-f]{2}\) (?:lock )?\*\(u(?:8|16|32|64) \*\)\(r(\d+) ?[+-]\d+\) =")
_INSTRUCTION = re.compile(r"^\d+: \([0-9a-f]{2}\) ")


def explain_rejection(log: str, sources: Mapping[str, str], program: str = "") -> VerifierDiagnosis:
    """Explain why a program was not loaded.

    Args:
        log: what the verifier said, or what libbpf said with the verifier's log inside; untrusted.
        sources: the candidate's source files by relative path.
        program: the program that failed, where something else knows it; the log's own word comes first.
    """
    if len(log) > MAX_LOG:
        log = log[-MAX_LOG:]
    lines = [printable(line.rstrip("\r"), 1000).rstrip() for line in log.split("\n")]
    first, last, named = _part(lines)
    report = _report(lines, first, last)
    at, rule, match = _reason(lines, first, report.begins if report is not None else last)
    said = lines[at].strip() if at >= 0 else ""
    spot = _in_sources(report.place, sources) if report is not None else None
    if spot is None or spot.file not in sources:
        # the kernel's report points into a header: the candidate's own line before it says more
        own = _place(lines, first, at if at >= 0 else last, sources)
        spot = own if own.file in sources or spot is None or not spot.file else spot
    name = named or _validating(lines, first, at) or program
    explained, advice = (report.reason, report.suggestion) if report is not None else ("", "")
    if rule is not None and match is not None:
        groups = [_plain(group) for group in match.groups()]
        title, wanted, hint = rule.title, _fill(rule.wanted, groups), _fill(rule.hint, groups)
        old = OLD_NAMES.get(groups[0]) if groups else None
        if old is not None:
            hint = f"`{groups[0]}` is the name of an older kernel, now: {old}"
    else:
        title, wanted, hint = _unknown(lines, first, last, said)
        wanted, hint, explained = explained or wanted, advice or hint, ""
    rendered = _draw(name, title, (said, explained, wanted), hint, spot, sources)
    return VerifierDiagnosis(
        name, title, said, wanted, hint, spot.file, spot.line, spot.text, at + 1, rule is not None, rendered
    )


@dataclass(frozen=True, slots=True)
class _Spot:
    """A place as the log tells it; `column` 0 is the whole line."""

    file: str = ""
    line: int = 0
    column: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class _Report:
    """The report that newer kernels (7.3) write below the message: reason, place, suggestion."""

    begins: int
    reason: str
    suggestion: str
    place: _Spot


def _report(lines: list[str], first: int, last: int) -> _Report | None:
    begins = next((index for index in range(last - 1, first - 1, -1) if _REPORT.match(lines[index])), -1)
    if begins < 0:
        return None
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in lines[begins + 1 : min(last, begins + 2000)]:
        if line in ("Reason:", "At:", "Suggestion:", "Causal path:"):
            current = sections.setdefault(line[:-1], [])
        elif line.startswith("  "):
            current.append(line)
        elif line:  # what stands below the report has no indent
            current = []
    match = next((found for line in sections.get("At", []) if (found := _AT.match(line))), None)
    place = _Spot()
    if match is not None:
        marked = next((line for line in sections["At"] if line.startswith("  >>> ")), "")
        text = marked.partition(" | ")[2].strip()
        place = _Spot(match["file"], int(match["line"]), int(match["column"]), text)
    return _Report(begins, _joined(sections.get("Reason", [])), _joined(sections.get("Suggestion", [])), place)


def _joined(lines: list[str]) -> str:
    """Wrapped lines as one, in the style of our messages."""
    text = " ".join(line.strip() for line in lines).rstrip(".")
    return text[:1].lower() + text[1:] if text[:1].isupper() and text[1:2].islower() else text


def _part(lines: list[str]) -> tuple[int, int, str]:
    """The lines about the program that failed, and its name."""
    name, first, last = "", 0, len(lines)
    for index, line in enumerate(lines):
        begun = _BEGIN.search(line)
        if begun:
            name, first, last = begun.group(1), index + 1, len(lines)
        elif _END.search(line):
            last = index
    if not name:
        failed = next((match for line in lines if (match := _FAILED.search(line))), None)
        name = failed.group(1) if failed else ""
    return first, last, name


def _reason(lines: list[str], first: int, last: int) -> tuple[int, Rule | None, re.Match[str] | None]:
    """The line that says why: among the last lines that say anything the one that the best rule knows."""
    for low, high in ((first, last), (0, len(lines))):
        meaningful: list[int] = []
        for index in range(high - 1, max(low, high - _TAIL) - 1, -1):
            if not _NOISE.match(lines[index]):
                meaningful.append(index)
                if len(meaningful) == _LAST:
                    break
        for rule in RULES:
            for index in meaningful:
                match = rule.pattern.search(lines[index])
                if match:
                    return index, rule, match
        if meaningful:
            return meaningful[0], None, None
    return -1, None, None


def _place(lines: list[str], first: int, at: int, sources: Mapping[str, str]) -> _Spot:
    """The last source line before line `at`, one of the candidate's own files if there is one."""
    nearest = _Spot()
    for index in range(min(at, len(lines) - 1), first - 1, -1):
        match = _PLACE.match(lines[index])
        if match:
            spot = _in_sources(_Spot(match["file"], int(match["line"][:7]), 0, match["text"].strip()), sources)
            if spot.file in sources:
                return spot
            nearest = nearest if nearest.file else spot
    return nearest


def _in_sources(spot: _Spot, sources: Mapping[str, str]) -> _Spot:
    """The place with the file's path in the candidate: the verifier knows the last part of the name only."""
    base = spot.file.rsplit("/", 1)[-1]
    same = [path for path in sorted(sources) if base and path.rsplit("/", 1)[-1] == base]

    def line_of(path: str) -> str:
        found = sources[path].split("\n")
        return found[spot.line - 1].strip() if 1 <= spot.line <= len(found) else ""

    best = next((path for path in same if line_of(path) == spot.text), same[0] if len(same) == 1 else "")
    return replace(spot, file=best or base, text=line_of(best) if best else spot.text)


def _validating(lines: list[str], first: int, at: int) -> str:
    for index in range(min(at, len(lines) - 1), first - 1, -1):
        match = _VALIDATING.match(lines[index])
        if match:
            return match.group(1)
    return ""


def _plain(group: str | None) -> str:
    """A name as the candidate's author writes it: `scx_bpf_dsq_insert___v2` is a compat header's."""
    return (group or "").split("___")[0] or (group or "")


def _fill(template: str, groups: list[str]) -> str:
    for index, group in enumerate(groups):
        template = template.replace(f"{{{index}}}", group)
    return template


def _unknown(lines: list[str], first: int, last: int, said: str) -> tuple[str, str, str]:
    """Title, wanted and hint where no rule fits."""
    if not said:
        instruction = next(
            (lines[index] for index in range(last - 1, first - 1, -1) if _INSTRUCTION.match(lines[index])), ""
        )
        if _STORE.match(instruction):
            return (
                "writes to what is read-only",
                "the verifier refused this store without a word: of a task only `scx.slice`, "
                "`scx.dsq_vtime` and "
                "`scx.disallow` may be written, nothing else of the kernel",
                "keep the value in task storage of your own",
            )
        return (
            "without a word",
            "the verifier's log ends without a reason",
            "the last instructions before the end of the log are where it stopped",
        )
    plain = re.sub(r"\d+", "N", re.sub(r"'[^']*'|0x[0-9a-f]+", "…", said))
    return (
        printable(plain, 120),
        f"the verifier says: {said}",
        "the lines before it in the log show what it knew about each register",
    )


def _draw(
    name: str, title: str, words: tuple[str, str, str], hint: str, spot: _Spot, sources: Mapping[str, str]
) -> str:
    said, explained, wanted = words
    who = f"`{name}`" if name else "the program"
    texts = dict(sources)
    if spot.file and spot.file not in texts and 0 < spot.line < 1 << 20:
        texts = {spot.file: "\n" * (spot.line - 1) + spot.text}
    notes = []
    if said and said not in wanted:
        notes.append(Diagnostic("note", f"the verifier's words: {said}"))
    if explained:
        notes.append(Diagnostic("note", f"the kernel explains: {explained}"))
    notes.append(Diagnostic("note", wanted, hint=hint))
    error = f"the verifier rejects {who}: {title}"
    column, length = spot.column if spot.file in sources else 0, 1
    if column:
        line = texts.get(spot.file, "").split("\n")[spot.line - 1 : spot.line]
        word = re.match(r"\w+(?:\(|->\w+)*|[^\w\s]+", line[0][column - 1 :]) if line else None
        column, length = (column, len(word.group().rstrip("("))) if word else (0, 1)
    return render(Diagnostic("error", error, spot.file, spot.line, column, length, notes=tuple(notes)), texts)
