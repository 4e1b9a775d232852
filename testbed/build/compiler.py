# SPDX-License-Identifier: Apache-2.0
"""clang for BPF, in the builder root, under bubblewrap, with nothing of the host but the source tree."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from testbed.build.diagnostics import Diagnostic, parse_clang
from testbed.errors import HostError, UsageError
from testbed.sandbox import Bind, Limits, Result, Sandbox
from testbed.sources import SourceTree, read_bounded

SOURCE = "/src/"
OUTPUT = "/out"
INCLUDE = "/tmp/include"
OBJECT = "candidate.bpf.o"
MAX_OBJECT = 32 << 20

#: The kernel's own flags for its examples (tools/sched_ext/Makefile), and what makes the result the same everywhere.
FLAGS = (
    "-target", "bpf", "-mcpu=v3", "-mlittle-endian", "-g", "-O2", "-std=gnu11",
    "-D__TARGET_ARCH_x86", "-fms-extensions",
    "-Wall", "-Wno-compare-distinct-pointer-types", "-Wno-microsoft-anon-tag",
    "-isystem", INCLUDE, "-isystem", f"{INCLUDE}/bpf-compat", "-isystem", f"{INCLUDE}/uapi",
    "-idirafter", "/usr/include/x86_64-linux-gnu",
    f"-ffile-prefix-map={SOURCE}=", "-fno-crash-diagnostics",
)  # fmt: skip
#: How clang is to talk: one plain line per message, with columns; drawing is done here.
_TALK = (
    "-fno-color-diagnostics", "-fno-caret-diagnostics", "-fdiagnostics-print-source-range-info",
    "-fno-diagnostics-show-note-include-stack", "-ferror-limit=50", "-fmacro-backtrace-limit=4",
)  # fmt: skip

LIMITS = Limits(
    wall_s=600.0,
    cpu_s=120,
    memory_bytes=4 << 30,
    output_bytes=1 << 20,
    file_bytes=64 << 20,
    processes=64,
    tmp_bytes=64 << 20,
)

_DEPENDENCY_ROOTS = (SOURCE, INCLUDE + "/", "/usr/include/", "/usr/lib/llvm")


class Toolchain(Protocol):
    """The parts of an image that compiling needs (`testbed.image.Image` has them)."""

    @property
    def builder(self) -> Path:
        """Root directory for the sandbox that compiles."""

    @property
    def include(self) -> Path:
        """Headers for schedulers: scx/, bpf/, bpf-compat/, uapi/, vmlinux.h."""

    @property
    def vmlinux_h(self) -> Path:
        """Types of the guest's kernel."""


@dataclass(frozen=True)
class Compiled:
    """What became of a source.

    Attributes:
        data: the object, None if there is none.
        gave_up: a limit that was met (`time`, `memory`, `output`), empty otherwise; `time` is the host's clock.
        outside: files that the compiler read and that no candidate may read.
        log: everything that was said, with the commands.
    """

    data: bytes | None
    diagnostics: tuple[Diagnostic, ...]
    gave_up: str
    outside: tuple[str, ...]
    log: str


def tool(image: Toolchain, name: str) -> str:
    """Path, in the builder root, of the newest LLVM's tool.

    Raises:
        HostError: there is none.
    """
    found = [path for path in image.builder.glob("usr/lib/llvm-*/bin") if os.path.lexists(path / name)]
    if not found:
        raise HostError(f"the image's builder root has no `{name}`", hint="build the image again: testbed image build")
    newest = max(found, key=lambda path: int(path.parent.name.removeprefix("llvm-") or 0))
    return f"/{newest.relative_to(image.builder)}/{name}"


def compile_source(tree: SourceTree, image: Toolchain) -> Compiled:
    """Compile a source tree; the same tree and image give the same bytes.

    Raises:
        HostError: the sandbox or the image does not work.
    """
    clang, strip = tool(image, "clang"), tool(image, "llvm-strip")
    with tempfile.TemporaryDirectory(prefix="testbed-build-") as folder:
        source, output = Path(folder, "src"), Path(folder, "out")
        source.mkdir()
        output.mkdir()
        for name, data in tree.files.items():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            os.utime(target, (0, 0))  # `__TIMESTAMP__`
        sandbox = Sandbox(
            root=image.builder,
            read_only=(Bind(source, SOURCE.rstrip("/")), Bind(image.include, INCLUDE)),
            writable=(Bind(output, OUTPUT),),
            env=(("SOURCE_DATE_EPOCH", "0"),),  # `__DATE__`, `__TIME__`
            cwd=SOURCE.rstrip("/"),
            limits=LIMITS,
        )
        made = f"{OUTPUT}/{OBJECT}"
        command = [clang, *FLAGS, *_TALK, "-MD", "-MF", f"{OUTPUT}/deps", "-c", SOURCE + tree.main, "-o", made]
        result = sandbox.run(command, merge=True)
        said = result.stdout.decode("utf-8", "replace")
        _check_sandbox(result, said)
        log = f"$ {shlex.join(command)}\n{said}"
        if result.lost:
            log += f"\n[{result.lost} more bytes]\n"
        diagnostics = tuple(parse_clang(said, tree.texts, SOURCE, f"{INCLUDE}/"))
        gave_up = _gave_up(result, said)
        if not result.ok:
            return Compiled(None, diagnostics, gave_up, (), log)
        outside = _outside(output / "deps")
        command = [strip, "-g", made]  # DWARF goes, BTF stays
        stripped = sandbox.run(command, merge=True)
        said = stripped.stdout.decode("utf-8", "replace")
        _check_sandbox(stripped, said)
        log += f"$ {shlex.join(command)}\n{said}"
        if not stripped.ok:
            return Compiled(None, diagnostics, _gave_up(stripped, said) or "strip", outside, log)
        data = read_bounded(output / OBJECT, MAX_OBJECT, "an object")
        return Compiled(data, diagnostics, "", outside, log)


def _check_sandbox(result: Result, said: str) -> None:
    """Tell a sandbox that does not work from a compiler that refuses.

    Raises:
        HostError: nothing was run.
    """
    if result.returncode != 0 and not result.timed_out and said.startswith(("bwrap: ", "prlimit: ")):
        first = said.splitlines()[0]
        raise HostError(f"the compiler could not be started: {first}", hint="testbed doctor")


def _gave_up(result: Result, said: str) -> str:
    if result.timed_out:
        return "time"
    if result.returncode in (-24, 128 + 24):  # SIGXCPU
        return "processor time"
    if result.returncode in (-25, 128 + 25):  # SIGXFSZ
        return "output"
    if "out of memory" in said or "std::bad_alloc" in said or result.returncode in (-9, 128 + 9):
        return "memory"
    return "" if result.returncode in (0, 1) else f"a crash (exit code {result.returncode})"


def _outside(deps: Path) -> tuple[str, ...]:
    """Files that the compiler read beyond the source tree and the headers."""
    try:
        text = read_bounded(deps, 4 << 20, "a list of files").decode("utf-8", "replace")
    except UsageError:  # no list is as bad as a wrong one
        return ("an unknown file",)
    _, _, listed = text.replace("\\\n", " ").partition(": ")
    names = [name.replace("\\ ", " ") for name in re.findall(r"(?:\\ |\S)+", listed)]
    plain = (os.path.normpath(name if name.startswith("/") else SOURCE + name) for name in names)
    return tuple(sorted({name for name in plain if not name.startswith(_DEPENDENCY_ROOTS)}))
