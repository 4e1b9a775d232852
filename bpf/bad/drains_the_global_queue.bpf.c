// SPDX-License-Identifier: GPL-2.0-only
/*
 * drains_the_global_queue: does the kernel's work a second time.
 *
 * Failure mode: the built-in global queue is drained by the kernel itself.
 * Whoever gives it to scx_bpf_dsq_move_to_local() names a queue that the kernel
 * does not know as the scheduler's, and is ejected at the first dispatch.
 *
 * class: runtime-error
 * expect: reject scheduler-error
 * lint: lint-builtin-queue
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

void BPF_STRUCT_OPS(drains_the_global_queue_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
}

void BPF_STRUCT_OPS(drains_the_global_queue_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SCX_DSQ_GLOBAL, 0);
}

SCX_OPS_DEFINE(drains_the_global_queue,
	       .enqueue		= (void *)drains_the_global_queue_enqueue,
	       .dispatch	= (void *)drains_the_global_queue_dispatch,
	       .name		= "drains_the_global_queue");
