// SPDX-License-Identifier: GPL-2.0-only
/*
 * counts_online_cpus: as many queues as CPUs, numbered from 0.
 *
 * Failure mode: ops.init() counts the CPUs that are online and makes so many queues. CPU
 * numbers have holes where second threads are off or CPUs have gone: CPU 2 of two has no
 * queue, and the first insert into it ends the scheduler.
 *
 * class: topology
 * expect: reject scheduler-error
 * policy: full
 * scenario: siblings-offline
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

void BPF_STRUCT_OPS(counts_online_cpus_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu = scx_bpf_task_cpu(p);

	scx_bpf_dsq_insert(p, cpu, SCX_SLICE_DFL, enq_flags);
	scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(counts_online_cpus_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(cpu, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(counts_online_cpus_init)
{
	const struct cpumask *online = scx_bpf_get_online_cpumask();
	u32 count = bpf_cpumask_weight(online);
	s32 cpu, error = 0;

	scx_bpf_put_cpumask(online);
	bpf_for(cpu, 0, count) {
		error = scx_bpf_create_dsq(cpu, NUMA_NO_NODE);
		if (error)
			break;
	}
	return error;
}

SCX_OPS_DEFINE(counts_online_cpus,
	       .enqueue		= (void *)counts_online_cpus_enqueue,
	       .dispatch	= (void *)counts_online_cpus_dispatch,
	       .init		= (void *)counts_online_cpus_init,
	       .name		= "counts_online_cpus");
