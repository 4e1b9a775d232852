// SPDX-License-Identifier: GPL-2.0-only
/*
 * deals_into_cpu_queues: a queue for each CPU, dealt in turn.
 *
 * Failure mode: a pinned task that is dealt to the queue of a CPU it may not use
 * waits there for ever: that CPU can't take it, and no other looks.
 *
 * class: affinity
 * expect: reject runnable-task-stall,task-starved,canary-starved,kworker-starved
 * lint: lint-affinity-ignored
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

static u32 nr_cpus;
static u32 next_cpu;

void BPF_STRUCT_OPS(deals_into_cpu_queues_enqueue, struct task_struct *p, u64 enq_flags)
{
	u32 cpu = __sync_fetch_and_add(&next_cpu, 1) % nr_cpus;

	scx_bpf_dsq_insert(p, cpu, SCX_SLICE_DFL, enq_flags);
	scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(deals_into_cpu_queues_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(cpu, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(deals_into_cpu_queues_init)
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

SCX_OPS_DEFINE(deals_into_cpu_queues,
	       .enqueue		= (void *)deals_into_cpu_queues_enqueue,
	       .dispatch	= (void *)deals_into_cpu_queues_dispatch,
	       .init		= (void *)deals_into_cpu_queues_init,
	       .name		= "deals_into_cpu_queues");
