# SPDX-License-Identifier: Apache-2.0
"""From a passing case to a signed attestation, and what a host must see before it takes a scheduler.

`attest` makes an attestation, `verify` says what speaks against one; `policy` is what a promotion demands.
"""
