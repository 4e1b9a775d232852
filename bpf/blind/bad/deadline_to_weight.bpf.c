// SPDX-License-Identifier: GPL-2.0-only
/*
 * deadline_to_weight: deadline scheduler: deadline = now + request scaled by the weight.
 *
 * Failure mode: the deadline of a nice 0 task is 2 s away, that of a nice 19 task 200 s. On a machine kept busy by
 * nice 0 tasks a nice 19 task gets nothing for 198 s (EEVDF gives it about 1.5 %): stall after 30 s; a nice 10 task
 * waits 10-20 s per turn, a nice 0 task waits 2 s behind negative nice. Weights span four decades; people think of
 * one.
 *
 * class: starvation
 * expect: reject
 * needs: nice 19 and nice 0 hogs together, 40 s for the stall
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x8c
#define SLICE_NS	(20ULL * 1000 * 1000)

s32 BPF_STRUCT_OPS(deadline_to_weight_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(deadline_to_weight_enqueue, struct task_struct *p, u64 enq_flags)
{
	u64 deadline;
	s32 cpu;

	if ((p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}
	/* Weight is 1 to 10000 and a heavier task is due earlier. */
	deadline = bpf_ktime_get_ns() + SLICE_NS * 10000 / p->scx.weight;
	scx_bpf_dsq_insert_vtime(p, SHARED_DSQ, SLICE_NS, deadline, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(deadline_to_weight_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(deadline_to_weight_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(deadline_to_weight_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(deadline_to_weight,
	       .select_cpu	= (void *)deadline_to_weight_select_cpu,
	       .enqueue	= (void *)deadline_to_weight_enqueue,
	       .dispatch	= (void *)deadline_to_weight_dispatch,
	       .init		= (void *)deadline_to_weight_init,
	       .exit		= (void *)deadline_to_weight_exit,
	       .name		= "deadline_to_weight");
