// SPDX-License-Identifier: GPL-2.0-only
/*
 * schedules_nobody: takes the credit and leaves the work to EEVDF.
 *
 * Failure mode: with SCX_OPS_SWITCH_PARTIAL only tasks that ask for it are taken, and
 * nobody asks. The state is "enabled", every figure is that of the kernel's own scheduler,
 * and whatever is wrong with this one (it loses every task that it gets) was never tried.
 *
 * class: integrity
 * expect: reject tampering,tasks-rejected,runnable-task-stall,task-starved
 * lint: lint-lost-task
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

static u64 seen;

void BPF_STRUCT_OPS(schedules_nobody_enqueue, struct task_struct *p, u64 enq_flags)
{
	__sync_fetch_and_add(&seen, 1);
}

SCX_OPS_DEFINE(schedules_nobody,
	       .enqueue	= (void *)schedules_nobody_enqueue,
	       .flags	= SCX_OPS_SWITCH_PARTIAL,
	       .name	= "schedules_nobody");
