# SPDX-License-Identifier: Apache-2.0
"""The case and its runs on disk: written once, read typed (docs/reference/case.md).

Nothing that is read here is believed because it is there. Files have bounds, JSON has models, and a line of the
stream counts as the runner's word only if its MAC says so.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from testbed.errors import TestbedError, UsageError
from testbed.spec import Clock, Model, Role, RunSpec, Topology, first_mistake
from testbed.verdict import BaselineFacts, CandidateFacts, Finding, ImageFacts, KernelFacts, ToolFacts, Verdict

if TYPE_CHECKING:
    from testbed.policy import Policy
    from testbed.scenario import Scenario

CASE_FILE = "case.json"
ARTIFACT_FILE = "candidate/artifact.json"
POLICY_FILE = "policy.yaml"
VERDICT_FILE = "verdict.json"
SCENARIOS_DIR = "scenarios"
RUNS_DIR = "runs"
SPEC_FILE = "spec.json"
STREAM_FILE = "stream"
KEY_FILE = "key"
CONSOLE_FILE = "console.log"
TRACE_FILE = "trace"
QEMU_LOG_FILE = "qemu.log"
OUTCOME_FILE = "outcome.json"
COMMAND_FILE = "command.txt"

MAX_JSON = 8 << 20
MAX_STREAM = 64 << 20
MAX_CONSOLE = 16 << 20
MAX_RUNS = 10_000
MAX_EVENT = 4096
MAC_DIGITS = 32
KEY_BYTES = 32

M = TypeVar("M", bound=BaseModel)


class DamagedCaseError(TestbedError):
    """Evidence that can't be read: the case is of no use, whatever it once said."""

    addressee = "the case's owner"


# --- writing -------------------------------------------------------------------------------------------------


def canonical_json(value: object) -> bytes:
    """The one JSON form of the testbed: sorted keys, two spaces, ASCII, a final newline."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=True, allow_nan=False)
    return text.encode("ascii") + b"\n"


def need_empty(directory: Path, option: str = "--out") -> None:
    """See that a directory which an option names is empty, or not there yet.

    Raises:
        UsageError: there is something.
    """
    if os.path.lexists(directory) and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"`{option} {directory}` exists and is not an empty directory", hint="name a new one")


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file or none: temporary name, sync, rename, sync of the folder."""
    raw = data.encode("utf-8") if isinstance(data, str) else data
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_model(path: Path, model: BaseModel) -> None:
    """Write a model as canonical JSON."""
    write_atomic(path, canonical_json(model.model_dump(mode="json", by_alias=True)))


# --- what the files say --------------------------------------------------------------------------------------


class Ended(StrEnum):
    """How the host saw a guest end."""

    FINISHED = "finished"
    POWEROFF = "poweroff"
    PANIC = "panic"
    WATCHDOG = "watchdog"
    NEVER_CONNECTED = "never_connected"
    WALL_LIMIT = "wall_limit"
    PAUSED = "paused"
    QEMU_DIED = "qemu_died"
    INTERRUPTED = "interrupted"


class GuestOutcome(Model):
    """`outcome.json`: how the guest ended, as the host saw it.

    Attributes:
        snapshot: hash of the memory that a sim guest began with.
        digest: over everything that it did and said (testbed/digest.py); empty where the host had a hand in its end.
    """

    schema_: Literal["testbed.outcome/1"] = Field(default="testbed.outcome/1", alias="schema")
    accelerator: str
    qemu: str
    ended: Ended
    reason: str = ""
    qmp: tuple[str, ...] = ()
    console_lost: int = Field(default=0, ge=0)
    stream_lost: int = Field(default=0, ge=0)
    snapshot: str = ""
    digest: str = ""


class PlannedRun(Model):
    """One run that should happen."""

    scenario: str
    clock: Clock
    role: Role
    seed: int


class NotRun(Model):
    """A (scenario, clock) that was demanded and left out, and why."""

    scenario: str
    clock: Clock
    reason: str


class LiveProbe(Model):
    """What the probe of the live clock said."""

    available: bool
    accelerator: str | None = None
    reason: str = ""


