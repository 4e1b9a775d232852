# SPDX-License-Identifier: Apache-2.0
"""Several hosts: which, in which order, how many at a time; and how far a promotion to them came."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from testbed.case import write_model
from testbed.errors import UsageError
from testbed.hosts import reach
from testbed.hosts.promotion import HostResult, Outcome
from testbed.hosts.resident import Resident, section
from testbed.spec import Model
from testbed.yamlfile import Document, Percent, read


class Inventory(Model):
    """A file of hosts.

    Attributes:
        hosts: in the order in which they are promoted to.
        share: how many of them at a time; without one, one after another.
    """

    schema_: Literal["testbed.inventory/1"] = Field(alias="schema")
    kind: Literal["inventory"]
    hosts: tuple[str, ...] = Field(min_length=1, max_length=10_000)
    share: Percent = Field(default=0.0, ge=0, le=1)


class Progress(Model):
    """How far a promotion came; read again by the next one of the same bundle."""

    schema_: Literal["testbed.rollout/1"] = Field(default="testbed.rollout/1", alias="schema")
    bundle: str
    kept: tuple[str, ...] = ()


@dataclass
class Rollout:
    """The hosts of one promotion.

    Attributes:
        hosts: all of them, in order.
        share: how many at a time, from 0 (one) to 1.
        file: where it is written down how far it came; None: nowhere.
    """

    hosts: tuple[str, ...]
    share: float = 0.0
    file: Path | None = None
    _bundle: str = ""
    _kept: list[str] = field(default_factory=list)

    def begin(self, bundle: str) -> None:
        """Read how far an earlier one came.

        Raises:
            UsageError: the file is none of ours.
        """
        self._bundle = bundle
        if self.file is None or not self.file.exists():
            return
        try:
            found = Progress.model_validate_json(self.file.read_bytes())
        except (OSError, ValidationError):
            raise UsageError(f"`{self.file}` does not say how far a promotion came", hint="remove it") from None
        if found.bundle == bundle:
            self._kept = list(found.kept)

    def known(self, host: str, resident: Resident) -> bool:
        """Whether a host has kept the bundle earlier, and by its own word still runs it."""
        if host not in self._kept:
            return False
        told = resident.status()
        record = section(told, "record")
        return bool(told.get("healthy")) and record.get("id") == self._bundle and record.get("phase") == "kept"

    def note(self, result: HostResult) -> None:
        """Write down what became of a host, before the next one begins."""
        self._kept = [host for host in self._kept if host != result.host]
        if result.outcome is Outcome.KEPT:
            self._kept.append(result.host)
        if self.file is not None:
            progress = Progress(bundle=self._bundle, kept=tuple(self._kept))
            write_model(self.file, progress)


def rollout(words: list[str]) -> Rollout:
    """The hosts that `--host` names: hosts, or one inventory.

    Raises:
        UsageError: it names none, or something else.
        ScenarioError: the inventory is wrong; says where.
    """
    files = [word for word in words if word.endswith((".yaml", ".yml"))]
    if not words:
        raise UsageError("no host is named", hint="--host local, --host user@server, or --host inventory.yaml")
    if files and len(words) > 1:
        raise UsageError("`--host` takes one inventory, or hosts", hint="write the hosts into the inventory")
    if not files:
        hosts, share, file = tuple(words), 0.0, None
    else:
        place = Path(files[0])
        document = Document(read(place), str(place))
        found = document.model(Inventory)
        hosts, share, file = found.hosts, found.share, place.with_suffix(".state.json")
        for number, host in enumerate(hosts):
            try:
                reach.check(host)
            except UsageError as error:
                raise document.error(("hosts", number), error.message, error.hint) from None
    for host in hosts:
        reach.check(host)
    if twice := sorted({host for host in hosts if hosts.count(host) > 1}):
        raise UsageError(f"`{twice[0]}` is named twice")
    return Rollout(hosts, share, file)
