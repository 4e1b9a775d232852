// SPDX-License-Identifier: GPL-2.0-only
/*
 * infinite_slice: nobody is ever asked to make room.
 *
 * Failure mode: SCX_SLICE_INF without preemption. A CPU hog keeps its CPU for good;
 * whoever waits behind it waits for ever, and who is pinned to that CPU has no other.
 *
 * class: slice
 * expect: reject runnable-task-stall,task-starved,canary-starved,kworker-starved
 * lint: lint-infinite-slice
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

void BPF_STRUCT_OPS(infinite_slice_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_INF, enq_flags);
}

s32 BPF_STRUCT_OPS(infinite_slice_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SCX_SLICE_INF, 0);
	return cpu;
}

SCX_OPS_DEFINE(infinite_slice,
	       .select_cpu	= (void *)infinite_slice_select_cpu,
	       .enqueue		= (void *)infinite_slice_enqueue,
	       .name		= "infinite_slice");
