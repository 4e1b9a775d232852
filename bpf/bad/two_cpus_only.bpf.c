// SPDX-License-Identifier: GPL-2.0-only
/*
 * two_cpus_only: a table for the machine on which it was written.
 *
 * Failure mode: there are two queues, and a CPU uses the one with its number modulo two;
 * but only CPUs 0 and 1 ever drain one, since the loop over the table was not changed. On
 * two CPUs all is well. On four the other half of the machine runs what its tasks bring
 * along and nothing else, and who is pinned there waits for ever.
 *
 * class: topology
 * expect: reject runnable-task-stall,task-starved,canary-starved,kworker-starved,idle-while-runnable
 * needs: 4 CPUs
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define NR_QUEUES	2
#define SLICE_NS	(5 * 1000 * 1000ULL)

s32 BPF_STRUCT_OPS(two_cpus_only_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(two_cpus_only_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu = scx_bpf_task_cpu(p);

	scx_bpf_dsq_insert(p, cpu % NR_QUEUES, SLICE_NS, enq_flags);
	scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(two_cpus_only_dispatch, s32 cpu, struct task_struct *prev)
{
	if (cpu >= NR_QUEUES)
		return;
	if (!scx_bpf_dsq_move_to_local(cpu, 0))
		scx_bpf_dsq_move_to_local(1 - cpu, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(two_cpus_only_init)
{
	s32 err = scx_bpf_create_dsq(0, NUMA_NO_NODE);

	return err ?: scx_bpf_create_dsq(1, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(two_cpus_only,
	       .select_cpu	= (void *)two_cpus_only_select_cpu,
	       .enqueue		= (void *)two_cpus_only_enqueue,
	       .dispatch	= (void *)two_cpus_only_dispatch,
	       .init		= (void *)two_cpus_only_init,
	       .name		= "two_cpus_only");
