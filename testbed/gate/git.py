# SPDX-License-Identifier: Apache-2.0
"""What the gate asks of git: fixed argument lists, no shell, names by NUL, nothing that a repository could run."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import HostError, UsageError
from testbed.sources import SUFFIXES, printable

_TIMEOUT_S = 300.0
_OPTIONS = ("--no-optional-locks", "-c", "core.quotePath=false", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=")
_LINK, _SUBMODULE = "120000", "160000"


@dataclass(frozen=True)
class Base:
    """What is compared with.

    Attributes:
        ref: as it was given.
        commit: where it and HEAD part.
    """

    ref: str
    commit: str


@dataclass(frozen=True)
class Repository:
    """A checkout.

    Attributes:
        root: its top directory.
    """

    root: Path

    @classmethod
    def around(cls, directory: Path) -> Repository | None:
        """The checkout that holds a directory, None if there is none.

        Raises:
            UsageError: there is one, and git does not want to read it.
        """
        if shutil.which("git") is None:
            return None
        result = _call(directory, "rev-parse", "--show-toplevel")
        said = _text(result.stderr)
        if result.returncode == 0:
            return cls(Path(os.fsdecode(result.stdout.rstrip(b"\n"))))
        if "dubious ownership" in said:
            raise UsageError(
                f"git does not read `{printable(str(directory))}`: it belongs to another user",
                hint=f"git config --global --add safe.directory {directory.resolve()}",
            )
        return None

    def files(self) -> list[str]:
        """Tracked files (those of submodules that are checked out too) and new ones that are not ignored, sorted."""
        tracked = self._names("ls-files", "-z", "--cached", "--recurse-submodules")
        others = self._names("ls-files", "-z", "--others", "--exclude-standard")
        return sorted({*tracked, *others})

    def missing_submodules(self) -> list[str]:
        """Submodules that are not checked out."""
        found = []
        for line in self._names("ls-files", "-z", "--stage"):
            facts, _, name = line.partition("\t")
            mode = facts.split(" ")[0]
            if mode == _SUBMODULE and not (self.root / name / ".git").exists():
                found.append(name)
        return found

    def head(self) -> str:
        """The commit that is checked out, empty in a repository without one."""
        result = _call(self.root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        return _text(result.stdout) if result.returncode == 0 else ""

    def base(self, ref: str) -> Base:
        """The commit at which HEAD and `ref` part.

        Raises:
            UsageError: no such commit here, or no common one.
        """
        shown = printable(ref, 200)
        if not ref or ref.startswith("-") or "\0" in ref:
            raise UsageError(f"`{shown}` is no name of a commit")
        shallow = _text(self._output("rev-parse", "--is-shallow-repository")) == "true"
        cure = (
            "this clone is shallow: git fetch --unshallow, or `fetch-depth: 0` for actions/checkout"
            if shallow
            else f"git fetch origin {shown}"
        )
        found = _call(self.root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
        if found.returncode != 0:
            raise UsageError(f"there is no commit `{shown}` in this clone", hint=cure)
        commit = _text(found.stdout)
        if not self.head():
            raise UsageError("this repository has no commit yet, so nothing has changed since one")
        common = _call(self.root, "merge-base", commit, "HEAD")
        if common.returncode != 0:
            raise UsageError(f"`{shown}` and HEAD have no common commit in this clone", hint=cure if shallow else "")
        return Base(ref, _text(common.stdout))

    def changed(self, base: Base) -> set[str]:
        """Paths that differ from the base: committed, staged, edited, new, deleted."""
        tracked = self._names(
            "diff", "--name-only", "-z", "--no-renames", "--no-ext-diff", "--no-textconv", base.commit, "--"
        )
        return {*tracked, *self._names("ls-files", "-z", "--others", "--exclude-standard")}

    def files_at(self, base: Base) -> list[str]:
        """Regular files of the base."""
        return [name for mode, _, name in self._tree(base) if mode not in (_LINK, _SUBMODULE)]

    def _tree(self, base: Base) -> list[tuple[str, str, str]]:
        """Mode, object and path of everything in the base."""
        found = []
        for line in self._names("ls-tree", "-r", "-z", "--full-tree", base.commit):
            facts, _, name = line.partition("\t")
            mode, _, blob = facts.split(" ")[:3]
            found.append((mode, blob, name))
        return found

    def export(self, base: Base, folder: str, target: Path) -> None:
        """Write sources and links of a folder of the base below `target`, at their paths in the repository.

        Links are written as such and never followed.

        Raises:
            UsageError: the objects are not in this clone.
        """
        wanted = [
            (mode, blob, name)
            for mode, blob, name in self._tree(base)
            if (not folder or name.startswith(f"{folder}/"))
            and (mode == _LINK or (mode != _SUBMODULE and Path(name).suffix in SUFFIXES))
        ]
        data = _call(self.root, "cat-file", "--batch", stdin="".join(f"{blob}\n" for _, blob, _ in wanted).encode())
        at = 0
        for mode, _, name in wanted:
            end = data.stdout.find(b"\n", at)
            header = data.stdout[at:end].split(b" ")
            if end < 0 or len(header) != 3:
                raise UsageError(
                    f"git has no content for `{printable(name)}` at the base",
                    hint="the clone is partial or damaged: git fsck",
                )
            size = int(header[2])
            content = data.stdout[end + 1 : end + 1 + size]
            at = end + 1 + size + 1
            _write(target, name, content, link=mode == _LINK)

    def _names(self, *words: str) -> list[str]:
        return [os.fsdecode(name) for name in self._output(*words).split(b"\0") if name]

    def _output(self, *words: str) -> bytes:
        result = _call(self.root, *words)
        if result.returncode != 0:
            said = printable(_text(result.stderr).splitlines()[0] if result.stderr.strip() else "")
            raise UsageError(f"`git {words[0]}` failed: {said or f'exit code {result.returncode}'}")
        return result.stdout


def _write(target: Path, name: str, content: bytes, *, link: bool) -> None:
    """One file of the base; git knows no `..`, and a link on the way can't be there in a tree of git's."""
    path = target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path):
        return  # exported with a folder around it
    if link:
        path.symlink_to(os.fsdecode(content))
    else:
        path.write_bytes(content)


def _call(directory: Path, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run git.

    Raises:
        HostError: git is not installed or does not come to an end.
    """
    environment = {**os.environ, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_PAGER": "cat"}
    # A hook (pre-commit) runs with these set for its own repository; what counts here is the directory.
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_PREFIX"):
        environment.pop(name, None)
    try:
        return subprocess.run(
            ["git", "-C", str(directory), *_OPTIONS, *words],
            input=stdin,
            capture_output=True,
            timeout=_TIMEOUT_S,
            env=environment,
            check=False,
        )
    except FileNotFoundError:
        raise HostError("git is not installed", hint="apt-get install git") from None
    except subprocess.TimeoutExpired:
        raise HostError(f"`git {words[0]}` did not end within {_TIMEOUT_S:.0f} s") from None


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").strip()
