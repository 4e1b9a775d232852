# SPDX-License-Identifier: Apache-2.0
"""Judge Linux CPU schedulers (sched_ext) in deterministic guests before a host loads them."""

__version__ = "0.1.0"
