// SPDX-License-Identifier: GPL-2.0-only
/*
 * wants_the_last_task: a flag without the callback that it is for.
 *
 * Failure mode: SCX_OPS_ENQ_LAST hands the last task of a CPU to ops.enqueue(),
 * and there is none. The attach call succeeds; the kernel ejects the scheduler
 * while it attaches.
 *
 * class: init-failure
 * expect: reject lint-flags,init-failed,scheduler-error
 * lint: lint-flags
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

static u64 runs;

void BPF_STRUCT_OPS(wants_the_last_task_running, struct task_struct *p)
{
	__sync_fetch_and_add(&runs, 1);
}

SCX_OPS_DEFINE(wants_the_last_task,
	       .running	= (void *)wants_the_last_task_running,
	       .flags	= SCX_OPS_ENQ_LAST,
	       .name	= "wants_the_last_task");
