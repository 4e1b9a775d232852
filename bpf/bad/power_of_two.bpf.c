// SPDX-License-Identifier: GPL-2.0-only
/*
 * power_of_two: a mask where a remainder was meant.
 *
 * Failure mode: tasks are dealt to the queues by `number & (nr_cpus - 1)`, which is quick
 * and right for 2, 4 and 8 CPUs. With three the mask is binary 10: queue 1 is never used,
 * so CPU 1 has only what it finds elsewhere. Nobody steals here, so it idles, and a task
 * that is pinned to it is dealt to others and never comes.
 *
 * class: topology
 * expect: reject runnable-task-stall,task-starved,canary-starved,kworker-starved,idle-while-runnable,crawl
 * needs: 3 CPUs
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define SLICE_NS	(5 * 1000 * 1000ULL)

static u32 nr_cpus;

static u64 queue_of(u32 number)
{
	return number & (nr_cpus - 1);
}

s32 BPF_STRUCT_OPS(power_of_two_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(power_of_two_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu = scx_bpf_task_cpu(p);

	scx_bpf_dsq_insert(p, queue_of(cpu), SLICE_NS, enq_flags);
	scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(power_of_two_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(cpu, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(power_of_two_init)
{
	u32 i;

	nr_cpus = scx_bpf_nr_cpu_ids();
	bpf_for(i, 0, nr_cpus) {
		s32 err = scx_bpf_create_dsq(i, NUMA_NO_NODE);

		if (err)
			return err;
	}
	return 0;
}

SCX_OPS_DEFINE(power_of_two,
	       .select_cpu	= (void *)power_of_two_select_cpu,
	       .enqueue		= (void *)power_of_two_enqueue,
	       .dispatch	= (void *)power_of_two_dispatch,
	       .init		= (void *)power_of_two_init,
	       .name		= "power_of_two");
