// SPDX-License-Identifier: GPL-2.0-only
/*
 * kicks_everybody: an alarm for all at each arrival.
 *
 * Failure mode: every task that is queued preempts every CPU. The tasks that are
 * preempted are queued again, and preempt every CPU: the machine is busy with
 * itself.
 *
 * class: throughput
 * expect: reject crawl,no-progress,throughput-collapse,latency-collapse,canary-starved,task-starved,runnable-task-stall,kworker-starved,soft-lockup,rcu-stall,machine-locked-up
 * lint: lint-kicks-everybody
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

static u32 nr_cpus;

void BPF_STRUCT_OPS(kicks_everybody_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu;

	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
	bpf_for(cpu, 0, nr_cpus)
		scx_bpf_kick_cpu(cpu, SCX_KICK_PREEMPT);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(kicks_everybody_init)
{
	nr_cpus = scx_bpf_nr_cpu_ids();
	return 0;
}

SCX_OPS_DEFINE(kicks_everybody,
	       .enqueue	= (void *)kicks_everybody_enqueue,
	       .init	= (void *)kicks_everybody_init,
	       .name	= "kicks_everybody");
