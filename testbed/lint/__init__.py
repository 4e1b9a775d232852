# SPDX-License-Identifier: Apache-2.0
"""Static checks of a scheduler's compiled object, before anything runs.

`code` reads functions and instructions, `values` and `interpret` follow them, `facts` is what came out, the families of
rules are `queues`, `tasks`, `cpus`, `waits` and `table`; `texts` explains every rule and `engine` is the way in.
"""
