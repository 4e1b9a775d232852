# SPDX-License-Identifier: Apache-2.0
"""`testbed doctor`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from testbed.cli.parser import Options, add_json, verb
from testbed.errors import ExitCode

if TYPE_CHECKING:
    from testbed.cli.parser import Verbs


def add(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verb(verbs, "doctor", "say what this machine can do, and the cure for what it can't", doctor)
    parser.add_argument("--no-boot", action="store_true", help="leave out the probe boots (half a minute)")
    add_json(parser)


def doctor(options: Options) -> int:
    """Check the machine; 3 if the testbed can't work here."""
    from testbed import doctor as doctors

    checks = doctors.checks(doctors.current_image(), probe_boots=not options.no_boot)
    if options.json:
        print(json.dumps([check.as_dict() for check in checks], indent=2))
    else:
        for check in checks:
            print(f"{check.status:5} {check.name:12} {check.found}")
            if check.cure:
                print(f"{'':5} {'':12} cure: {check.cure}")
    failed = any(check.status == "fail" for check in checks)
    return int(ExitCode.INCONCLUSIVE if failed else ExitCode.PASS)
