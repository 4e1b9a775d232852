// SPDX-License-Identifier: GPL-2.0-only
/*
 * queue_of_waker: one FIFO per CPU; a task goes into the queue of the CPU on which enqueue runs.
 *
 * Failure mode: bpf_get_smp_processor_id() in enqueue is the CPU of the waker, not of the task. A per-CPU kernel
 * thread (or pinned task) woken from another CPU lands in a queue whose only consumer may not run it: kworkers,
 * ksoftirqd and migration helpers hang (stall after 8 s), and work piles up on the waking CPU while the chosen idle
 * CPU finds an empty queue. Works on one CPU.
 *
 * class: kernel-threads
 * expect: reject
 * needs: 2 CPUs
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define DSQ_BASE	0x2000
#define SLICE_NS	(5ULL * 1000 * 1000)

s32 BPF_STRUCT_OPS(queue_of_waker_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;

	return scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);
}

void BPF_STRUCT_OPS(queue_of_waker_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu = bpf_get_smp_processor_id();

	/* The queue of this CPU is hot in its cache and needs no remote lock. */
	scx_bpf_dsq_insert(p, DSQ_BASE + cpu, SLICE_NS, enq_flags);
	scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(queue_of_waker_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(DSQ_BASE + cpu, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(queue_of_waker_init)
{
	s32 i, err, nr = scx_bpf_nr_cpu_ids();

	bpf_for(i, 0, nr) {
		err = scx_bpf_create_dsq(DSQ_BASE + i, -1);
		if (err)
			return err;
	}
	return 0;
}

void BPF_STRUCT_OPS(queue_of_waker_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(queue_of_waker,
	       .select_cpu	= (void *)queue_of_waker_select_cpu,
	       .enqueue	= (void *)queue_of_waker_enqueue,
	       .dispatch	= (void *)queue_of_waker_dispatch,
	       .init		= (void *)queue_of_waker_init,
	       .exit		= (void *)queue_of_waker_exit,
	       .timeout_ms	= 8000,
	       .name		= "queue_of_waker");
