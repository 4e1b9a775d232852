# SPDX-License-Identifier: Apache-2.0
"""Static checks of a scheduler's compiled object, before anything runs.

`code` reads functions and instructions, `flow` is where they lead, `interpret` follows them with `values` and `state`,
`kernel` is what it has to know of the kernel, `facts` is what came out. The families of rules are `queues`, `tasks`,
`cpus`, `waits` and `table`; `texts` explains every rule and `engine` is the way in.
"""
