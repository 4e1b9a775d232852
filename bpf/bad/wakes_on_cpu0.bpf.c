// SPDX-License-Identifier: GPL-2.0-only
/*
 * wakes_on_cpu0: a CPU selection that was never filled in.
 *
 * Failure mode: ops.select_cpu() returns 0 and ops.enqueue() uses the queue of
 * that CPU. What wakes up piles up on CPU 0, however many CPUs idle beside it;
 * pinned tasks get their own CPU, so nothing stalls.
 *
 * class: idle-cpu
 * expect: reject idle-while-runnable,crawl,throughput-collapse,latency-collapse,canary-starved,task-starved
 * lint: lint-one-cpu
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

s32 BPF_STRUCT_OPS(wakes_on_cpu0_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	return 0;
}

void BPF_STRUCT_OPS(wakes_on_cpu0_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SCX_SLICE_DFL, enq_flags);
}

SCX_OPS_DEFINE(wakes_on_cpu0,
	       .select_cpu	= (void *)wakes_on_cpu0_select_cpu,
	       .enqueue		= (void *)wakes_on_cpu0_enqueue,
	       .name		= "wakes_on_cpu0");
