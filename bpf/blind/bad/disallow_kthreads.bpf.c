// SPDX-License-Identifier: GPL-2.0-only
/*
 * disallow_kthreads: FIFO that wants to leave kernel threads to the fair class.
 *
 * Failure mode: init_task sets p->scx.disallow for every kernel thread, also when the thread is being forked. The
 * kernel allows that only while loading and ejects the scheduler at the first fork of a kernel thread (a new kworker:
 * seconds to minutes after the load, at once under I/O or workqueue load). Existing threads are not rejected either.
 * The man-page word "disallow" invites it.
 *
 * class: integrity
 * expect: reject
 * needs: 30 s of run time; a new kworker (I/O, workqueue load)
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x60
#define SLICE_NS	(5ULL * 1000 * 1000)

s32 BPF_STRUCT_OPS(disallow_kthreads_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(disallow_kthreads_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu;

	scx_bpf_dsq_insert(p, SHARED_DSQ, SLICE_NS, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(disallow_kthreads_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

s32 BPF_STRUCT_OPS(disallow_kthreads_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	/* Kernel threads are better off with the fair class: this scheduler is for user work. */
	if (p->flags & PF_KTHREAD)
		p->scx.disallow = true;
	return 0;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(disallow_kthreads_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(disallow_kthreads_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(disallow_kthreads,
	       .select_cpu	= (void *)disallow_kthreads_select_cpu,
	       .enqueue		= (void *)disallow_kthreads_enqueue,
	       .dispatch	= (void *)disallow_kthreads_dispatch,
	       .init_task	= (void *)disallow_kthreads_init_task,
	       .init		= (void *)disallow_kthreads_init,
	       .exit		= (void *)disallow_kthreads_exit,
	       .name		= "disallow_kthreads");