class Control(Model):
    """What a control run is expected to say; it judges the testbed, not the candidate (testbed/controls.py)."""

    run: int = Field(ge=0)
    name: str
    expect: Literal["pass", "fail"] = "pass"


class CaseFile(Model):
    """`case.json`: how the question was asked."""

    schema_: Literal["testbed.case/1"] = Field(default="testbed.case/1", alias="schema")
    policy: str = POLICY_FILE
    clock: Literal["sim", "live", "both"] = "sim"
    selected: tuple[str, ...] | None = None
    cpus: int | None = None
    topology: Topology | None = None
    planned: tuple[PlannedRun, ...] = ()
    not_run: tuple[NotRun, ...] = ()
    stopped_early: bool = False
    interrupted: bool = False
    image: ImageFacts | None = None
    kernel: KernelFacts | None = None
    tool: ToolFacts
    live: LiveProbe = LiveProbe(available=False, reason="not probed")
    controls: tuple[Control, ...] = ()
    baseline: BaselineFacts = BaselineFacts()


class Artifact(BaseModel):
    """`candidate/artifact.json`: what is judged, and what the build stage found."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_: Literal["testbed.artifact/1"] = Field(default="testbed.artifact/1", alias="schema")
    candidate: CandidateFacts
    findings: tuple[Finding, ...] = ()
    timeout_ms: int | None = None


# --- the stream ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """One verified line of the stream."""

    line: int
    seq: int
    t: int
    name: str
    fields: Mapping[str, Any]

    def text(self, key: str) -> str:
        """The field as text, empty if it is no text."""
        value = self.fields.get(key)
        return value if isinstance(value, str) else ""

    def integer(self, key: str, default: int = 0) -> int:
        """The field as a whole number."""
        value = self.fields.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else default

    def number(self, key: str, default: float = 0.0) -> float:
        """The field as a number."""
        value = self.fields.get(key)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default

    def flag(self, key: str) -> bool:
        """The field as true or false; what is missing is false."""
        return self.fields.get(key) is True


@dataclass(frozen=True)
class Damage:
    """A line that is not the runner's word, or the place where one is missing."""

    kind: Literal["forged", "malformed", "missing"]
    line: int
    detail: str


@dataclass(frozen=True)
class Stream:
    """What the runner said, as far as it can be believed."""

    events: tuple[Event, ...] = ()
    damage: tuple[Damage, ...] = ()
    preamble: int = 0
    cut: bool = False

    def of(self, *names: str) -> tuple[Event, ...]:
        """The events with one of these names."""
        return tuple(event for event in self.events if event.name in names)

    def first(self, name: str) -> Event | None:
        """The first event of that name."""
        return next((event for event in self.events if event.name == name), None)

    def damaged(self, kind: str) -> tuple[Damage, ...]:
        """All damage of one kind."""
        return tuple(damage for damage in self.damage if damage.kind == kind)


_STREAM_LINE = re.compile(rb"(\d{1,18}) ([0-9a-f]{32}) (\{[\x20-\x7e]*\})")


def mac(key: bytes, seq: int, payload: bytes) -> str:
    """First 16 bytes of HMAC-SHA256 over `SEQ JSON`, in hex."""
    digest = hmac.new(key, b"%d " % seq + payload, hashlib.sha256).hexdigest()
    return digest[:MAC_DIGITS]


def stream_line(seq: int, key: bytes, fields: Mapping[str, object]) -> bytes:
    """One line as the runner writes it; `fields` begin with `t` and `e`."""
    payload = json.dumps(fields, ensure_ascii=True, separators=(",", ":")).encode("ascii")
    return b"%d %s %s\n" % (seq, mac(key, seq, payload).encode("ascii"), payload)


