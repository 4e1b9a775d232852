// SPDX-License-Identifier: GPL-2.0-only
/*
 * loses_when_crowded: a queue with a limit, and no place for the rest.
 *
 * Failure mode: more than ten waiting tasks are "impossible", so the eleventh is turned
 * away and never comes back. A quiet machine never has so many; a build or a burst of
 * messages has.
 *
 * class: lost-task
 * expect: reject runnable-task-stall,task-starved,canary-starved,kworker-starved,no-progress
 * lint: lint-lost-task
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE		0
#define SLICE_NS	(5 * 1000 * 1000ULL)
#define LIMIT		10

s32 BPF_STRUCT_OPS(loses_when_crowded_select_cpu, struct task_struct *p, s32 prev_cpu,
		   u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(loses_when_crowded_enqueue, struct task_struct *p, u64 enq_flags)
{
	if (scx_bpf_dsq_nr_queued(QUEUE) > LIMIT)
		return;
	scx_bpf_dsq_insert(p, QUEUE, SLICE_NS, enq_flags);
}

void BPF_STRUCT_OPS(loses_when_crowded_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(QUEUE, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(loses_when_crowded_init)
{
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(loses_when_crowded,
	       .select_cpu	= (void *)loses_when_crowded_select_cpu,
	       .enqueue		= (void *)loses_when_crowded_enqueue,
	       .dispatch	= (void *)loses_when_crowded_dispatch,
	       .init		= (void *)loses_when_crowded_init,
	       .name		= "loses_when_crowded");
