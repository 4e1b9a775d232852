# SPDX-License-Identifier: Apache-2.0
"""A host's own promotion policy, with everything that the host needs to hold others to it (docs/reference/host.md).

A host knows neither scenarios nor verdict policies, so their hashes travel with the policy, as they are installed where
an administrator made the document.
"""

from __future__ import annotations

from testbed import policy as verdict_policies
from testbed.case import canonical_json
from testbed.data import data_directory
from testbed.judge.modes import CODES
from testbed.promote.policy import PromotionPolicy
from testbed.spec import sha256
from testbed.topology import PRESETS

SCHEMA = "testbed.host/1"


def document(policy: PromotionPolicy) -> bytes:
    """The bytes of `/etc/testbed/promotion.json`.

    Raises:
        UsageError: it accepts a verdict policy that is not installed here.
    """
    folder = data_directory("scenarios")
    known = {}
    for accepted in policy.accepts:
        demanded, data = verdict_policies.load(accepted.policy)
        names = dict.fromkeys(demand.name for demand in demanded.scenarios)
        known[accepted.policy] = {
            "sha256": sha256(data),
            "scenarios": {name: sha256((folder / f"{name}.yaml").read_bytes()) for name in names},
        }
    return canonical_json(
        {
            "schema": SCHEMA,
            "policy": policy.model_dump(mode="json", by_alias=True),
            "verdict_policies": known,
            "topologies": {name: str(PRESETS[name]) for name in policy.runs.topologies},
            "failure_modes": sorted(CODES),
        }
    )