def parse_stream(data: bytes, key: bytes) -> Stream:
    """Sort the lines of a stream into events and damage. Never raises, whatever the bytes.

    Lines before the first verified event are the firmware's: SeaBIOS speaks on the same port before the guest's
    kernel runs. A last line without its end is what a guest that died leaves behind, no damage.
    """
    lines = data.split(b"\n")
    cut = lines.pop() != b""
    events: list[Event] = []
    damage: list[Damage] = []
    preamble = 0
    for number, line in enumerate(lines, start=1):
        found = _STREAM_LINE.fullmatch(line)
        if found is None or len(line) > MAX_EVENT + MAC_DIGITS + 24:
            if events:
                damage.append(Damage("malformed", number, printable(line)))
            else:
                preamble = number
            continue
        seq = int(found[1])
        if not hmac.compare_digest(mac(key, seq, found[3]), found[2].decode("ascii")):
            damage.append(Damage("forged", number, printable(line)))
            continue
        expected = events[-1].seq + 1 if events else 0
        if seq < expected:
            damage.append(Damage("forged", number, f"sequence number {seq} was sent before"))
            continue
        event = _event(number, seq, found[3])
        if event is None:
            damage.append(Damage("malformed", number, printable(line)))
            continue
        if seq > expected:
            damage.append(Damage("missing", number, f"sequence jumps from {expected - 1} to {seq}"))
        events.append(event)
    return Stream(tuple(events), tuple(damage), preamble, cut)


def _event(line: int, seq: int, payload: bytes) -> Event | None:
    try:
        fields = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    name, t = fields.get("e"), fields.get("t")
    if not isinstance(name, str) or not isinstance(t, int) or isinstance(t, bool):
        return None
    return Event(line, seq, t, name, fields)


# --- the console ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Console:
    """What the kernel said: bytes of untrusted content, by line."""

    data: bytes = b""
    truncated: bool = False

    @cached_property
    def lines(self) -> tuple[bytes, ...]:
        """The lines, without their ends."""
        lines = self.data.replace(b"\r\n", b"\n").split(b"\n")
        return tuple(line.rstrip(b"\r") for line in (lines[:-1] if lines[-1] == b"" else lines))


_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")


def printable(text: str | bytes, limit: int = 400) -> str:
    """Untrusted text as one harmless ASCII line: no escapes, no control characters, bounded."""
    if isinstance(text, bytes):
        text = text[: limit * 4].decode("utf-8", "replace")
    text = _ESCAPE.sub("", text[: limit * 4])
    clean = "".join(char if " " <= char <= "~" else (" " if char in "\t\n" else f"\\x{ord(char):02x}") for char in text)
    return clean if len(clean) <= limit else clean[: limit - 3] + "..."


# --- a run, a case -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunEvidence:
    """Everything that one guest boot left behind."""

    spec: RunSpec
    outcome: GuestOutcome
    stream: Stream = Stream()
    console: Console = Console()

    @property
    def name(self) -> str:
        """The run's directory below the case, e.g. `runs/003`."""
        return f"{RUNS_DIR}/{self.spec.name}"

    @property
    def clock(self) -> Clock:
        """The clock that the guest ran by."""
        return self.spec.clock


