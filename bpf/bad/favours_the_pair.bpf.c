// SPDX-License-Identifier: GPL-2.0-only
/*
 * favours_the_pair: two who talk to each other need nobody else.
 *
 * Failure mode: a synchronous wake-up (a pipe, a socket: the waker is about to sleep) puts
 * the woken task at the head of the waker's own CPU, to save a migration. A pair that plays
 * ping-pong is then always first on that CPU, and whoever is pinned there waits as long as
 * they play.
 *
 * class: starvation
 * expect: reject runnable-task-stall,task-starved,canary-starved,kworker-starved
 * policy: full
 * needs: a pair that talks for seconds beside a pinned task
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define SLICE_NS	(5 * 1000 * 1000ULL)

static bool handed_over(const struct task_struct *p, u64 wake_flags, s32 cpu)
{
	return (wake_flags & SCX_WAKE_SYNC) && bpf_cpumask_test_cpu(cpu, p->cpus_ptr);
}

s32 BPF_STRUCT_OPS(favours_the_pair_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	s32 here = bpf_get_smp_processor_id();
	bool idle = false;
	s32 cpu;

	if (handed_over(p, wake_flags, here)) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, SCX_ENQ_HEAD);
		return here;
	}
	cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);
	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(favours_the_pair_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SLICE_NS, enq_flags);
}

SCX_OPS_DEFINE(favours_the_pair,
	       .select_cpu	= (void *)favours_the_pair_select_cpu,
	       .enqueue		= (void *)favours_the_pair_enqueue,
	       .name		= "favours_the_pair");
