// SPDX-License-Identifier: GPL-2.0-only
/*
 * queue_nobody_drains: an active and an expired queue, never swapped.
 *
 * Failure mode: a task that used up its slice goes to the expired queue, and
 * dispatch only knows the active one. Light loads work well; the first CPU hog that
 * has to share its CPU is gone for ever.
 *
 * class: lost-task
 * expect: reject runnable-task-stall,task-starved,crawl
 * lint: lint-undrained-queue
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

enum { ACTIVE, EXPIRED };

void BPF_STRUCT_OPS(queue_nobody_drains_enqueue, struct task_struct *p, u64 enq_flags)
{
	u64 queue = enq_flags & SCX_ENQ_WAKEUP ? ACTIVE : EXPIRED;

	scx_bpf_dsq_insert(p, queue, SCX_SLICE_DFL, enq_flags);
}

void BPF_STRUCT_OPS(queue_nobody_drains_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(ACTIVE, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(queue_nobody_drains_init)
{
	s32 err = scx_bpf_create_dsq(ACTIVE, NUMA_NO_NODE);

	return err ?: scx_bpf_create_dsq(EXPIRED, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(queue_nobody_drains,
	       .enqueue		= (void *)queue_nobody_drains_enqueue,
	       .dispatch	= (void *)queue_nobody_drains_dispatch,
	       .init		= (void *)queue_nobody_drains_init,
	       .name		= "queue_nobody_drains");
