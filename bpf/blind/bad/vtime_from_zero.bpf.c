// SPDX-License-Identifier: GPL-2.0-only
/*
 * vtime_from_zero: weighted global vtime queue; a new task starts with the vtime it was born with.
 *
 * Failure mode: no ops.enable that sets the start value and no clamp for sleepers. A task forked after the others
 * have used T seconds of CPU (or one that slept that long) has a vtime near 0 and wins every comparison until it has
 * used T seconds as well: old tasks get 0 % for T seconds. Invisible in the first seconds after boot, seconds of
 * starvation after a minute, stall (30 s) later on.
 *
 * class: late
 * expect: reject
 * needs: 30 s of run time; new or long sleeping CPU hogs beside old ones
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x81
#define SLICE_NS	(5ULL * 1000 * 1000)

s32 BPF_STRUCT_OPS(vtime_from_zero_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(vtime_from_zero_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu;

	if ((p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}
	/* Order by the time a task has used, scaled by its weight: the least served runs next. */
	scx_bpf_dsq_insert_vtime(p, SHARED_DSQ, SLICE_NS, p->scx.dsq_vtime, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(vtime_from_zero_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

void BPF_STRUCT_OPS(vtime_from_zero_stopping, struct task_struct *p, bool runnable)
{
	u64 used = SLICE_NS - p->scx.slice;

	if (p->scx.slice > SLICE_NS)
		used = 0;
	scx_bpf_task_set_dsq_vtime(p, p->scx.dsq_vtime + scale_by_task_weight_inverse(p, used));
}

s32 BPF_STRUCT_OPS_SLEEPABLE(vtime_from_zero_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(vtime_from_zero_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(vtime_from_zero,
	       .select_cpu	= (void *)vtime_from_zero_select_cpu,
	       .enqueue	= (void *)vtime_from_zero_enqueue,
	       .dispatch	= (void *)vtime_from_zero_dispatch,
	       .stopping	= (void *)vtime_from_zero_stopping,
	       .init		= (void *)vtime_from_zero_init,
	       .exit		= (void *)vtime_from_zero_exit,
	       .name		= "vtime_from_zero");
