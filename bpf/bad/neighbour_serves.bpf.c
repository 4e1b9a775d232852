// SPDX-License-Identifier: GPL-2.0-only
/*
 * neighbour_serves: CPUs in pairs that help each other.
 *
 * Failure mode: a CPU's neighbour is `cpu ^ 1`, which is right for every machine that its
 * author had. With one CPU, or any odd number, the last one's neighbour does not exist; its
 * queue was never created, and the kernel ejects the scheduler at the first look into it.
 *
 * class: topology
 * expect: reject scheduler-error
 * needs: 1 CPU
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define SLICE_NS	(5 * 1000 * 1000ULL)

static u32 nr_cpus;

s32 BPF_STRUCT_OPS(neighbour_serves_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(neighbour_serves_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 owner = scx_bpf_task_cpu(p);

	scx_bpf_dsq_insert(p, owner, SLICE_NS, enq_flags);
	scx_bpf_kick_cpu(owner, SCX_KICK_IDLE);
	if (bpf_cpumask_test_cpu(owner ^ 1, p->cpus_ptr))
		scx_bpf_kick_cpu(owner ^ 1, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(neighbour_serves_dispatch, s32 cpu, struct task_struct *prev)
{
	if (!scx_bpf_dsq_move_to_local(cpu, 0))
		scx_bpf_dsq_move_to_local(cpu ^ 1, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(neighbour_serves_init)
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

SCX_OPS_DEFINE(neighbour_serves,
	       .select_cpu	= (void *)neighbour_serves_select_cpu,
	       .enqueue		= (void *)neighbour_serves_enqueue,
	       .dispatch	= (void *)neighbour_serves_dispatch,
	       .init		= (void *)neighbour_serves_init,
	       .name		= "neighbour_serves");
