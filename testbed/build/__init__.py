# SPDX-License-Identifier: Apache-2.0
"""Candidate → Artifact: compiled in the sandbox, looked at, its faults told with the source line.

artifact = build(candidate, image, case / "candidate")
artifact.findings            # what is wrong with it, and advice of the lint
artifact.ok                  # it may be attached
files_for_guest(artifact)    # what travels into the guest, by path below /job
guest_command(artifact)      # what `candidate` of the job says
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field

from testbed import candidate as candidates
from testbed.build import rules
from testbed.build.compiler import OBJECT, SOURCE, Toolchain, compile_source
from testbed.build.diagnostics import render
from testbed.build.faults import LOG, MAX_ERRORS, compile_findings, refused
from testbed.build.hints import Names, names_of
from testbed.build.object import BpfObject, ObjectError, inspect_object
from testbed.candidate import Candidate
from testbed.case import canonical_json, write_atomic
from testbed.errors import HostError, UsageError
from testbed.image.tree import file_sha256
from testbed.sources import SourceTree, printable
from testbed.spec import Model, sha256
from testbed.status import Status
from testbed.verdict import CandidateFacts, EvidenceRef, Finding, ProgramFacts

__all__ = ["Artifact", "ArtifactFacts", "ObjectFacts", "Toolchain", "build", "files_for_guest", "guest_command"]

MAX_WARNINGS = 20
ARTIFACT = "artifact.json"


class ObjectFacts(Model):
    """What the object says of its scheduler."""

    ops_symbol: str
    ops_type: str = Field(description="`sched_ext_ops`, or `sched_ext_ops_cid` for the form with compact CPU ids")
    ops_name: str
    timeout_ms: int = Field(description="0: the kernel's default, 30 s")
    flags: int = Field(description="SCX_OPS_* bits as they stand in the object")
    callbacks: dict[str, str] = Field(description="callback → program")
    license: str


class ArtifactFacts(Model):
    """`artifact.json`."""

    schema_: Literal["testbed.artifact/1"] = Field(default="testbed.artifact/1", alias="schema")
    candidate: CandidateFacts
    object: ObjectFacts | None = None
    timeout_ms: int | None = Field(default=None, description="the scheduler's own watchdog timeout; null: unknown")
    findings: tuple[Finding, ...] = ()
    warnings: tuple[str, ...] = Field(default=(), description="of the compiler, drawn with their source lines")
    files: dict[str, str] = Field(default_factory=dict, description="path below `candidate/` → sha256")
    interpreter: str = Field(default="", description="file in `lib/` that starts the program; empty: it starts itself")


@dataclass(frozen=True)
class Artifact:
    """A candidate that was built (or refused), and where its files are."""

    directory: Path
    facts: ArtifactFacts

    @property
    def candidate(self) -> CandidateFacts:
        """Which bytes these are."""
        return self.facts.candidate

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong with it."""
        return self.facts.findings

    @property
    def ok(self) -> bool:
        """Whether it is worth attaching."""
        return not any(finding.status in (Status.FAIL, Status.ERROR) for finding in self.findings)


def build(candidate: Candidate, image: Toolchain, out_dir: Path) -> Artifact:
    """Build a candidate into `out_dir` (`candidate/` of the case), which is made, and must be empty.

    A candidate that does not compile or may not be attached is no error: its artifact has findings.

    Raises:
        HostError: the sandbox or the image does not work, or a file changed while it was read.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    if candidate.kind is candidates.Kind.SOURCE:
        facts, log = _source(candidate, image, out_dir)
    elif candidate.kind is candidates.Kind.OBJECT:
        facts, log = _object(candidate, image, out_dir)
    else:
        facts, log = _program(candidate, out_dir)
    write_atomic(out_dir / LOG, log)
    write_atomic(out_dir / ARTIFACT, canonical_json(facts.model_dump(mode="json", by_alias=True)))
    return Artifact(out_dir, facts)


def load(directory: Path) -> Artifact:
    """The artifact of a case, from its `candidate/` directory.

    Raises:
        UsageError: there is none, or it is damaged.
    """
    try:
        return Artifact(directory, ArtifactFacts.model_validate_json((directory / ARTIFACT).read_bytes()))
    except (OSError, ValueError) as error:
        raise UsageError(f"no artifact in `{directory}`: {printable(str(error), 200)}") from None


def altered(artifact: Artifact) -> str | None:
    """The first of an artifact's files that is not what it was, or lies elsewhere; None if all are as they were."""
    for name, digest in artifact.facts.files.items():
        place, file = PurePosixPath(name), artifact.directory / name
        inside = not place.is_absolute() and ".." not in place.parts
        if not inside or file.is_symlink() or not file.is_file() or file_sha256(file) != digest:
            return name
    return None


