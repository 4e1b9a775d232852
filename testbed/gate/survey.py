# SPDX-License-Identifier: Apache-2.0
"""Which candidates a repository has, and which differ from the base: by content, includes followed."""

from __future__ import annotations

import os
import posixpath
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from testbed import workload
from testbed.candidate import Candidate, Kind, read_candidate
from testbed.errors import TestbedError, UsageError
from testbed.gate import config as configs
from testbed.gate.config import Config
from testbed.gate.git import Base, Repository
from testbed.sources import printable

_SUFFIXES = (".c", ".o")
_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*\"([^\"\n]+)\"", re.MULTILINE)


@dataclass(frozen=True)
class Found:
    """One candidate of the repository.

    Attributes:
        path: below the repository's root.
        sha256: of its manifest; empty if it can't be read.
        changed: it is to be judged.
        was: the path of the same candidate at the base, if it only moved.
        trouble: why it can't be judged.
    """

    path: str
    sha256: str = ""
    changed: bool = True
    was: str = ""
    trouble: str = ""


@dataclass(frozen=True)
class Survey:
    """What there is, by path.

    Attributes:
        root: what the paths are relative to.
        base: what was compared with; None: everything is to be judged.
        head: the commit that is checked out.
        deleted: candidates of the base that are gone.
        notes: what whoever reads the answer should know.
    """

    root: Path
    found: tuple[Found, ...]
    base: Base | None = None
    head: str = ""
    deleted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def changed(self) -> tuple[Found, ...]:
        """What is to be judged."""
        return tuple(one for one in self.found if one.changed)


def survey(
    directory: Path, paths: Sequence[str], config: Config, config_file: Path | None, changed_since: str | None
) -> Survey:
    """Look for candidates.

    Args:
        directory: where the user stands.
        paths: files or directories that were named; none: the whole repository.
        config: its patterns are relative to `config_file`, or to the root.
        changed_since: a commit; candidates that are the same as where HEAD and it part are left alone.

    Raises:
        UsageError: a path that does not exist, no repository where one is needed, no such commit.
    """
    repository = Repository.around(directory)
    root = repository.root if repository is not None else (config_file.parent if config_file else directory).resolve()
    if changed_since is not None and repository is None:
        raise UsageError(
            f"`--changed-since` needs a git repository, and `{printable(str(directory))}` is in none",
            hint="leave it out to judge every candidate",
        )
    missing = repository.missing_submodules() if repository is not None else []
    prefix = _below(root, config_file.parent) if config_file is not None else ""
    matched = set(_matching(_all_files(root, repository), config, prefix))
    chosen = sorted(_chosen(root, directory, paths, matched, missing))
    found = [_read(root, path, missing) for path in chosen]
    notes = [f"submodule `{name}` is not checked out; candidates in it were not looked for" for name in missing]
    if repository is None or changed_since is None:
        return Survey(root, tuple(found), head=repository.head() if repository else "", notes=tuple(notes))
    base = repository.base(changed_since)
    changed = repository.changed(base)
    settings = _settings(root, config, config_file) & changed
    if settings:
        notes.append(
            f"{', '.join(f'`{name}`' for name in sorted(settings))} is changed, so every candidate is judged by it"
        )
    before = set(_matching(repository.files_at(base), config, prefix))
    deleted = sorted(path for path in before if not os.path.lexists(root / path))
    if not settings:
        found = _compare(repository, base, found, changed, deleted)
    moved = {one.was for one in found if one.was}
    gone = tuple(path for path in deleted if path not in moved and (not paths or _named(root, directory, paths, path)))
    return Survey(root, tuple(found), base, repository.head(), gone, tuple(notes))


# --- what there is -------------------------------------------------------------------------------------------


def _all_files(root: Path, repository: Repository | None) -> list[str]:
    if repository is not None:
        return [name for name in repository.files() if os.path.lexists(root / name)]
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [_below(root, Path(folder, name)) for name in names if not name.startswith(".")]
    return sorted(found)


def _matching(files: Iterable[str], config: Config, prefix: str) -> list[str]:
    wanted = [_pattern(prefix, glob) for glob in config.files]
    unwanted = [_pattern(prefix, glob) for glob in config.exclude]
    return [
        name
        for name in files
        if any(one.fullmatch(name) for one in wanted)
        and not any(one.fullmatch(name) for one in unwanted)
        and name.endswith(_SUFFIXES)
    ]


def _pattern(prefix: str, glob: str) -> re.Pattern[str]:
    """A pattern of the configuration; `**` stands for any number of directories, none among them."""
    parts = []
    words = PurePosixPath(prefix, glob).parts
    for index, word in enumerate(words):
        last = index == len(words) - 1
        if word == "**":
            parts.append(r".*" if last else r"(?:[^/]+/)*")
        else:
            name = re.sub(r"\\\*|\\\?", lambda found: "[^/]*" if found[0] == r"\*" else "[^/]", re.escape(word))
            parts.append(name if last else f"{name}/")
    return re.compile("".join(parts), re.DOTALL)


