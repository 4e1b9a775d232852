// SPDX-License-Identifier: GPL-2.0-only
/*
 * orders_the_global_queue: a FIFO scheduler made fair by one changed call.
 *
 * Failure mode: built-in queues know no order. The kernel ejects the scheduler at
 * the first insertion by vtime.
 *
 * class: runtime-error
 * expect: reject scheduler-error
 * lint: lint-vtime-builtin
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

void BPF_STRUCT_OPS(orders_the_global_queue_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert_vtime(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, p->scx.dsq_vtime, enq_flags);
}

SCX_OPS_DEFINE(orders_the_global_queue,
	       .enqueue	= (void *)orders_the_global_queue_enqueue,
	       .name	= "orders_the_global_queue");
