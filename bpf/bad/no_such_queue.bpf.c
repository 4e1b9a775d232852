// SPDX-License-Identifier: GPL-2.0-only
/*
 * no_such_queue: forgets to create its queue.
 *
 * Failure mode: a queue id that nobody created. The verifier can't know; the kernel
 * ejects the scheduler at the first insertion.
 *
 * class: runtime-error
 * expect: reject scheduler-error
 * lint: lint-unknown-queue
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE	42

void BPF_STRUCT_OPS(no_such_queue_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, QUEUE, SCX_SLICE_DFL, enq_flags);
}

void BPF_STRUCT_OPS(no_such_queue_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(QUEUE, 0);
}

SCX_OPS_DEFINE(no_such_queue,
	       .enqueue		= (void *)no_such_queue_enqueue,
	       .dispatch	= (void *)no_such_queue_dispatch,
	       .name		= "no_such_queue");
