// SPDX-License-Identifier: GPL-2.0-only
/*
 * sync_follow: a synchronous wake-up pulls the woken task to the CPU of the waker.
 *
 * Failure mode: every wake-up through a pipe or socket carries the sync flag, also when the writer goes on and wakes
 * ten more. All readers end up in the local queue of one CPU, where nobody can take them away: a dispatcher with N
 * computing workers runs them one after the other while the other CPUs idle (throughput 1/CPUs, latency N times the
 * work). Futex and fork loads look perfect.
 *
 * class: idle-cpu
 * expect: reject
 * needs: 2 CPUs; pipes or sockets with one writer and several computing readers
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SLICE_NS	(5ULL * 1000 * 1000)

s32 BPF_STRUCT_OPS(sync_follow_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	s32 cpu = bpf_get_smp_processor_id();
	bool is_idle = false;

	/* The waker is about to sleep and the data is in its cache: run the partner here. */
	if ((wake_flags & SCX_WAKE_SYNC) && bpf_cpumask_test_cpu(cpu, p->cpus_ptr)) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
		return cpu;
	}

	cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags & ~SCX_WAKE_SYNC, &is_idle);
	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(sync_follow_enqueue, struct task_struct *p, u64 enq_flags)
{
	/* Stay where the cache is warm. */
	scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
}

void BPF_STRUCT_OPS(sync_follow_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(sync_follow,
	       .select_cpu	= (void *)sync_follow_select_cpu,
	       .enqueue	= (void *)sync_follow_enqueue,
	       .exit		= (void *)sync_follow_exit,
	       .name		= "sync_follow");
