# SPDX-License-Identifier: Apache-2.0
"""Guests: one protocol, three back ends (`sim`, `live`, `fake`)."""
