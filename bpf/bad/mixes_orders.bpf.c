// SPDX-License-Identifier: GPL-2.0-only
/*
 * mixes_orders: kernel threads take a shortcut into the fair queue.
 *
 * Failure mode: one queue is filled by vtime and, for kernel threads, first in,
 * first out. As soon as a task of one kind meets one of the other in the queue
 * the kernel ejects the scheduler.
 *
 * class: runtime-error
 * expect: reject scheduler-error
 * lint: lint-mixed-order
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE	0

void BPF_STRUCT_OPS(mixes_orders_enqueue, struct task_struct *p, u64 enq_flags)
{
	if (p->flags & PF_KTHREAD)
		scx_bpf_dsq_insert(p, QUEUE, SCX_SLICE_DFL, enq_flags);
	else
		scx_bpf_dsq_insert_vtime(p, QUEUE, SCX_SLICE_DFL, scx_bpf_now(), enq_flags);
}

void BPF_STRUCT_OPS(mixes_orders_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(QUEUE, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(mixes_orders_init)
{
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(mixes_orders,
	       .enqueue		= (void *)mixes_orders_enqueue,
	       .dispatch	= (void *)mixes_orders_dispatch,
	       .init		= (void *)mixes_orders_init,
	       .name		= "mixes_orders");
