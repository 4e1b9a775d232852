# SPDX-License-Identifier: Apache-2.0
"""`--engine` and `--scheduler`, for every verb that runs guests: on this machine, or on those of a cluster."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from testbed.cli.parser import Options, Parser, count
from testbed.errors import UsageError
from testbed.report import Listener, StageLine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.engine.dask import Cluster

MAX_JOBS = 256


def add(parser: Parser) -> None:
    """Add the options, and `-j` with them."""
    parser.add_argument(
        "-j", dest="jobs", type=count(1, MAX_JOBS), metavar="N", help="guests side by side (default: CPUs, or all fit)"
    )
    parser.add_argument("--engine", choices=["local", "dask"], default="local", help="where guests run (default: here)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of the Dask cluster: docs/guides/many-machines.md")


def check(options: Options) -> None:
    """Find what can't be meant.

    Raises:
        UsageError: a cluster without its address, an address for nothing, or a clock that a cluster does not have.
    """
    if options.engine == "dask" and not options.scheduler:
        raise UsageError("`--engine dask` needs `--scheduler ADDRESS`", hint="`dask scheduler` says its own")
    if options.engine != "dask" and options.scheduler:
        raise UsageError("`--scheduler` is for `--engine dask`", hint="add `--engine dask`")
    if options.engine == "dask" and getattr(options, "clock", None) in ("live", "both"):
        raise UsageError(
            f"`--clock {options.clock}` can't run on a cluster: live figures are those of one machine",
            hint="say --clock sim, or leave --engine out",
        )


@contextmanager
def cluster(options: Options, listener: Listener) -> Iterator[Cluster | None]:
    """The cluster that was asked for, None for this machine.

    Raises:
        UsageError: the options can't be meant.
        HostError: there is no such cluster, or Dask is not installed.
    """
    check(options)
    if options.engine != "dask":
        yield None
        return
    try:
        from testbed.engine.dask import Cluster
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("distributed", "dask"):
            raise
        raise UsageError(
            "`--engine dask` needs Dask, which is not installed here", hint="pip install 'testbed[dask]'"
        ) from None
    with Cluster.connect(options.scheduler, lambda text: listener(StageLine(stage="cluster", text=text))) as found:
        yield found


def jobs(options: Options, found: Cluster | None) -> int:
    """Guests side by side."""
    if options.jobs is not None:
        return int(options.jobs)
    return (os.cpu_count() or 1) if found is None else max(1, min(MAX_JOBS, found.slots()))
