// SPDX-License-Identifier: GPL-2.0-only
/*
 * drops_one_process: forgets every third process.
 *
 * Failure mode: a table that is too small, a lookup that fails, an early return:
 * some tasks are never inserted into any queue. Their threads stay runnable for
 * ever, everybody else runs well. By thread group, so that nobody can tell from the
 * name which one it hits.
 *
 * class: lost-task
 * expect: reject runnable-task-stall,task-starved,canary-starved
 * lint: lint-lost-task,lint-no-wakeup
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

s32 BPF_STRUCT_OPS(drops_one_process_select_cpu, struct task_struct *p, s32 prev_cpu,
		   u64 wake_flags)
{
	return prev_cpu;
}

void BPF_STRUCT_OPS(drops_one_process_enqueue, struct task_struct *p, u64 enq_flags)
{
	if (!(p->flags & PF_KTHREAD) && p->tgid % 3 == 1)
		return;
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
}

SCX_OPS_DEFINE(drops_one_process,
	       .select_cpu	= (void *)drops_one_process_select_cpu,
	       .enqueue		= (void *)drops_one_process_enqueue,
	       .name		= "drops_one_process");
