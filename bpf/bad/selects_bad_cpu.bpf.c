// SPDX-License-Identifier: GPL-2.0-only
/*
 * selects_bad_cpu: hands an error on as if it were a CPU.
 *
 * Failure mode: scx_bpf_pick_idle_cpu() returns -EBUSY when no CPU is idle, and
 * ops.select_cpu() returns that number. Fine as long as the machine has room.
 *
 * class: runtime-error
 * expect: reject scheduler-error
 * lint: lint-unchecked-cpu
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

s32 BPF_STRUCT_OPS(selects_bad_cpu_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	return scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
}

void BPF_STRUCT_OPS(selects_bad_cpu_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
}

SCX_OPS_DEFINE(selects_bad_cpu,
	       .select_cpu	= (void *)selects_bad_cpu_select_cpu,
	       .enqueue		= (void *)selects_bad_cpu_enqueue,
	       .name		= "selects_bad_cpu");
