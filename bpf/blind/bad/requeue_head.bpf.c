// SPDX-License-Identifier: GPL-2.0-only
/*
 * requeue_head: shared FIFO that puts a task whose slice ended back at the head of the queue.
 *
 * Failure mode: a preempted CPU-bound task goes to the front of the shared queue and is picked again at once. As soon
 * as there are as many CPU hogs as CPUs, every other queued task waits for ever (share 0 %, stall after the 30 s
 * timeout; before that wake-ups on a full machine wait without bound). People do it "to keep the cache warm" and test
 * with fewer hogs than CPUs.
 *
 * class: starvation
 * expect: reject
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x10
#define SLICE_NS	(5ULL * 1000 * 1000)

s32 BPF_STRUCT_OPS(requeue_head_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(requeue_head_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu;

	if ((p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}

	/* A task that was just preempted still has its working set in cache: resume it first. */
	if (!(enq_flags & SCX_ENQ_WAKEUP))
		enq_flags |= SCX_ENQ_HEAD;
	scx_bpf_dsq_insert(p, SHARED_DSQ, SLICE_NS, enq_flags);

	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(requeue_head_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(requeue_head_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(requeue_head_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(requeue_head,
	       .select_cpu	= (void *)requeue_head_select_cpu,
	       .enqueue		= (void *)requeue_head_enqueue,
	       .dispatch	= (void *)requeue_head_dispatch,
	       .init		= (void *)requeue_head_init,
	       .exit		= (void *)requeue_head_exit,
	       .name		= "requeue_head");
