// SPDX-License-Identifier: GPL-2.0-only
/*
 * kthreads_last: user tasks first, kernel threads from a background queue when no user task waits.
 *
 * Failure mode: strict priority of user work over kernel threads. While more user tasks are runnable than there are
 * CPUs, kworker, ksoftirqd, rcu and writeback threads get no CPU at all: workqueue items, RCU grace periods and I/O
 * hang (stall after the 30 s timeout, all of the system sluggish before). People think that kernel threads are
 * housekeeping.
 *
 * class: kernel-threads
 * expect: reject
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define USER_DSQ	1
#define KERNEL_DSQ	2
#define SLICE_NS	(5ULL * 1000 * 1000)

s32 BPF_STRUCT_OPS(kthreads_last_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(kthreads_last_enqueue, struct task_struct *p, u64 enq_flags)
{
	/* Kernel threads do background work (flushing, statistics): keep them out of the way of the user. */
	u64 dsq = p->flags & PF_KTHREAD ? KERNEL_DSQ : USER_DSQ;
	s32 cpu;

	scx_bpf_dsq_insert(p, dsq, SLICE_NS, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(kthreads_last_dispatch, s32 cpu, struct task_struct *prev)
{
	if (scx_bpf_dsq_move_to_local(USER_DSQ, 0))
		return;
	scx_bpf_dsq_move_to_local(KERNEL_DSQ, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(kthreads_last_init)
{
	s32 err = scx_bpf_create_dsq(USER_DSQ, -1);

	return err ?: scx_bpf_create_dsq(KERNEL_DSQ, -1);
}

void BPF_STRUCT_OPS(kthreads_last_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(kthreads_last,
	       .select_cpu	= (void *)kthreads_last_select_cpu,
	       .enqueue		= (void *)kthreads_last_enqueue,
	       .dispatch	= (void *)kthreads_last_dispatch,
	       .init		= (void *)kthreads_last_init,
	       .exit		= (void *)kthreads_last_exit,
	       .name		= "kthreads_last");
