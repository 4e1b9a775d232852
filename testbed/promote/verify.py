# SPDX-License-Identifier: Apache-2.0
"""What speaks against an attestation: its signature, its age, its bytes, and what a promotion policy demands.

Each reason has a code and says who must do what. All that can be said is said at once, but nothing of a payload is
looked at before a trusted key has vouched for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from testbed import policy as verdict_policies
from testbed.data import data_directory
from testbed.errors import UsageError
from testbed.judge.modes import ANY_MODE, CODES
from testbed.promote import envelope, statement
from testbed.promote.envelope import Envelope
from testbed.promote.policy import PromotionPolicy
from testbed.promote.statement import Statement
from testbed.spec import sha256
from testbed.topology import PRESETS
from testbed.verdict import CandidateFacts

CLOCKS_DIFFER = timedelta(minutes=5)
"""Two machines' clocks may differ by this; what is attested later than that comes from the future."""


@dataclass(frozen=True)
class Refusal:
    """One reason against."""

    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Wanted:
    """What an attestation is wanted for.

    Attributes:
        policy: what the promotion demands; None asks for the signature and the bytes alone.
        candidate: what is about to be loaded; None if nobody has it at hand.
        kernel: release of the kernel that is to carry it, None if it is not known.
        now: time of the question.
    """

    policy: PromotionPolicy | None = None
    candidate: CandidateFacts | None = None
    kernel: str | None = None
    now: datetime | None = None


def verify(
    signed: Envelope, trusted: Sequence[Ed25519PublicKey], wanted: Wanted
) -> tuple[Statement | None, tuple[Refusal, ...]]:
    """The statement, if a trusted key vouches for it, and everything that speaks against it."""
    if not envelope.signers(signed, trusted):
        named = ", ".join(one.keyid[:16] or "?" for one in signed.signatures)
        reason = Refusal(
            "unknown-key",
            f"no trusted key has signed these bytes (they name {named}; {len(trusted)} keys are trusted)",
            "they were changed after they were signed, or whoever signed is not trusted here",
        )
        return None, (reason,)
    try:
        found = statement.parse(signed.content)
        return found, tuple(_refusals(found, wanted))
    except UsageError as error:
        return None, (Refusal("not-a-test-result", error.message, error.hint),)


def _refusals(found: Statement, wanted: Wanted) -> Iterator[Refusal]:
    candidate = found.candidate
    if found.subject[0] != statement.subject(candidate):
        yield Refusal("contradiction", "the subject is not the digest of the candidate that the statement describes")
    if wanted.candidate is not None:
        yield from _bytes(candidate, wanted.candidate)
    if wanted.kernel is not None:
        yield from _kernel(found, wanted)
    if wanted.policy is not None:
        yield from _age(found, wanted.policy, wanted.now or datetime.now(UTC))
        yield from _demands(found, wanted.policy)


def _bytes(attested: CandidateFacts, given: CandidateFacts) -> Iterator[Refusal]:
    if attested.options != given.options:
        yield Refusal(
            "other-options",
            f"attested with options `{' '.join(attested.options)}`, found `{' '.join(given.options)}`",
            "options change what a scheduler does: run it with these",
        )
    parts = {"options", "programs"}
    if attested.model_dump(exclude=parts) != given.model_dump(exclude=parts):
        known, now = attested.model_dump(exclude=parts), given.model_dump(exclude=parts)
        differing = ", ".join(f"`{key}`" for key in known if known[key] != now[key])
        yield Refusal("other-bytes", f"this is not the candidate that was attested: {differing} differ", "run this one")


def _kernel(found: Statement, wanted: Wanted) -> Iterator[Refusal]:
    release = found.named(statement.KERNEL).annotations.get("release")
    demanded = wanted.policy is None or wanted.policy.same_kernel
    if demanded and release != wanted.kernel:
        yield Refusal(
            "other-kernel",
            f"judged on linux {release}, to be loaded on {wanted.kernel}",
            "judge it on that kernel",
        )


def _age(found: Statement, policy: PromotionPolicy, now: datetime) -> Iterator[Refusal]:
    made = found.judged.time
    if made > now + CLOCKS_DIFFER:
        yield Refusal(
            "from-the-future", f"attested at {made:%F %T} UTC, now is {now:%F %T} UTC", "set one of the clocks"
        )
    if now - made > timedelta(days=policy.max_age_days):
        yield Refusal(
            "expired",
            f"attested {(now - made).days} days ago, `{policy.name}` takes {policy.max_age_days}",
            "`testbed attest` the case again, or run the candidate again",
        )


def _demands(found: Statement, policy: PromotionPolicy) -> Iterator[Refusal]:
    judged, ran, told = found.judged, found.ran, found.told
    if judged.self_signed and not policy.signatures.self_signed:
        yield Refusal(
            "self-signed",
            f"signed by a key that whoever asked for it can read, which `{policy.name}` does not take",
            "let an account attest that the author can't use: `testbed attest --signer`",
        )
    yield from _verdict_policy(found, policy)
    if lacking := [clock for clock in policy.runs.clocks if clock not in ran.clocks]:
        yield Refusal("clock-missing", f"no run under `{lacking[0]}`, which `{policy.name}` demands", "run it with it")
    if ran.seeds < policy.runs.seeds:
        yield Refusal(
            "too-few-seeds",
            f"{ran.seeds} orders of events, `{policy.name}` demands {policy.runs.seeds}",
            f"testbed run … --seeds {policy.runs.seeds}",
        )
    for name in policy.runs.topologies:
        if str(PRESETS[name]) not in ran.topologies:
            yield Refusal(
                "topology-missing",
                f"no run on `{name}`, which `{policy.name}` demands",
                f"testbed run … --topology {name}",
            )
    if told.benefit == "worse" and policy.benefit.demand == "not-worse":
        yield Refusal("worse", f"it is worse than {told.baseline}", "`testbed report CASE` says where")
    if told.benefit != "better" and policy.benefit.demand == "better":
        yield Refusal("not-better", f"it is {told.benefit} than {told.baseline}, expected better")
    accepted = {risk.code for risk in policy.risks}
    for code in dict.fromkeys(told.not_checked):
        if code not in accepted and not (code in CODES and ANY_MODE in accepted):
            yield Refusal(
                "risk-not-accepted",
                f"nothing was checked of `{code}`, and `{policy.name}` does not accept that",
                "run what checks it, or name the risk in the promotion policy",
            )


def _verdict_policy(found: Statement, policy: PromotionPolicy) -> Iterator[Refusal]:
    """The verdict policy is accepted by name, and its bytes and its scenarios are the installed ones."""
    resource = found.named(statement.POLICY)
    name = resource.annotations.get("name")
    if not isinstance(name, str) or name not in {one.policy for one in policy.accepts}:
        yield Refusal(
            "other-policy",
            f"judged by `{name}`, `{policy.name}` accepts {', '.join(one.policy for one in policy.accepts)}",
            f"testbed run … --policy {policy.accepts[0].policy}",
        )
        return
    demanded, data = verdict_policies.load(name)
    if resource.sha256 != sha256(data):
        yield Refusal(
            "altered-policy",
            f"judged by another `{name}` than the one that is installed here",
            "the policies of the two testbeds differ; run the candidate again",
        )
    installed = data_directory("scenarios")
    for one in dict.fromkeys(demand.name for demand in demanded.scenarios):
        if found.scenarios.get(one) != sha256((installed / f"{one}.yaml").read_bytes()):
            yield Refusal(
                "altered-scenario",
                f"scenario `{one}` was another one than the one that is installed here",
                "the scenarios of the two testbeds differ; run the candidate again",
            )
