// SPDX-License-Identifier: GPL-2.0-only
/*
 * mixed_queue: vtime scheduler; kernel threads join the same queue without a vtime.
 *
 * Failure mode: FIFO and vtime inserts are mixed in one queue. The kernel ejects the scheduler ("already had
 * PRIQ-enqueued tasks") as soon as a kernel thread is queued while a user task waits, i.e. within a second of any
 * saturated load, not on an idle machine. Nothing at load or verification time tells.
 *
 * class: integrity
 * expect: reject
 * needs: more runnable tasks than CPUs
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x88
#define SLICE_NS	(5ULL * 1000 * 1000)

static u64 vtime_now;

s32 BPF_STRUCT_OPS(mixed_queue_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(mixed_queue_enqueue, struct task_struct *p, u64 enq_flags)
{
	u64 vtime = p->scx.dsq_vtime;
	s32 cpu;

	if (p->flags & PF_KTHREAD) {
		/* Kernel threads are short and urgent: put them in front of the queue. */
		scx_bpf_dsq_insert(p, SHARED_DSQ, SLICE_NS, enq_flags | SCX_ENQ_HEAD);
	} else {
		if (time_before(vtime, vtime_now - SLICE_NS))
			vtime = vtime_now - SLICE_NS;
		scx_bpf_dsq_insert_vtime(p, SHARED_DSQ, SLICE_NS, vtime, enq_flags);
	}
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(mixed_queue_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

void BPF_STRUCT_OPS(mixed_queue_running, struct task_struct *p)
{
	if (time_before(vtime_now, p->scx.dsq_vtime))
		vtime_now = p->scx.dsq_vtime;
}

void BPF_STRUCT_OPS(mixed_queue_stopping, struct task_struct *p, bool runnable)
{
	u64 used = p->scx.slice < SLICE_NS ? SLICE_NS - p->scx.slice : 0;

	scx_bpf_task_set_dsq_vtime(p, p->scx.dsq_vtime + scale_by_task_weight_inverse(p, used));
}

void BPF_STRUCT_OPS(mixed_queue_enable, struct task_struct *p)
{
	scx_bpf_task_set_dsq_vtime(p, vtime_now);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(mixed_queue_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(mixed_queue_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(mixed_queue,
	       .select_cpu	= (void *)mixed_queue_select_cpu,
	       .enqueue	= (void *)mixed_queue_enqueue,
	       .dispatch	= (void *)mixed_queue_dispatch,
	       .running	= (void *)mixed_queue_running,
	       .stopping	= (void *)mixed_queue_stopping,
	       .enable		= (void *)mixed_queue_enable,
	       .init		= (void *)mixed_queue_init,
	       .exit		= (void *)mixed_queue_exit,
	       .name		= "mixed_queue");
