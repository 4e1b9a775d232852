// SPDX-License-Identifier: GPL-2.0-only
/*
 * kick_everybody: shared FIFO; every enqueue preempts all CPUs so that somebody picks the task up quickly.
 *
 * Failure mode: SCX_KICK_PREEMPT to every CPU on every enqueue. A preempted task is enqueued again, which kicks
 * everybody again: with more runnable tasks than CPUs the machine mostly switches contexts (tens of thousands of IPIs
 * per second and CPU), useful work drops several times, slices mean nothing. Every task does run, so no watchdog sees
 * it. Written out of fear of a lost kick.
 *
 * class: throughput
 * expect: reject
 * needs: 2 CPUs
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x40
#define SLICE_NS	(20ULL * 1000 * 1000)

void BPF_STRUCT_OPS(kick_everybody_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 i, nr = scx_bpf_nr_cpu_ids();

	scx_bpf_dsq_insert(p, SHARED_DSQ, SLICE_NS, enq_flags);

	/* Make sure that nobody sleeps or runs on while work waits. */
	bpf_for(i, 0, nr) {
		if (bpf_cpumask_test_cpu(i, p->cpus_ptr))
			scx_bpf_kick_cpu(i, SCX_KICK_PREEMPT);
	}
}

void BPF_STRUCT_OPS(kick_everybody_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(kick_everybody_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(kick_everybody_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(kick_everybody,
	       .enqueue		= (void *)kick_everybody_enqueue,
	       .dispatch	= (void *)kick_everybody_dispatch,
	       .init		= (void *)kick_everybody_init,
	       .exit		= (void *)kick_everybody_exit,
	       .name		= "kick_everybody");
