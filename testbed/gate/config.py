# SPDX-License-Identifier: Apache-2.0
"""`testbed.yaml`: which files of a repository are candidates, and what is asked of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field

from testbed import policy, regressions, workload
from testbed.errors import UsageError
from testbed.plan import select
from testbed.spec import Model
from testbed.yamlfile import Document, read

FILE = "testbed.yaml"
DEFAULT_FILES = ("**/*.bpf.c",)


class Config(Model):
    """What a repository asks of its gate; paths and patterns are relative to the file's own directory.

    Attributes:
        files: patterns of candidates: `*` and `?` within a name, `**` for any number of directories.
        exclude: patterns of files that are none.
        policy: name or file.
        scenarios: only those whose name matches, as `-k`.
        clock: as `--clock`; None is the default of `testbed run`.
        cpus: as `--cpus`.
        seeds: as `--seeds`.
        regressions: file of runs that come first.
        workload: file of a workload that every candidate is asked about, as `--workload`.
        kernels: every candidate is judged on each, as `--kernel`; none: the image's own. Paths are relative too.
    """

    schema_: Literal["testbed.gate-config/1"] = Field(alias="schema")
    files: tuple[str, ...] = Field(default=DEFAULT_FILES, min_length=1)
    exclude: tuple[str, ...] = ()
    policy: str = "default"
    scenarios: str | None = None
    clock: Literal["sim", "live", "both"] | None = None
    cpus: int | None = Field(default=None, ge=1, le=64)
    seeds: int | None = Field(default=None, ge=1, le=1000)
    regressions: str | None = None
    workload: str | None = None
    kernels: tuple[str, ...] = ()


def default() -> Config:
    """What is asked where nobody wrote a file."""
    return Config(schema="testbed.gate-config/1")


def load(path: Path) -> Config:
    """Read and check a file; the policy's own name becomes one that means the same from everywhere.

    Raises:
        UsageError: it can't be read, or can't be meant; the message names the line.
    """
    return parse(read(path), path)


def parse(data: bytes, path: Path) -> Config:
    """Check the bytes of `path`."""
    document = Document(data, str(path))
    config = document.model(Config)
    for place, message, hint in _mistakes(config):
        raise document.error(place, message, hint)
    kept = str(path.parent / config.regressions) if config.regressions is not None else None
    own = str(path.parent / config.workload) if config.workload is not None else None
    policy_from = _policy_from(config.policy, path.parent)
    config = config.model_copy(update={"policy": policy_from, "regressions": kept, "workload": own})
    try:
        given, raw = policy.load(config.policy)
    except UsageError as error:
        raise document.error(("policy",), error.message, error.hint) from None
    try:
        found = regressions.load(Path(kept)) if kept is not None else None
    except UsageError as error:
        raise document.error(("regressions",), error.message, error.hint) from None
    try:
        theirs = workload.load(Path(own)) if own is not None else None
    except UsageError as error:
        raise document.error(("workload",), error.message, error.hint) from None
    demanded, raw, _ = regressions.demanded(given, raw, found, None)
    demanded, _ = workload.demanded(demanded, raw, theirs)
    try:
        select([demand.name for demand in demanded.scenarios], config.scenarios)
    except UsageError as error:
        raise document.error(("scenarios",), error.message.replace("-k ", "scenarios: "), error.hint) from None
    return config


def is_file(name: str) -> bool:
    """Whether a policy's name is that of a file (as `--policy` sees it)."""
    return "/" in name or name.endswith((".yaml", ".yml"))


def _policy_from(name: str, folder: Path) -> str:
    return str(folder / name) if is_file(name) else name


def _mistakes(config: Config) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    for key in ("files", "exclude"):
        for index, pattern in enumerate(getattr(config, key)):
            path = PurePosixPath(pattern)
            if not pattern or path.is_absolute() or ".." in path.parts or "\\" in pattern:
                hint = "a pattern stays below the file's directory: `sched/**/*.bpf.c`"
                yield (key, index), f"`{pattern}` is no pattern for files of this repository", hint
    for index, word in enumerate(config.kernels):
        if not word:
            yield ("kernels", index), "an empty word is no kernel", "image, host, debian:VERSION, or a path"
        elif word in config.kernels[:index]:
            yield ("kernels", index), f"`{word}` is there twice", "leave one out"
