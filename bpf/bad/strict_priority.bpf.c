// SPDX-License-Identifier: GPL-2.0-only
/*
 * strict_priority: the better nice value always wins.
 *
 * Failure mode: no ageing. As long as enough tasks of a better priority want to
 * run, a worse one never does; CPU hogs at nice 0 are enough to bury nice 10.
 *
 * class: starvation
 * expect: reject runnable-task-stall,task-starved,canary-starved
 * lint: lint-strict-priority
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE	0

void BPF_STRUCT_OPS(strict_priority_enqueue, struct task_struct *p, u64 enq_flags)
{
	/* The priority in the high bits, first come first served within one. */
	u64 key = (u64)p->static_prio << 48 | (scx_bpf_now() >> 8 & ((1ULL << 48) - 1));

	scx_bpf_dsq_insert_vtime(p, QUEUE, SCX_SLICE_DFL, key, enq_flags);
}

void BPF_STRUCT_OPS(strict_priority_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(QUEUE, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(strict_priority_init)
{
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(strict_priority,
	       .enqueue		= (void *)strict_priority_enqueue,
	       .dispatch	= (void *)strict_priority_dispatch,
	       .init		= (void *)strict_priority_init,
	       .name		= "strict_priority");
