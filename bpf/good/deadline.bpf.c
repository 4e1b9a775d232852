// SPDX-License-Identifier: GPL-2.0-only
/*
 * deadline: earliest deadline first, and the weight says how soon that is.
 *
 * A task's deadline is the time at which it was queued plus a patience between 2
 * and 100 ms: 20 ms for the ordinary weight, less for heavier tasks, more for
 * lighter ones. Deadlines do not move while a task waits, so everybody's turn comes.
 * A waking task whose CPU is busy with a less urgent one preempts nobody: slices are
 * short instead.
 *
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE		0
#define MS		(1000 * 1000ULL)
#define SLICE_NS	(3 * MS)

static u64 patience(const struct task_struct *p)
{
	u64 ns = 20 * MS * 100 / p->scx.weight;

	if (ns < 2 * MS)
		return 2 * MS;
	return ns > 100 * MS ? 100 * MS : ns;
}

s32 BPF_STRUCT_OPS(deadline_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(deadline_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert_vtime(p, QUEUE, SLICE_NS, scx_bpf_now() + patience(p), enq_flags);
}

void BPF_STRUCT_OPS(deadline_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(QUEUE, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(deadline_init)
{
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(deadline,
	       .select_cpu	= (void *)deadline_select_cpu,
	       .enqueue		= (void *)deadline_enqueue,
	       .dispatch	= (void *)deadline_dispatch,
	       .init		= (void *)deadline_init,
	       .name		= "deadline");
