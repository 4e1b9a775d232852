// SPDX-License-Identifier: GPL-2.0-only
/*
 * init_may_not_sleep: the wrong one of two macros.
 *
 * Failure mode: creating a queue may sleep, and ops.init() was not declared with
 * BPF_STRUCT_OPS_SLEEPABLE(). It compiles, and the kernel does not load it.
 *
 * class: load-failure
 * expect: reject lint-sleepable,verifier-rejected
 * lint: lint-sleepable
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE	0

void BPF_STRUCT_OPS(init_may_not_sleep_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, QUEUE, SCX_SLICE_DFL, enq_flags);
}

void BPF_STRUCT_OPS(init_may_not_sleep_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(QUEUE, 0);
}

s32 BPF_STRUCT_OPS(init_may_not_sleep_init)
{
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(init_may_not_sleep,
	       .enqueue		= (void *)init_may_not_sleep_enqueue,
	       .dispatch	= (void *)init_may_not_sleep_dispatch,
	       .init		= (void *)init_may_not_sleep_init,
	       .name		= "init_may_not_sleep");
