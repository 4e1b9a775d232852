// SPDX-License-Identifier: GPL-2.0-only
/*
 * switches_idle_tracking_off: counts idle CPUs, and asks the kernel for one.
 *
 * Failure mode: an ops.update_idle() takes the kernel's record of idle CPUs over,
 * unless SCX_OPS_KEEP_BUILTIN_IDLE is set. The first scx_bpf_pick_idle_cpu()
 * afterwards ejects the scheduler.
 *
 * class: runtime-error
 * expect: reject scheduler-error
 * lint: lint-idle-tracking-off
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

static u64 changes;

void BPF_STRUCT_OPS(switches_idle_tracking_off_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);

	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(switches_idle_tracking_off_update_idle, s32 cpu, bool idle)
{
	__sync_fetch_and_add(&changes, 1);
}

SCX_OPS_DEFINE(switches_idle_tracking_off,
	       .enqueue		= (void *)switches_idle_tracking_off_enqueue,
	       .update_idle	= (void *)switches_idle_tracking_off_update_idle,
	       .name		= "switches_idle_tracking_off");