def _chosen(root: Path, directory: Path, paths: Sequence[str], matched: set[str], missing: Sequence[str]) -> set[str]:
    """The candidates that the command line names; a file that is named is one whatever the patterns say."""
    if not paths:
        return matched
    chosen: set[str] = set()
    for word in paths:
        path = Path(os.path.normpath(directory / word))
        name = _below(root, path)
        shown = printable(word)
        if name == ".." or name.startswith("../"):
            raise UsageError(f"`{shown}` is outside of `{printable(str(root))}`")
        for submodule in missing:
            if name == submodule or name.startswith(f"{submodule}/"):
                raise UsageError(
                    f"`{shown}` is in the submodule `{printable(submodule)}`, which is not checked out",
                    hint=f"git submodule update --init {submodule}, or `submodules: true` for actions/checkout",
                )
        if path.is_dir():
            chosen |= {one for one in matched if not name or one.startswith(f"{name}/")}
        elif not os.path.lexists(path):
            raise UsageError(f"no such file: `{shown}`")
        elif not name.endswith(_SUFFIXES):
            raise UsageError(
                f"`{shown}` is not a candidate: its name ends neither in `.bpf.c` nor in `.bpf.o`",
                hint="name a directory, or a candidate",
            )
        else:
            chosen.add(name)
    return chosen


def _named(root: Path, directory: Path, paths: Sequence[str], name: str) -> bool:
    named = [_below(root, Path(os.path.normpath(directory / word))) for word in paths]
    return any(not one or name == one or name.startswith(f"{one}/") for one in named)


def _below(root: Path, path: Path) -> str:
    relative = os.path.relpath(os.path.abspath(path), root.resolve() if path.is_absolute() else root)
    return "" if relative == "." else relative


def _read(root: Path, path: str, missing: Sequence[str]) -> Found:
    """A candidate with its hash, or why there is none."""
    try:
        real = (root / path).resolve(strict=True)
    except (OSError, RuntimeError):
        return Found(path, trouble=f"`{printable(path)}` leads nowhere")
    if not real.is_relative_to(root.resolve()):
        return Found(path, trouble=f"`{printable(path)}` is a link that leads out of the repository")
    try:
        candidate = read_candidate(str(root / path))
    except TestbedError as error:
        return Found(path, trouble=error.message.replace(f"{root}/", ""))
    trouble = _missing_include(path, candidate, missing)
    return Found(path, candidate.sha256, trouble=trouble)


def _missing_include(path: str, candidate: Candidate, missing: Sequence[str]) -> str:
    """Whether a file is included that a submodule would have: that is the checkout's fault, not the candidate's."""
    folder = posixpath.dirname(path)
    for file, text in candidate.sources.texts.items() if candidate.sources is not None and missing else ():
        for name in _INCLUDE.findall(text):
            target = posixpath.normpath(posixpath.join(folder, posixpath.dirname(file), name))
            for submodule in missing:
                if target.startswith(f"{submodule}/"):
                    whose = f"the submodule `{printable(submodule)}`, which is not checked out"
                    return f"it includes `{printable(name)}` of {whose}"
    return ""


# --- what is another one -------------------------------------------------------------------------------------


def _settings(root: Path, config: Config, config_file: Path | None) -> set[str]:
    """Files of the repository that say what is asked of candidates."""
    files = [config_file] if config_file is not None else []
    if configs.is_file(config.policy):
        files.append(Path(config.policy))
    if config.regressions is not None:
        files.append(Path(config.regressions))
    if config.workload is not None:
        files += workload.load(Path(config.workload)).paths(Path(config.workload))
    return {_below(root, file) for file in files}


def _compare(
    repository: Repository, base: Base, found: Sequence[Found], changed: set[str], deleted: Sequence[str]
) -> list[Found]:
    """The same list, with what is as it was or only has another place marked as not changed."""
    with tempfile.TemporaryDirectory(prefix="testbed-base-") as work:
        before = _Before(repository, base, Path(work).resolve())
        result = []
        moved: dict[str, str] | None = None
        for one in found:
            if one.trouble:
                result.append(one)
            elif not _touched(repository.root, one.path, changed) or before.hash(one.path) == one.sha256:
                result.append(replace(one, changed=False))
            else:
                if moved is None:
                    moved = {digest: path for path in deleted if (digest := before.hash(path))}
                was = moved.get(one.sha256, "")
                result.append(replace(one, changed=not was, was=was))
        return result


@dataclass
class _Before:
    """Candidates of the base, read as those of the checkout are."""

    repository: Repository
    base: Base
    work: Path
    exported: set[str] = field(default_factory=set)

    def hash(self, path: str) -> str:
        """Of the candidate's manifest; empty if it was none, was a link, or was no source."""
        folder = posixpath.dirname(path)
        if folder not in self.exported:
            self.exported.add(folder)
            self.repository.export(self.base, folder, self.work)
        file = self.work / path
        if file.is_symlink() or not file.is_file() or not file.resolve().is_relative_to(self.work):
            return ""
        try:
            candidate = read_candidate(str(file))
        except TestbedError:
            return ""
        return candidate.sha256 if candidate.kind is Kind.SOURCE else ""


def _touched(root: Path, path: str, changed: set[str]) -> bool:
    """Whether anything changed that the candidate could be made of: it, its folder, or a submodule around it."""
    real = _below(root.resolve(), (root / path).resolve())
    for place in (path, real):
        folder = posixpath.dirname(place)
        if path.endswith(".o"):
            if place in changed:
                return True
        elif any(not folder or one.startswith(f"{folder}/") or f"{folder}/".startswith(f"{one}/") for one in changed):
            return True
    return False
