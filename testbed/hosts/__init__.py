# SPDX-License-Identifier: Apache-2.0
"""Machines that schedulers are promoted to, reached by ssh, and guests that stand in for them."""
