# SPDX-License-Identifier: Apache-2.0
"""What is judged: a `.bpf.c`, a `.bpf.o`, or a program with its options; read once, named by content.

A program travels with everything that its loader would load: the interpreter and the closure of its needed libraries,
found as ld.so finds them, without running anything.
"""

from __future__ import annotations

import difflib
import glob
import hashlib
import json
import mmap
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath

from testbed import elf
from testbed.errors import UsageError
from testbed.sources import MAX_FILE, SourceTree, collect, open_regular, printable, read_bounded
from testbed.spec import sha256

MAX_OBJECT = 32 << 20
MAX_PROGRAM = 512 << 20
MAX_LIBRARIES = 256
MAX_OPTIONS = 256
MAX_OPTION_BYTES = 16 << 10

_DEFAULT_FOLDERS = (
    "/usr/local/lib/x86_64-linux-gnu",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
)


class Kind(StrEnum):
    """The three kinds of candidate."""

    SOURCE = "source"
    OBJECT = "object"
    PROGRAM = "program"


@dataclass(frozen=True, slots=True)
class Library:
    """A shared library (or the ELF interpreter) that travels with a program."""

    soname: str
    path: Path
    sha256: str
    size: int


@dataclass(frozen=True)
class Candidate:
    """A candidate as it was given; equal bytes have an equal `sha256`, wherever they lie.

    Attributes:
        name: file name without directories.
        path: where it was read from (for messages; in no verdict).
        content_sha256: of the named file itself.
        data: its bytes; empty for a program, which is copied from `path` and checked then.
        sources: the source tree, for a source.
        options: arguments of a program.
        libraries: what travels with a program, sorted by soname, the interpreter among them.
        interpreter: soname of the ELF interpreter; empty for a static program.
    """

    kind: Kind
    name: str
    path: Path = field(compare=False)
    content_sha256: str
    data: bytes = field(default=b"", repr=False)
    sources: SourceTree | None = field(default=None, repr=False)
    options: tuple[str, ...] = ()
    libraries: tuple[Library, ...] = ()
    interpreter: str = ""

    @property
    def manifest(self) -> bytes:
        """Canonical JSON of everything that makes this candidate what it is."""
        parts: dict[str, object] = {"kind": self.kind.value, "sha256": self.content_sha256}
        if self.sources is not None:
            parts["sources"] = {path: sha256(data) for path, data in self.sources.files.items()}
        if self.kind is Kind.PROGRAM:
            parts["name"] = self.name  # a program sees its own name
            parts["options"] = list(self.options)
            parts["libraries"] = {library.soname: library.sha256 for library in self.libraries}
            parts["interpreter"] = self.interpreter
        return json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()

    @property
    def sha256(self) -> str:
        """Of the manifest: the candidate's one name."""
        return sha256(self.manifest)


