# SPDX-License-Identifier: Apache-2.0
"""What the analysis knows of the kernel: its helpers and the functions of sched_ext, and what they do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from testbed.btf import essential_name
from testbed.lint.values import tagged


@dataclass(frozen=True)
class Kernel:
    """What the analysis has to know of the kernel: its constants, and which functions it has (empty: unknown)."""

    constants: Mapping[str, int] = field(default_factory=dict)
    kfuncs: frozenset[str] = frozenset()

    def has(self, name: str) -> bool | None:
        """Whether the kernel has a function of sched_ext; None: nobody knows."""
        if len(self.kfuncs) <= 20 or not name.startswith(("scx_bpf_", "__scx_bpf_")):
            return None
        return name in self.kfuncs or essential_name(name) in self.kfuncs


#: Essential names of sched_ext's functions that were renamed → the name of today.
TODAY = {
    "scx_bpf_dispatch": "scx_bpf_dsq_insert",
    "scx_bpf_dispatch_vtime": "scx_bpf_dsq_insert_vtime",
    "__scx_bpf_dsq_insert_vtime": "scx_bpf_dsq_insert_vtime",
    "scx_bpf_consume": "scx_bpf_dsq_move_to_local",
    "scx_bpf_dispatch_from_dsq": "scx_bpf_dsq_move",
    "scx_bpf_dispatch_vtime_from_dsq": "scx_bpf_dsq_move_vtime",
    "__scx_bpf_select_cpu_and": "scx_bpf_select_cpu_and",
    "scx_bpf_kick_cid": "scx_bpf_kick_cpu",
    "scx_bpf_task_cid": "scx_bpf_task_cpu",
}

#: What functions return.
RESULTS = {
    "scx_bpf_task_cpu": tagged("cpu"),
    "scx_bpf_select_cpu_dfl": tagged("cpu"),
    "scx_bpf_select_cpu_and": tagged("cpu", "negative"),
    "scx_bpf_pick_idle_cpu": tagged("cpu", "negative"),
    "scx_bpf_pick_idle_cpu_node": tagged("cpu", "negative"),
    "scx_bpf_pick_any_cpu": tagged("cpu"),
    "scx_bpf_pick_any_cpu_node": tagged("cpu"),
    "scx_bpf_now": tagged("now"),
    "bpf_get_smp_processor_id": tagged("cpu"),
    "bpf_ktime_get_ns": tagged("now"),
    "bpf_ktime_get_boot_ns": tagged("now"),
    "bpf_task_storage_get": tagged("null:storage"),
    "bpf_cgrp_storage_get": tagged("null:storage"),
}

#: Helpers by number in the kernel's UAPI, those that a rule asks for.
HELPERS = {
    1: "bpf_map_lookup_elem",
    2: "bpf_map_update_elem",
    3: "bpf_map_delete_elem",
    4: "bpf_probe_read",
    5: "bpf_ktime_get_ns",
    8: "bpf_get_smp_processor_id",
    16: "bpf_get_current_comm",
    45: "bpf_probe_read_str",
    87: "bpf_map_push_elem",
    88: "bpf_map_pop_elem",
    113: "bpf_probe_read_kernel",
    115: "bpf_probe_read_kernel_str",
    125: "bpf_ktime_get_boot_ns",
    156: "bpf_task_storage_get",
    164: "bpf_for_each_map_elem",
    170: "bpf_timer_set_callback",
    181: "bpf_loop",
    182: "bpf_strncmp",
    194: "bpf_kptr_xchg",
    195: "bpf_map_lookup_percpu_elem",
    210: "bpf_cgrp_storage_get",
}

#: Calls that do not write through their pointers to the stack.
ONLY_READ = frozenset({
    "bpf_map_lookup_elem", "bpf_map_update_elem", "bpf_map_delete_elem", "bpf_map_push_elem", "bpf_loop",
    "bpf_strncmp", "bpf_map_lookup_percpu_elem", "scx_bpf_error_bstr", "scx_bpf_exit_bstr", "scx_bpf_dump_bstr",
    "scx_bpf_dsq_insert_vtime", "scx_bpf_select_cpu_and",
})  # fmt: skip
ERRORS = frozenset({"scx_bpf_error_bstr", "scx_bpf_exit_bstr"})
INSERTS = frozenset({"scx_bpf_dsq_insert", "scx_bpf_dsq_insert_vtime"})
COPIES = frozenset({"bpf_probe_read", "bpf_probe_read_str", "bpf_probe_read_kernel", "bpf_probe_read_kernel_str"})
COMPARES = frozenset(
    {"bpf_strncmp", "bpf_strcmp", "bpf_strcasecmp", "bpf_strncasecmp", "bpf_strstr", "bpf_strnstr", "bpf_strncasestr"}
)
COMM = "task_struct.comm"
PF_KTHREAD = 0x200000
COMM_BYTES = 16
#: Callbacks in which it matters what has become of the task (and, for `init`, whether it complained).
CUSTODIANS = frozenset({"select_cpu", "select_cid", "enqueue", "init"})
PRIORITIES = frozenset({"task_struct.static_prio", "task_struct.prio", "task_struct.normal_prio"})

#: Functions that give a task that is not the callback's own.
TASK_SOURCES = frozenset({
    "bpf_task_from_pid", "bpf_task_from_vpid", "scx_bpf_tid_to_task", "bpf_task_acquire", "bpf_kptr_xchg",
    "bpf_list_pop_front", "bpf_list_pop_back", "bpf_rbtree_remove", "bpf_rbtree_first", "bpf_iter_task_next",
    "bpf_get_current_task_btf", "scx_bpf_cpu_curr", "scx_bpf_cid_curr", "bpf_iter_scx_dsq_next", "scx_bpf_dsq_peek",
    "bpf_get_current_task",
})  # fmt: skip
