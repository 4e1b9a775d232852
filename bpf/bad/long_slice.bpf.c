// SPDX-License-Identifier: GPL-2.0-only
/*
 * long_slice: one and a half seconds at a time.
 *
 * Failure mode: throughput bought with waits. Everybody runs within the kernel's
 * patience (each run starts it anew), but beside CPU hogs a task that wakes up waits
 * for seconds.
 *
 * class: slice
 * expect: reject canary-starved,task-starved,kworker-starved,latency-collapse,runnable-task-stall
 * lint: lint-long-slice
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define SLICE_NS	(1500 * 1000 * 1000ULL)

void BPF_STRUCT_OPS(long_slice_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SLICE_NS, enq_flags);
}

s32 BPF_STRUCT_OPS(long_slice_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

SCX_OPS_DEFINE(long_slice,
	       .select_cpu	= (void *)long_slice_select_cpu,
	       .enqueue		= (void *)long_slice_enqueue,
	       .name		= "long_slice");