def read_candidate(
    candidate: str | Sequence[str],
    *,
    examples: Path | None = None,
    examples_root: Path | None = None,
    schedulers: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Candidate:
    """Read what the command line names.

    Args:
        candidate: path of a `.bpf.c` or `.bpf.o`, or the words after `--`: PROGRAM ARGS….
        examples: folder of the schedulers that were built at set-up; their libraries are in `lib` beside it.
        examples_root: root directory for libraries of theirs that are not there.
        schedulers: folder with `bin` and `lib` of the schedulers of the crates registry, where they were built.
        environ: environment of the caller (`PATH`, `LD_LIBRARY_PATH`).

    Raises:
        UsageError: it is no candidate at all.
    """
    environ = os.environ if environ is None else environ
    if isinstance(candidate, str):
        return _file(Path(candidate))
    if not candidate:
        raise UsageError("`--` is followed by no program", hint="testbed run -- scx_simple")
    places = _Places(examples, examples_root, schedulers, environ)
    return _program(candidate[0], tuple(candidate[1:]), places)


def _file(path: Path) -> Candidate:
    name = path.name
    shown = printable(str(path))
    if name != printable(name) or not name:
        raise UsageError(f"`{shown}`: the name of a candidate must be printable text")
    if name.endswith(".c") and name != ".c":
        data = read_bounded(path, MAX_FILE, "a source file")
        if not data.strip():
            raise UsageError(f"`{shown}` is empty, expected the source of a scheduler")
        if b"\0" in data:
            raise UsageError(f"`{shown}` holds NUL bytes, expected the source of a scheduler")
        return Candidate(Kind.SOURCE, name, path, sha256(data), data, collect(path, data))
    if name.endswith(".o") and name != ".o":
        data = read_bounded(path, MAX_OBJECT, "a BPF object")
        check_object(data, shown)
        return Candidate(Kind.OBJECT, name, path, sha256(data), data)
    try:
        mode = path.stat().st_mode
    except OSError:
        raise UsageError(
            f"no such file: `{shown}`",
            hint="a candidate is a `.bpf.c`, a `.bpf.o`, or a program behind `--`: testbed run -- PROGRAM ARGS…",
        ) from None
    if stat.S_ISREG(mode) and mode & 0o111:
        raise UsageError(f"`{shown}` is a program", hint=f"put it behind `--`: testbed run -- {shown}")
    raise UsageError(
        f"`{shown}` is not a candidate: its name ends neither in `.bpf.c` nor in `.bpf.o`",
        hint="a candidate is a `.bpf.c`, a `.bpf.o`, or a program behind `--`",
    )


def check_object(data: bytes, shown: str) -> elf.Elf:
    """The object as ELF, if it can be a BPF object at all.

    Raises:
        UsageError: it is not ELF, not for BPF, or cut off.
    """
    hint = "compile it with `clang -target bpf`, or give the `.bpf.c`"
    if not data:
        raise UsageError(f"`{shown}` is empty, expected a BPF object", hint=hint)
    try:
        object_ = elf.Elf(data)
        if object_.machine != elf.MACHINE_BPF:
            raise UsageError(
                f"`{shown}` is an ELF file for {_machine(object_.machine)}, expected one for BPF", hint=hint
            )
        if object_.type != elf.TYPE_RELOCATABLE:
            raise UsageError(f"`{shown}` is an ELF file of type {object_.type}, expected an object", hint=hint)
        for section in object_.sections:
            if section.flags & elf.FLAG_COMPRESSED == 0:
                object_.content(section)
    except elf.ElfError as error:
        raise UsageError(f"`{shown}` is no BPF object: {error}", hint=hint) from None
    return object_


def _machine(number: int) -> str:
    names = {elf.MACHINE_X86_64: "x86-64", 3: "x86", 40: "ARM", 183: "ARM64", 243: "RISC-V", 22: "S/390", 21: "PowerPC"}
    return names.get(number, f"machine {number}")


@dataclass(frozen=True, slots=True)
class _Places:
    """Where a program without a path may be; see `read_candidate`."""

    examples: Path | None
    examples_root: Path | None
    schedulers: Path | None
    environ: Mapping[str, str]


def _program(word: str, options: tuple[str, ...], places: _Places) -> Candidate:
    if len(options) > MAX_OPTIONS or sum(len(option.encode("utf-8", "surrogateescape")) for option in options) > (
        MAX_OPTION_BYTES
    ):
        raise UsageError(f"more than {MAX_OPTIONS} options or {MAX_OPTION_BYTES >> 10} KiB of them")
    if any("\0" in option or not _is_text(option) for option in options):
        raise UsageError("an option of the program is not UTF-8 text")
    path, root, folders = _locate(word, places)
    shown = printable(str(path))
    name = path.name
    if name != printable(name):
        raise UsageError(f"`{shown}`: the name of a candidate must be printable text")
    content = _LoadedFile(path, f"`{shown}`")
    libraries, interpreter = _closure(content, path, root, folders)
    return Candidate(
        kind=Kind.PROGRAM,
        name=name,
        path=path,
        content_sha256=content.sha256,
        options=options,
        libraries=libraries,
        interpreter=interpreter,
    )


def _is_text(option: str) -> bool:
    try:
        option.encode()
    except UnicodeEncodeError:
        return False
    return True


def _locate(word: str, places: _Places) -> tuple[Path, Path, list[str]]:
    """The program's path, the root directory whose libraries it uses, and folders of the host to look at first."""
    host = Path("/")
    examples, schedulers = places.examples, places.schedulers
    given = [folder for folder in places.environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
    if "/" in word:
        return Path(word).absolute(), host, given
    if word in ("", ".", "..") or "\0" in word:
        raise UsageError(f"`{printable(word)}` is no name of a program")
    if examples is not None and (examples / word).is_file():
        return examples / word, places.examples_root or host, [str(examples.parent / "lib")]
    found = shutil.which(word, path=places.environ.get("PATH", os.defpath))
    if found is not None:
        return Path(found).absolute(), host, given
    if schedulers is not None and (schedulers / "bin" / word).is_file():
        return schedulers / "bin" / word, schedulers, [str(schedulers / "lib")]
    known = sorted(path.name for path in examples.iterdir()) if examples is not None and examples.is_dir() else []
    close = difflib.get_close_matches(word, known, n=1)
    built = f"built at set-up: {', '.join(known)}" if known else "nothing was built at set-up"
    raise UsageError(
        f"no program `{printable(word)}`, neither built at set-up nor on PATH",
        hint=f"did you mean `{close[0]}`? {built}"
        if close
        else f"give its path; {built}; `testbed image schedulers` builds some of the crates registry's",
    )


class _LoadedFile:
    """A program or library: its hash, its size and what its dynamic section says."""

    def __init__(self, path: Path, shown: str) -> None:
        """Read and check it.

        Raises:
            UsageError: no regular file, too large, or no x86-64 ELF file.
        """
        with open_regular(path, "a program") as file:
            info = os.fstat(file.fileno())
            if info.st_size > MAX_PROGRAM:
                raise UsageError(f"{shown} is larger than {MAX_PROGRAM >> 20} MiB")
            start = file.read(64)
            self._check_start(start, shown)
            self.size = info.st_size
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                self.sha256 = hashlib.sha256(content).hexdigest()
                self._read(content, shown)

    @staticmethod
    def _check_start(start: bytes, shown: str) -> None:
        if start.startswith(b"#!"):
            line = printable(start[2:].split(b"\n")[0].decode("utf-8", "replace").strip(), 60)
            raise UsageError(
                f"{shown} is a script (`#!{line}`), expected a compiled program",
                hint="give the program that the script starts",
            )
        if not start.startswith(b"\x7fELF"):
            raise UsageError(f"{shown} is no program: it is not an ELF file")

    def _read(self, content: mmap.mmap, shown: str) -> None:
        try:
            file = elf.Elf(content)
            if file.machine == elf.MACHINE_BPF:
                raise UsageError(
                    f"{shown} is a BPF object, not a program", hint="give it without `--`, named `….bpf.o`"
                )
            if file.machine != elf.MACHINE_X86_64:
                raise UsageError(f"{shown} is for {_machine(file.machine)}, the guest is x86-64")
            if file.type not in (elf.TYPE_EXECUTABLE, elf.TYPE_SHARED):
                raise UsageError(f"{shown} is an ELF file of type {file.type}, expected a program")
            self.interpreter = file.interpreter
            self.dynamic = file.dynamic
        except elf.ElfError as error:
            raise UsageError(f"{shown} can't be loaded: {error}") from None


def resolve_in(root: Path, path: str) -> Path:
    """Where `path` leads inside `root`, absolute links read as links of that root."""
    if root == Path("/"):
        return Path(os.path.realpath(path))
    done = PurePosixPath("/")
    todo = list(reversed(PurePosixPath("/", path).parts[1:]))
    for _ in range(256):
        if not todo:
            break
        part = todo.pop()
        if part == "..":
            done = done.parent
            continue
        here = root.joinpath(*done.parts[1:], part)
        if here.is_symlink():
            target = PurePosixPath(os.readlink(here))
            if target.is_absolute():
                done = PurePosixPath("/")
                target = target.relative_to("/")
            todo += reversed(target.parts)
        else:
            done /= part
    return root.joinpath(*done.parts[1:])


def _configured_folders(root: Path, file: str = "/etc/ld.so.conf", depth: int = 0) -> Iterator[str]:
    """Folders that the root's `ld.so.conf` names."""
    if depth > 4:
        return
    try:
        lines = resolve_in(root, file).read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        words = line.split("#")[0].split()
        if words[:1] == ["include"]:
            for pattern in words[1:]:
                base = str(root).rstrip("/")
                for name in sorted(glob.glob(base + os.path.join(os.path.dirname(file), pattern))):
                    yield from _configured_folders(root, name[len(base) :], depth + 1)
        elif words and words[0].startswith("/"):
            yield words[0].rstrip(",:")


def _closure(program: _LoadedFile, path: Path, root: Path, given: list[str]) -> tuple[tuple[Library, ...], str]:
    """Everything that ld.so would load before `main`, breadth first as it does."""
    if program.dynamic is None or not program.interpreter:
        if program.dynamic is not None and program.dynamic.needed:
            raise UsageError(f"`{printable(str(path))}` is a shared library, expected a program")
        return (), ""
    everywhere = [*_configured_folders(root), *_DEFAULT_FOLDERS]
    interpreter = PurePosixPath(program.interpreter).name
    found: dict[str, Library] = {}
    total = program.size

    def add(soname: str, place: Path) -> _LoadedFile:
        nonlocal total
        loaded = _LoadedFile(place, f"`{printable(soname)}` ({printable(str(place))})")
        total += loaded.size
        if total > MAX_PROGRAM or len(found) >= MAX_LIBRARIES:
            raise UsageError(
                f"`{printable(str(path))}` and its libraries are larger than {MAX_PROGRAM >> 20} MiB "
                f"or more than {MAX_LIBRARIES} files"
            )
        found[soname] = Library(soname, place, loaded.sha256, loaded.size)
        return loaded

    if printable(interpreter) != interpreter or not interpreter:
        raise UsageError(f"`{printable(str(path))}` names no ELF interpreter that can be meant")
    place = resolve_in(root, program.interpreter)
    if root != Path("/"):  # an example: what lies beside it comes first
        beside = [Path(folder, interpreter) for folder in given]
        place = next((file for file in beside if file.is_file()), place)
    if not place.is_file():
        raise UsageError(
            f"ELF interpreter `{printable(program.interpreter)}` of `{printable(str(path))}` is not installed"
        )
    add(interpreter, place)
    # (file, path as ld.so sees it, inherited DT_RPATHs)
    queue: list[tuple[_LoadedFile, Path, list[str]]] = [(program, path, [])]
    while queue:
        current, at, inherited = queue.pop(0)
        if current.dynamic is None:
            continue
        origin = str(at.parent)
        runpath = _expand(current.dynamic.runpath, origin)
        rpath = [] if runpath else [*_expand(current.dynamic.rpath, origin), *inherited]
        for soname in current.dynamic.needed:
            if soname in found:
                continue
            if "/" in soname or printable(soname) != soname or not soname:
                raise UsageError(
                    f"`{printable(at.name)}` needs the library `{printable(soname)}`, which is a path: it can't travel",
                    hint="link the program against the library's name (`-l…`) instead",
                )
            place_found = _find(soname, [*rpath, *given, *runpath], everywhere, root)
            if place_found is None:
                raise UsageError(
                    f"library `{printable(soname)}`, which `{printable(at.name)}` needs, is not installed",
                    hint="install it, or name its folder in LD_LIBRARY_PATH",
                )
            queue.append((add(soname, place_found), place_found, rpath))
    return tuple(sorted(found.values(), key=lambda library: library.soname)), interpreter


def _expand(paths: str, origin: str) -> list[str]:
    result = []
    tokens = {"ORIGIN": origin, "LIB": "lib/x86_64-linux-gnu", "PLATFORM": "x86_64"}
    for path in paths.split(":"):
        if path:
            result.append(
                re.sub(r"\$(?:\{(\w+)\}|(ORIGIN|LIB|PLATFORM))", lambda m: tokens.get(m[1] or m[2], m[0]), path)
            )
    return result


def _find(soname: str, own: list[str], everywhere: list[str], root: Path) -> Path | None:
    for folder in own:
        place = Path(os.path.realpath(os.path.join(folder, soname)))
        if _loadable(place):
            return place
    for folder in everywhere:
        place = resolve_in(root, f"{folder}/{soname}")
        if _loadable(place):
            return place
    return None


def _loadable(path: Path) -> bool:
    """Whether ld.so would take the file: it skips those of another machine."""
    try:
        with path.open("rb") as file:
            start = file.read(20)
    except OSError:
        return False
    return start[:6] == b"\x7fELF\x02\x01" and int.from_bytes(start[18:20], "little") == elf.MACHINE_X86_64
