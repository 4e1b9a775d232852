// SPDX-License-Identifier: GPL-2.0-only
/*
 * missing_kick: a queue for each CPU, and nobody is told.
 *
 * Failure mode: a task goes to the queue of its CPU's neighbour, to spread the load,
 * and the neighbour is not kicked. If it sleeps it goes on sleeping until something
 * else happens to wake it: idle CPUs beside queued work, waits that end by chance, and
 * on a quiet machine a stall.
 *
 * class: idle-cpu
 * expect: reject idle-while-runnable,runnable-task-stall,task-starved,canary-starved,latency-collapse,throughput-collapse
 * lint: lint-no-wakeup
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

static u32 nr_cpus;

s32 BPF_STRUCT_OPS(missing_kick_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	return prev_cpu;
}

void BPF_STRUCT_OPS(missing_kick_enqueue, struct task_struct *p, u64 enq_flags)
{
	u32 here = scx_bpf_task_cpu(p);
	u32 cpu = (here + 1) % nr_cpus;

	if (!bpf_cpumask_test_cpu(cpu, p->cpus_ptr))
		cpu = here;
	scx_bpf_dsq_insert(p, cpu, SCX_SLICE_DFL, enq_flags);
}

void BPF_STRUCT_OPS(missing_kick_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(cpu, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(missing_kick_init)
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

SCX_OPS_DEFINE(missing_kick,
	       .select_cpu	= (void *)missing_kick_select_cpu,
	       .enqueue		= (void *)missing_kick_enqueue,
	       .dispatch	= (void *)missing_kick_dispatch,
	       .init		= (void *)missing_kick_init,
	       .name		= "missing_kick");
