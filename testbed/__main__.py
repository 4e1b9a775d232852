# SPDX-License-Identifier: Apache-2.0
"""`python -m testbed`: the command, for whoever has the package and not its script."""

import sys

from testbed.cli import main

if __name__ == "__main__":
    sys.exit(main())
