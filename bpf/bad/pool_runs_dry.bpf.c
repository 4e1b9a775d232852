// SPDX-License-Identifier: GPL-2.0-only
/*
 * pool_runs_dry: a pool of contexts that was large enough on the laptop.
 *
 * Failure mode: each task has a context from a pool with a fixed number of them. They are
 * given back when a task ends, so nothing grows; but in a burst of forks there are more
 * tasks than contexts, and the scheduler's own assertion ejects it.
 *
 * class: fork-or-cgroup
 * expect: reject self-ejected,scheduler-error,fork-vetoed
 * needs: heavy forking
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE		0
#define SLICE_NS	(5 * 1000 * 1000ULL)
#define ROOM		24

static bool attached;
static s32 used;

s32 BPF_STRUCT_OPS(pool_runs_dry_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(pool_runs_dry_enqueue, struct task_struct *p, u64 enq_flags)
{
	attached = true;
	scx_bpf_dsq_insert(p, QUEUE, SLICE_NS, enq_flags);
}

void BPF_STRUCT_OPS(pool_runs_dry_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(QUEUE, 0);
}

/* The tasks that were there when it was attached have theirs elsewhere. */
s32 BPF_STRUCT_OPS(pool_runs_dry_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	if (attached && args->fork && __sync_add_and_fetch(&used, 1) > ROOM)
		scx_bpf_error("no context for pid %d", p->pid);
	return 0;
}

void BPF_STRUCT_OPS(pool_runs_dry_exit_task, struct task_struct *p, struct scx_exit_task_args *args)
{
	if (attached && used > 0)
		__sync_sub_and_fetch(&used, 1);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(pool_runs_dry_init)
{
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(pool_runs_dry,
	       .select_cpu	= (void *)pool_runs_dry_select_cpu,
	       .enqueue		= (void *)pool_runs_dry_enqueue,
	       .dispatch	= (void *)pool_runs_dry_dispatch,
	       .init_task	= (void *)pool_runs_dry_init_task,
	       .exit_task	= (void *)pool_runs_dry_exit_task,
	       .init		= (void *)pool_runs_dry_init,
	       .name		= "pool_runs_dry");
