// SPDX-License-Identifier: GPL-2.0-only
/*
 * drops_kernel_threads: schedules user tasks only.
 *
 * Failure mode: "kernel threads take care of themselves". They do not: in full
 * mode kworkers, ksoftirqd and the RCU threads are ordinary sched_ext tasks, and
 * the machine dies slowly without them. Even the kernel's own watchdog is a work
 * item, so its back-up in the timer tick may be the one that speaks.
 *
 * class: kernel-threads
 * expect: reject runnable-task-stall,kworker-starved,rcu-stall
 * lint: lint-lost-task,lint-no-wakeup
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

s32 BPF_STRUCT_OPS(drops_kernel_threads_select_cpu, struct task_struct *p, s32 prev_cpu,
		   u64 wake_flags)
{
	return prev_cpu;
}

void BPF_STRUCT_OPS(drops_kernel_threads_enqueue, struct task_struct *p, u64 enq_flags)
{
	if (p->flags & PF_KTHREAD)
		return;
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
}

SCX_OPS_DEFINE(drops_kernel_threads,
	       .select_cpu	= (void *)drops_kernel_threads_select_cpu,
	       .enqueue		= (void *)drops_kernel_threads_enqueue,
	       .name		= "drops_kernel_threads");