def files_for_guest(artifact: Artifact) -> dict[str, Path]:
    """What travels into the guest: path below /job → file."""
    kind = artifact.candidate.kind
    travels = ("bin/", "lib/") if kind == "program" else (OBJECT,)
    return {name: artifact.directory / name for name in sorted(artifact.facts.files) if name.startswith(travels)}


def guest_command(artifact: Artifact, job: str = "/job") -> tuple[str, ...]:
    """What the job's `candidate` line says: `object PATH`, or `program PATH ARG…`.

    A dynamic program is started by the interpreter that travels with it, which finds the libraries that travel with
    it, so that it does not matter what the guest has.
    """
    facts = artifact.facts
    if facts.candidate.kind != "program":
        return ("object", OBJECT)
    name = f"bin/{facts.candidate.name}"
    if not facts.interpreter:
        return ("program", name, *facts.candidate.options)
    loader = (f"lib/{facts.interpreter}", "--library-path", f"{job}/lib", "--argv0", facts.candidate.name)
    return ("program", *loader, f"{job}/{name}", *facts.candidate.options)


# --- the three kinds -------------------------------------------------------------------------------------------


def _source(candidate: Candidate, image: Toolchain, out_dir: Path) -> tuple[ArtifactFacts, str]:
    tree = candidate.sources
    if tree is None:
        raise UsageError(f"`{candidate.name}` has no source")
    files = {}
    for name, data in tree.files.items():
        target = out_dir / name
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, data)
        files[name] = sha256(data)
    hard = [refusal for refusal in tree.refusals if refusal.hard]
    if hard:
        findings = tuple(refused(tree, refusal) for refusal in hard[:MAX_ERRORS])
        facts = CandidateFacts(
            kind="source", name=candidate.name, sha256=candidate.sha256, source_sha256=candidate.content_sha256
        )
        return ArtifactFacts(candidate=facts, findings=findings, files=files), "not compiled: an #include is refused\n"
    names = names_of(image.vmlinux_h, image.include, image.include / "bpf")
    compiled = compile_source(tree, image)
    findings = tuple(compile_findings(tree, compiled, names))
    seen: BpfObject | None = None
    if compiled.data is not None:
        write_atomic(out_dir / OBJECT, compiled.data)
        files[OBJECT] = sha256(compiled.data)
        if not findings:
            seen, about = _inspect(compiled.data, tree, names)
            findings = about
    warnings = [each for each in compiled.diagnostics if each.severity == "warning"]
    return (
        _facts(candidate, seen, findings, files).model_copy(
            update={"warnings": tuple(render(each, tree.texts) for each in warnings[:MAX_WARNINGS])}
        ),
        compiled.log,
    )


def _object(candidate: Candidate, image: Toolchain, out_dir: Path) -> tuple[ArtifactFacts, str]:
    write_atomic(out_dir / OBJECT, candidate.data)
    names = names_of(image.vmlinux_h, image.include, image.include / "bpf")
    seen, findings = _inspect(candidate.data, None, names)
    files = {OBJECT: sha256(candidate.data)}
    return _facts(candidate, seen, findings, files), "given as an object: nothing was compiled\n"


