# SPDX-License-Identifier: Apache-2.0
"""What is attested: an in-toto statement (v1) with the predicate `test-result` (v0.1).

It has one subject, the digest of the candidate's manifest; what it was judged with stands beside it as resource
descriptors, each with a digest. A reader that knows in-toto needs nothing of ours to say what passed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError, field_validator

from testbed.case import canonical_json
from testbed.errors import UsageError
from testbed.spec import Clock, Model, first_mistake, sha256
from testbed.verdict import CandidateFacts

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"
MANIFEST = "testbed.manifest/1"

T = TypeVar("T", bound=Model)

CANDIDATE, KERNEL, IMAGE, POLICY, TOOL, VERDICT, RUNS = (
    "candidate", "kernel", "image", "policy", "testbed", "verdict", "runs",
)  # fmt: skip
SCENARIO = "scenario/"


class Descriptor(Model):
    """A resource, by content; `annotations` are what a person or a policy wants to know of it."""

    name: str
    digest: dict[str, str] = Field(min_length=1)
    annotations: dict[str, Any] = Field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Its digest, empty if it has another kind only."""
        return self.digest.get("sha256", "")


class Predicate(Model):
    """What was tested, how, and that it passed; there is no attestation of anything else."""

    result: Literal["PASSED"]
    configuration: tuple[Descriptor, ...]
    passedTests: tuple[str, ...] = Field(min_length=1)  # noqa: N815  # the standard spells it so
    warnedTests: tuple[str, ...] = ()  # noqa: N815  # the standard spells it so
    failedTests: tuple[str, ...] = Field(default=(), max_length=0)  # noqa: N815  # the standard spells it so


class Subject(Model):
    """Which bytes it is about."""

    name: str
    digest: dict[str, str] = Field(min_length=1)


class Ran(Model):
    """What was among the runs, all of them made or made again by who signs.

    Attributes:
        seeds: orders of events that every scenario had under `sim`.
        topologies: machines, as `Topology` writes itself.
        digests: run → digest, of the sim runs.
    """

    clocks: tuple[Clock, ...]
    seeds: int = Field(ge=0)
    topologies: tuple[str, ...]
    digests: dict[str, str]


class Told(Model):
    """What the verdict said besides that it passed."""

    id: str
    benefit: str
    baseline: str
    not_checked: tuple[str, ...]


class Judged(Model):
    """Who judged, and when.

    Attributes:
        self_signed: the signing key is one that the asking user can read.
    """

    version: str
    judge: int
    time: datetime
    self_signed: bool

    @field_validator("time")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        if value.tzinfo is None:
            raise ValueError("expected a time with its zone")
        return value


class Statement(Model):
    """The payload of an attestation."""

    type_: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: tuple[Subject, ...] = Field(min_length=1, max_length=1)
    predicateType: Literal["https://in-toto.io/attestation/test-result/v0.1"]  # noqa: N815  # the standard spells it so
    predicate: Predicate

    def named(self, name: str) -> Descriptor:
        """The descriptor of that name.

        Raises:
            UsageError: there is none, or more than one.
        """
        found = [one for one in self.predicate.configuration if one.name == name]
        if len(found) != 1:
            raise UsageError(f"the attestation names {len(found)} resources `{name}`, expected one")
        return found[0]

    @property
    def candidate(self) -> CandidateFacts:
        """The candidate's parts."""
        return _annotations(self.named(CANDIDATE), CandidateFacts)

    @property
    def ran(self) -> Ran:
        """What was run."""
        return _annotations(self.named(RUNS), Ran)

    @property
    def told(self) -> Told:
        """What the verdict said."""
        return _annotations(self.named(VERDICT), Told)

    @property
    def judged(self) -> Judged:
        """Who judged."""
        return _annotations(self.named(TOOL), Judged)

    @property
    def scenarios(self) -> dict[str, str]:
        """Scenario → sha256 of its file."""
        found = [one for one in self.predicate.configuration if one.name.startswith(SCENARIO)]
        return {one.name.removeprefix(SCENARIO): one.sha256 for one in found}

    def payload(self) -> bytes:
        """The bytes that are signed."""
        return canonical_json(self.model_dump(mode="json", by_alias=True))


def _annotations(descriptor: Descriptor, kind: type[T]) -> T:
    try:
        return kind.model_validate_json(canonical_json(descriptor.annotations))
    except ValidationError as error:
        place, wrong = first_mistake(error)
        raise UsageError(f"the attestation's `{descriptor.name}` can't be read: `{place}`: {wrong.lower()}") from None


def parse(payload: bytes) -> Statement:
    """Read a payload, after its signature was checked.

    Raises:
        UsageError: it is another kind of statement.
    """
    try:
        return Statement.model_validate_json(payload)
    except ValidationError as error:
        place, wrong = first_mistake(error, "the payload")
        raise UsageError(
            f"the payload is no test result of a scheduler: `{place}`: {wrong.lower()}",
            hint="expected an in-toto statement that `testbed attest` made",
        ) from None


def manifest(candidate: CandidateFacts) -> bytes:
    """The canonical manifest of a candidate: every part that decides what a host would load, and how."""
    loader = "its own program" if candidate.kind == "program" else "testbed"
    parts = candidate.model_dump(mode="json", exclude={"programs"})
    return canonical_json({"schema": MANIFEST, "loader": loader, "candidate": parts})


def subject(candidate: CandidateFacts) -> Subject:
    """The one subject of a statement."""
    return Subject(name=candidate.name, digest={"sha256": sha256(manifest(candidate))})
