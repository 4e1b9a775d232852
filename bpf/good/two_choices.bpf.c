// SPDX-License-Identifier: GPL-2.0-only
/*
 * two_choices: the shorter of two queues.
 *
 * A queue for each CPU. A task that is queued compares its CPU's queue with that of
 * another CPU that it may use and takes the shorter one; queues stay level without
 * anybody who looks at all of them. The queue's owner and an idle CPU that may take the
 * task are woken, and a CPU with an empty queue takes from whoever has something for it.
 *
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define SLICE_NS	(5 * 1000 * 1000ULL)

static u32 nr_cpus;

s32 BPF_STRUCT_OPS(two_choices_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(two_choices_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 owner = scx_bpf_task_cpu(p);
	s32 other = bpf_cpumask_any_distribute(p->cpus_ptr);
	s32 helper;

	if (other < nr_cpus && scx_bpf_dsq_nr_queued(other) < scx_bpf_dsq_nr_queued(owner))
		owner = other;
	scx_bpf_dsq_insert(p, owner, SLICE_NS, enq_flags);
	scx_bpf_kick_cpu(owner, SCX_KICK_IDLE);

	helper = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (helper >= 0 && helper != owner)
		scx_bpf_kick_cpu(helper, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(two_choices_dispatch, s32 cpu, struct task_struct *prev)
{
	u32 i;

	bpf_for(i, 0, nr_cpus)
		if (scx_bpf_dsq_move_to_local((cpu + i) % nr_cpus, 0))
			return;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(two_choices_init)
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

SCX_OPS_DEFINE(two_choices,
	       .select_cpu	= (void *)two_choices_select_cpu,
	       .enqueue		= (void *)two_choices_enqueue,
	       .dispatch	= (void *)two_choices_dispatch,
	       .init		= (void *)two_choices_init,
	       .name		= "two_choices");