def _program(candidate: Candidate, out_dir: Path) -> tuple[ArtifactFacts, str]:
    files = {f"bin/{candidate.name}": candidate.content_sha256}
    _copy(candidate.path, out_dir / "bin" / candidate.name, candidate.content_sha256)
    log = [f"bin/{candidate.name}: {candidate.content_sha256}"]
    for library in candidate.libraries:
        name = f"lib/{library.soname}"
        _copy(library.path, out_dir / name, library.sha256)
        files[name] = library.sha256
        log.append(f"{name}: {library.sha256}")
    facts = CandidateFacts(
        kind="program",
        name=candidate.name,
        sha256=candidate.sha256,
        program_sha256=candidate.content_sha256,
        libraries={library.soname: library.sha256 for library in candidate.libraries},
        options=candidate.options,
    )
    return ArtifactFacts(candidate=facts, files=files, interpreter=candidate.interpreter), "\n".join(log) + "\n"


def _copy(source: Path, target: Path, expected: str) -> None:
    """Copy a file that was hashed before.

    Raises:
        HostError: it is not what it was, or can't be read any more.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".copy.", dir=target.parent)
    temporary = Path(name)
    try:
        digest = hashlib.sha256()
        try:
            with os.fdopen(handle, "wb") as out, source.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
                    out.write(block)
                out.flush()
                os.fchmod(out.fileno(), 0o755)
                os.fsync(out.fileno())
        except FileNotFoundError:
            raise HostError(f"`{printable(str(source))}` went away while it was read", hint="run it again") from None
        if digest.hexdigest() != expected:
            raise HostError(f"`{printable(str(source))}` changed while it was read", hint="run it again")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _inspect(data: bytes, tree: SourceTree | None, names: Names) -> tuple[BpfObject | None, tuple[Finding, ...]]:
    from testbed.lint.engine import lint  # it stands on the other modules of this package

    try:
        seen = inspect_object(data)
    except ObjectError as error:
        return None, (
            Finding(
                code="damaged-object", status=Status.FAIL, title="the object is damaged",
                message=f"the object contradicts itself: {error}",
                evidence=(EvidenceRef(file="candidate/artifact.json"),),
                cause="it was cut off, or changed by a tool that does not know BPF",
                hint="compile it again, and strip it with `llvm-strip -g` only",
            ),
        )  # fmt: skip
    texts = tree.texts if tree is not None else {}
    findings = list(rules.check(seen, texts, names, SOURCE))[: rules.MAX_FINDINGS]
    if not findings:
        findings += [found.finding() for found in lint(data, texts, names, SOURCE)]
    return seen, tuple(findings)


def _facts(
    candidate: Candidate, seen: BpfObject | None, findings: tuple[Finding, ...], files: dict[str, str]
) -> ArtifactFacts:
    ours = rules.schedulers(seen) if seen is not None else []
    ops = ours[0] if seen is not None and len(ours) == 1 else None
    source = candidate.kind is candidates.Kind.SOURCE
    object_sha = files.get(OBJECT)
    manifest = json.loads(candidate.manifest)
    if object_sha is not None:
        manifest["object"] = object_sha
    programs = seen.programs if seen is not None else ()
    facts = CandidateFacts(
        kind="source" if source else "object",
        name=candidate.name,
        sha256=sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()),
        source_sha256=candidate.content_sha256 if source else None,
        object_sha256=object_sha,
        ops_name=printable(ops.name, 128) if ops is not None else None,
        programs=tuple(
            ProgramFacts(
                name=printable(program.name, 200),
                section=printable(program.section, 200),
                instructions=program.instructions,
            )
            for program in programs
        ),
    )
    described = None
    if ops is not None and seen is not None:
        described = ObjectFacts(
            ops_symbol=printable(ops.symbol, 200),
            ops_type=ops.type,
            ops_name=printable(ops.name, 128),
            timeout_ms=ops.values.get("timeout_ms", 0),
            flags=ops.values.get("flags", 0),
            callbacks={printable(name, 200): printable(to, 200) for name, to in sorted(ops.callbacks.items())},
            license=printable(seen.license, 64),
        )
    return ArtifactFacts(
        candidate=facts,
        object=described,
        timeout_ms=described.timeout_ms or None if described is not None else None,
        findings=findings,
        files=dict(sorted(files.items())),
    )
