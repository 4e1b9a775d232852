# SPDX-License-Identifier: Apache-2.0
"""Who belongs to the corpus: the files of its folders, and programs that are named in a list of their own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from testbed.corpus import header
from testbed.corpus.classes import CLASSES
from testbed.corpus.header import POLICIES, Header
from testbed.data import data_directory
from testbed.errors import HostError, UsageError
from testbed.image import Image
from testbed.judge.catalogue import ALL
from testbed.sandbox import Bind, Limits, Sandbox
from testbed.sources import MAX_FILE, printable, read_bounded
from testbed.spec import Model
from testbed.verdict import Outcome
from testbed.yamlfile import Document, did_you_mean, read

PROGRAMS = "programs.yaml"
MANIFEST = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](?:\./)?(\S+)")
_LIBRARIES = "-Wl,--start-group -lbpf -lelf -lz -lzstd -Wl,--end-group"


class Origin(StrEnum):
    """A part of the corpus: `tuned` was seen while checks were written, `blind` was not, `kernel` is its selftests."""

    TUNED = "tuned"
    BLIND = "blind"
    KERNEL = "kernel"


@dataclass(frozen=True)
class Member:
    """One scheduler of the corpus.

    Attributes:
        file: its source; None for what is there already.
        words: the program with its options, if it is one that is there already.
        selftest: its source among the kernel's selftests, which the image has.
        builds: `file` is a program's, which `build.sh` beside it makes.
        optional: it need not be installed.
    """

    header: Header
    origin: Origin
    file: Path | None = None
    words: tuple[str, ...] = ()
    selftest: str = ""
    builds: bool = False
    optional: bool = False

    @property
    def name(self) -> str:
        """Unique in the corpus."""
        return self.header.name

    @property
    def good(self) -> bool:
        """Whether it must pass."""
        return self.header.outcome is Outcome.PASS


_Command = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+( \S+)*$")]
_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")]


class _Program(Model):
    """An entry of `programs.yaml`: a program or a selftest."""

    run: _Command | None = Field(default=None, description="program and options")
    selftest: _Name | None = Field(default=None, description="NAME of a NAME.bpf.c of the kernel's; instead of `run`")
    expect: Literal["pass", "reject"]
    failure_class: str = Field(default="", alias="class")
    codes: tuple[str, ...] = ()
    policy: str = ""
    optional: bool = Field(default=False, description="it need not be installed")
    why: str = Field(min_length=1)


class _Programs(Model):
    schema_: Literal["testbed.programs/1"] = Field(alias="schema")
    programs: tuple[_Program, ...]


def usual_folder() -> Path:
    """`bpf/` of the clone.

    Raises:
        UsageError: the package was installed without one.
    """
    folder = data_directory("scenarios").parent / "bpf"
    if not folder.is_dir():
        raise UsageError("there is no corpus beside this package", hint="name its folder: testbed corpus DIR")
    return folder


def members(folder: Path) -> tuple[Member, ...]:
    """Everybody, every header checked: tuned before blind before the kernel's own, good before bad, by name.

    Raises:
        UsageError: no corpus, a header that lies, a blind file that is not the one that was frozen.
    """
    listed = list(_programs(folder / PROGRAMS))
    kernel = [one for one in listed if one.origin is Origin.KERNEL]
    found = [*_tuned(folder, listed), *_blind(folder / "blind"), *sorted(kernel, key=lambda one: not one.good)]
    if not found:
        raise UsageError(f"`{printable(str(folder))}` holds no corpus", hint="expected `good/` and `bad/` in it")
    names: dict[str, Member] = {}
    for one in found:
        if one.name in names:
            raise UsageError(f"two schedulers of the corpus are called `{one.name}`: {_place(names[one.name], one)}")
        names[one.name] = one
    return tuple(found)


def _place(*ones: Member) -> str:
    return " and ".join(str(one.file) if one.file is not None else PROGRAMS for one in ones)


def _tuned(folder: Path, listed: Sequence[Member]) -> Iterator[Member]:
    programs = [one for one in listed if one.origin is Origin.TUNED]
    yield from _files(folder / "good", Origin.TUNED, good=True)
    yield from (one for one in programs if one.good)
    yield from _files(folder / "bad", Origin.TUNED, good=False)
    yield from (one for one in programs if not one.good)


def _files(folder: Path, origin: Origin, *, good: bool) -> Iterator[Member]:
    for file in sorted(folder.glob("*.bpf.c")):
        yield Member(header.read(file, good=good), origin, file)
    for place in sorted(path for path in folder.glob("*") if (path / "build.sh").is_file()):
        main = place / f"{place.name}.c"
        yield Member(header.read(main, good=good), origin, main, builds=True)


def _programs(file: Path) -> Iterator[Member]:
    if not file.is_file():
        return
    document = Document(read(file), str(file))
    for index, one in enumerate(document.model(_Programs).programs):
        checks: list[tuple[str, str, Collection[str]]] = [("codes", code, ALL) for code in one.codes]
        checks += [("policy", one.policy, POLICIES)] if one.policy else []
        checks += [("class", one.failure_class, CLASSES)] if one.expect == "reject" else []
        for key, word, known in checks:
            if word not in known:
                raise document.error(
                    ("programs", index, key), f"`{key}`: there is no `{word}`", did_you_mean(word, known)
                )
        name = one.run or one.selftest
        if name is None or (one.run and one.selftest):
            raise document.error(("programs", index), "expected one of `run` and `selftest`", "")
        found = Header(
            name=name,
            outcome=Outcome(one.expect),
            failure_class=one.failure_class if one.expect == "reject" else "",
            codes=one.codes,
            policy=one.policy,
        )
        yield Member(
            found,
            Origin.KERNEL if one.selftest else Origin.TUNED,
            words=tuple(one.run.split()) if one.run else (),
            selftest=f"{one.selftest}.bpf.c" if one.selftest else "",
            optional=one.optional,
        )


def _blind(folder: Path) -> list[Member]:
    """The blind ones, if their folder is as it was frozen."""
    if not folder.is_dir():
        return []
    frozen = _manifest(folder / MANIFEST)
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.c"))}
    for name, (line, digest) in frozen.items():
        if name not in files:
            if name.endswith(".c"):
                raise UsageError(f"{folder / MANIFEST}:{line}: `{name}` is not there")
        elif hashlib.sha256(read_bounded(files[name], MAX_FILE, "a source file")).hexdigest() != digest:
            raise UsageError(
                f"{files[name]}:1: this is not the file that was frozen ({MANIFEST}, line {line})",
                hint="a blind file is never changed; put the frozen one back",
            )
    if stray := sorted(set(files) - set(frozen)):
        raise UsageError(f"{files[stray[0]]}:1: not in `{MANIFEST}`, so nobody knows that it is blind")
    return [*_files(folder / "good", Origin.BLIND, good=True), *_files(folder / "bad", Origin.BLIND, good=False)]


def _manifest(file: Path) -> dict[str, tuple[int, str]]:
    """Path → line and hash."""
    found: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(read_bounded(file, MAX_FILE, "a list of hashes").decode("utf-8").splitlines(), 1):
        entry = _LINE.fullmatch(line)
        if entry is None:
            raise UsageError(f"{file}:{number}: expected a line of `sha256sum`")
        found[entry[2]] = (number, entry[1])
    return found


def build_program(source: Path, image: Image, out: Path) -> Path:
    """Make a scheduler program of its folder, in the image's builder root.

    Args:
        source: its main file, NAME.c.
        image: has the compiler, libbpf and the kernel's types.
        out: an existing directory.

    Raises:
        HostError: `build.sh` failed.
    """
    sandbox = Sandbox(
        root=image.builder,
        read_only=(
            Bind(source.parent, "/src"),
            Bind(image.include, "/image"),
            Bind(data_directory("vm_images") / "runner", "/work"),
        ),
        writable=(Bind(out, "/out"),),
        env=(
            ("VMLINUX_H", "/image/vmlinux.h"),
            ("SCX_INCLUDE", "/image"),
            ("BPF_CFLAGS", "-I/image/uapi -I/image/bpf-compat"),
            ("LDFLAGS", f"-static -D_GNU_SOURCE /work/eu_search.c {_LIBRARIES}"),
        ),
        limits=Limits(wall_s=120, output_bytes=1 << 20),
    )
    made = sandbox.run(["sh", "/src/build.sh", "/src", "/out"])
    program = out / source.stem
    if not made.ok or not program.is_file():
        raise HostError(
            f"`{source.parent / 'build.sh'}` failed: {printable(made.text[-500:])}", hint="run `testbed image build`"
        )
    return program
