// SPDX-License-Identifier: GPL-2.0-only
/*
 * kernel_threads_last: users first.
 *
 * Failure mode: kernel threads wait in a queue of their own that is looked at when no user
 * task wants to run, since "they are only housekeeping". Beside CPU hogs they never run:
 * no work items, no RCU grace periods, no soft interrupts in threads, and at last not even
 * the kernel's own watchdog, which is a work item too.
 *
 * class: kernel-threads
 * expect: reject runnable-task-stall,kworker-starved,rcu-stall,rcu-starved,task-starved,hung-task
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

enum { USERS, KERNEL };

#define SLICE_NS	(5 * 1000 * 1000ULL)

s32 BPF_STRUCT_OPS(kernel_threads_last_select_cpu, struct task_struct *p, s32 prev_cpu,
		   u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(kernel_threads_last_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, p->flags & PF_KTHREAD ? KERNEL : USERS, SLICE_NS, enq_flags);
}

void BPF_STRUCT_OPS(kernel_threads_last_dispatch, s32 cpu, struct task_struct *prev)
{
	if (!scx_bpf_dsq_move_to_local(USERS, 0))
		scx_bpf_dsq_move_to_local(KERNEL, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(kernel_threads_last_init)
{
	s32 err = scx_bpf_create_dsq(USERS, NUMA_NO_NODE);

	return err ?: scx_bpf_create_dsq(KERNEL, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(kernel_threads_last,
	       .select_cpu	= (void *)kernel_threads_last_select_cpu,
	       .enqueue		= (void *)kernel_threads_last_enqueue,
	       .dispatch	= (void *)kernel_threads_last_dispatch,
	       .init		= (void *)kernel_threads_last_init,
	       .name		= "kernel_threads_last");
