// SPDX-License-Identifier: GPL-2.0-only
/*
 * pull_in_enqueue: shared FIFO that tries to hand over work directly from enqueue.
 *
 * Failure mode: calls scx_bpf_dsq_move_to_local() from ops.enqueue. That kfunc is for ops.dispatch only; the verifier
 * of this kernel refuses the program (older ones raise a runtime error), so it never loads. Models do not know which
 * kfunc belongs where.
 *
 * class: load-failure
 * expect: reject
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x70

void BPF_STRUCT_OPS(pull_in_enqueue_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, SHARED_DSQ, SCX_SLICE_DFL, enq_flags);

	/* If this CPU has nothing to do, take the task at once instead of waiting for dispatch. */
	if (!scx_bpf_dsq_nr_queued(SCX_DSQ_LOCAL))
		scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

void BPF_STRUCT_OPS(pull_in_enqueue_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(pull_in_enqueue_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(pull_in_enqueue_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(pull_in_enqueue,
	       .enqueue		= (void *)pull_in_enqueue_enqueue,
	       .dispatch	= (void *)pull_in_enqueue_dispatch,
	       .init		= (void *)pull_in_enqueue_init,
	       .exit		= (void *)pull_in_enqueue_exit,
	       .name		= "pull_in_enqueue");
