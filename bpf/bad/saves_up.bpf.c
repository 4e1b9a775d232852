// SPDX-License-Identifier: GPL-2.0-only
/*
 * saves_up: whoever slept has credit, without a limit.
 *
 * Failure mode: fair shares by virtual time, and a task that sleeps keeps its old one: the
 * bound that everybody else has was left out. It comes back with hours of credit and has
 * the machine for itself until they are spent. New tasks begin at zero, which is the same
 * thing: the first hog of an old machine waits for all that a new one has to catch up.
 *
 * class: starvation
 * expect: reject runnable-task-stall,task-starved,canary-starved,kworker-starved,unfair-share
 * policy: full
 * needs: long sleepers that then are busy, 20 s of run time
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE		0
#define SLICE_NS	(5 * 1000 * 1000ULL)

s32 BPF_STRUCT_OPS(saves_up_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(saves_up_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert_vtime(p, QUEUE, SLICE_NS, p->scx.dsq_vtime, enq_flags);
}

void BPF_STRUCT_OPS(saves_up_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(QUEUE, 0);
}

void BPF_STRUCT_OPS(saves_up_stopping, struct task_struct *p, bool runnable)
{
	u64 left = p->scx.slice;
	u64 used = left < SLICE_NS ? SLICE_NS - left : 0;

	scx_bpf_task_set_dsq_vtime(p, p->scx.dsq_vtime + used * 100 / p->scx.weight);
}

void BPF_STRUCT_OPS(saves_up_enable, struct task_struct *p)
{
	scx_bpf_task_set_dsq_vtime(p, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(saves_up_init)
{
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(saves_up,
	       .select_cpu	= (void *)saves_up_select_cpu,
	       .enqueue		= (void *)saves_up_enqueue,
	       .dispatch	= (void *)saves_up_dispatch,
	       .stopping	= (void *)saves_up_stopping,
	       .enable		= (void *)saves_up_enable,
	       .init		= (void *)saves_up_init,
	       .name		= "saves_up");
