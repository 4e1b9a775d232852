// SPDX-License-Identifier: GPL-2.0-only
/*
 * per_cpu_queues: a queue for each CPU, kicks, and stealing.
 *
 * A task waits in the queue of the CPU that it last ran on. Who queues a task
 * wakes the queue's owner and an idle CPU that may take the task. A CPU takes from
 * the longest queue when its own is shorter by two or more, else from its own, else
 * from whoever has something for it, so hogs spread and no CPU idles beside work.
 *
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define SLICE_NS	(5 * 1000 * 1000ULL)

static u32 nr_cpus;

s32 BPF_STRUCT_OPS(per_cpu_queues_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(per_cpu_queues_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 owner = scx_bpf_task_cpu(p);
	s32 helper;

	scx_bpf_dsq_insert(p, owner, SLICE_NS, enq_flags);
	scx_bpf_kick_cpu(owner, SCX_KICK_IDLE);

	helper = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (helper >= 0 && helper != owner)
		scx_bpf_kick_cpu(helper, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(per_cpu_queues_dispatch, s32 cpu, struct task_struct *prev)
{
	s32 longest_len = scx_bpf_dsq_nr_queued(cpu) + 1;
	s32 longest = -1;
	u32 i;

	bpf_for(i, 0, nr_cpus) {
		s32 len = scx_bpf_dsq_nr_queued(i);

		if (len > longest_len) {
			longest_len = len;
			longest = i;
		}
	}

	if (longest >= 0 && scx_bpf_dsq_move_to_local(longest, 0))
		return;
	if (scx_bpf_dsq_move_to_local(cpu, 0))
		return;
	bpf_for(i, 1, nr_cpus)
		if (scx_bpf_dsq_move_to_local((cpu + i) % nr_cpus, 0))
			return;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(per_cpu_queues_init)
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

SCX_OPS_DEFINE(per_cpu_queues,
	       .select_cpu	= (void *)per_cpu_queues_select_cpu,
	       .enqueue		= (void *)per_cpu_queues_enqueue,
	       .dispatch	= (void *)per_cpu_queues_dispatch,
	       .init		= (void *)per_cpu_queues_init,
	       .name		= "per_cpu_queues");
