// SPDX-License-Identifier: GPL-2.0-only
/*
 * lifo: last come, first served.
 *
 * Failure mode: a stack instead of a queue. As long as tasks keep arriving, the
 * one at the bottom never runs; two CPU hogs that change places are enough.
 *
 * class: starvation
 * expect: reject runnable-task-stall,task-starved,canary-starved,kworker-starved
 * lint: lint-newest-first
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define STACK	0

void BPF_STRUCT_OPS(lifo_enqueue, struct task_struct *p, u64 enq_flags)
{
	u64 newest_first = (1ULL << 62) - scx_bpf_now();

	scx_bpf_dsq_insert_vtime(p, STACK, SCX_SLICE_DFL, newest_first, enq_flags);
}

void BPF_STRUCT_OPS(lifo_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(STACK, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(lifo_init)
{
	return scx_bpf_create_dsq(STACK, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(lifo,
	       .enqueue		= (void *)lifo_enqueue,
	       .dispatch	= (void *)lifo_dispatch,
	       .init		= (void *)lifo_init,
	       .name		= "lifo");
