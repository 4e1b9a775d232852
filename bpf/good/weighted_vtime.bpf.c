// SPDX-License-Identifier: GPL-2.0-only
/*
 * weighted_vtime: weighted fair sharing over one queue.
 *
 * Each task has a virtual time that runs slower the heavier it is; the task that
 * is furthest behind runs next. A task that slept may be behind by one slice at
 * most, so that it gets its turn soon and can't live on savings for long.
 *
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE		0
#define SLICE_NS	(5 * 1000 * 1000ULL)

/* The virtual time of the machine: that of the task which started last. */
static u64 machine_vtime;

s32 BPF_STRUCT_OPS(weighted_vtime_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(weighted_vtime_enqueue, struct task_struct *p, u64 enq_flags)
{
	u64 oldest = machine_vtime - SLICE_NS;
	u64 vtime = p->scx.dsq_vtime;

	if (time_before(vtime, oldest))
		vtime = oldest;
	scx_bpf_dsq_insert_vtime(p, QUEUE, SLICE_NS, vtime, enq_flags);
}

void BPF_STRUCT_OPS(weighted_vtime_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(QUEUE, 0);
}

/* Several CPUs may do this at once; the error is a slice, and soon forgotten. */
void BPF_STRUCT_OPS(weighted_vtime_running, struct task_struct *p)
{
	if (time_before(machine_vtime, p->scx.dsq_vtime))
		machine_vtime = p->scx.dsq_vtime;
}

void BPF_STRUCT_OPS(weighted_vtime_stopping, struct task_struct *p, bool runnable)
{
	u64 left = p->scx.slice;
	u64 used = left < SLICE_NS ? SLICE_NS - left : 0;

	scx_bpf_task_set_dsq_vtime(p, p->scx.dsq_vtime + used * 100 / p->scx.weight);
}

void BPF_STRUCT_OPS(weighted_vtime_enable, struct task_struct *p)
{
	scx_bpf_task_set_dsq_vtime(p, machine_vtime);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(weighted_vtime_init)
{
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(weighted_vtime,
	       .select_cpu	= (void *)weighted_vtime_select_cpu,
	       .enqueue		= (void *)weighted_vtime_enqueue,
	       .dispatch	= (void *)weighted_vtime_dispatch,
	       .running		= (void *)weighted_vtime_running,
	       .stopping	= (void *)weighted_vtime_stopping,
	       .enable		= (void *)weighted_vtime_enable,
	       .init		= (void *)weighted_vtime_init,
	       .name		= "weighted_vtime");