@dataclass(frozen=True)
class Case:
    """A case as it lies on disk."""

    path: Path
    facts: CaseFile
    artifact: Artifact | None = None
    runs: tuple[RunEvidence, ...] = ()
    unfinished: tuple[str, ...] = ()
    policy_bytes: bytes = b""
    scenario_bytes: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> Case:
        """Read a case. A case without `verdict.json` is an interrupted one and can be read all the same."""
        if not (path / CASE_FILE).is_file():
            raise UsageError(f"`{path}` is not a case: it has no `{CASE_FILE}`")
        artifact = path / ARTIFACT_FILE
        scenarios = {file.stem: read_bounded(file, MAX_JSON) for file in sorted((path / SCENARIOS_DIR).glob("*.yaml"))}
        runs: list[RunEvidence] = []
        unfinished: list[str] = []
        folder = path / RUNS_DIR
        names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        for name in [name for name in names if re.fullmatch(r"\d{3,}", name)][:MAX_RUNS]:
            if (folder / name / OUTCOME_FILE).is_file():
                runs.append(read_run(folder / name))
            else:
                unfinished.append(f"{RUNS_DIR}/{name}")
        policy = path / POLICY_FILE
        return cls(
            path=path,
            facts=read_model(path / CASE_FILE, CaseFile),
            artifact=read_model(artifact, Artifact) if artifact.is_file() else None,
            runs=tuple(sorted(runs, key=lambda run: run.spec.number)),
            unfinished=tuple(unfinished),
            policy_bytes=read_bounded(policy, MAX_JSON) if policy.is_file() else b"",
            scenario_bytes=scenarios,
        )

    @property
    def verdict(self) -> Verdict | None:
        """The verdict that lies in the case, None if it was interrupted before it had one."""
        path = self.path / VERDICT_FILE
        return read_model(path, Verdict) if path.is_file() else None

    def policy(self) -> Policy:
        """The policy, as it was given."""
        from testbed import policy

        return policy.parse(self.policy_bytes, POLICY_FILE)

    def scenarios(self) -> dict[str, Scenario]:
        """The scenarios, as they were given, by name."""
        from testbed import scenario

        return {
            name: scenario.parse(data, f"{SCENARIOS_DIR}/{name}.yaml") for name, data in self.scenario_bytes.items()
        }

    def sources(self) -> dict[str, str]:
        """The candidate's C sources by path below `candidate/`, for messages that quote a line."""
        folder = self.path / "candidate"
        found: dict[str, str] = {}
        for file in sorted(folder.rglob("*.[ch]")):
            if file.is_file() and not file.is_symlink():
                found[file.relative_to(folder).as_posix()] = read_bounded(file, MAX_JSON).decode("utf-8", "replace")
        return found


def read_run(directory: Path) -> RunEvidence:
    """Read one run's directory."""
    spec = read_model(directory / SPEC_FILE, RunSpec)
    if directory.name != spec.name:
        raise DamagedCaseError(f"`{_short(directory / SPEC_FILE)}` is run {spec.number}, expected `{directory.name}`")
    key = read_key(directory)
    stream = directory / STREAM_FILE
    console = directory / CONSOLE_FILE
    # A guest that never started may have left neither; that is a fact about the run, no damage.
    said = read_bounded(stream, MAX_STREAM, cut=True) if stream.is_file() else b""
    printed = read_bounded(console, MAX_CONSOLE + 1, cut=True) if console.is_file() else b""
    return RunEvidence(
        spec=spec,
        outcome=read_model(directory / OUTCOME_FILE, GuestOutcome),
        stream=parse_stream(said, key),
        console=Console(printed[:MAX_CONSOLE], truncated=len(printed) > MAX_CONSOLE),
    )


def read_key(directory: Path) -> bytes:
    """The key of a run's stream."""
    text = read_bounded(directory / KEY_FILE, 4096).strip()
    if not re.fullmatch(rb"[0-9a-f]{%d}" % (2 * KEY_BYTES), text):
        raise DamagedCaseError(f"`{_short(directory / KEY_FILE)}` is not {KEY_BYTES} bytes in hex")
    return bytes.fromhex(text.decode("ascii"))


def read_bounded(path: Path, limit: int, *, cut: bool = False) -> bytes:
    """The bytes of an evidence file, at most `limit`; what is beyond is an error, or cut off."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise DamagedCaseError(f"cannot read `{_short(path)}`: {(error.strerror or str(error)).lower()}") from None
    if len(data) > limit:
        if not cut:
            raise DamagedCaseError(f"`{_short(path)}` is larger than {limit} bytes")
        data = data[:limit]
    return data


def read_model(path: Path, kind: type[M]) -> M:
    """A JSON file as a `kind`."""
    try:
        return kind.model_validate_json(read_bounded(path, MAX_JSON))
    except ValidationError as error:
        place, wrong = first_mistake(error)
        raise DamagedCaseError(
            f"`{_short(path)}` is damaged: {place + ': ' if place else ''}{printable(wrong)}",
            hint="a case is never edited; run the candidate again",
        ) from None


def _short(path: Path) -> str:
    """The end of a path that says where in the case it is."""
    parts = path.parts
    for anchor in (RUNS_DIR, "candidate", SCENARIOS_DIR):
        if anchor in parts[-4:]:
            return "/".join(parts[len(parts) - 1 - parts[::-1].index(anchor) :])
    return path.name
