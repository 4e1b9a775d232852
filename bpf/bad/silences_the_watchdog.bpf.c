// SPDX-License-Identifier: GPL-2.0-only
/*
 * silences_the_watchdog: a stall cured by patience.
 *
 * Failure mode: some processes are forgotten, and so that nobody complains the
 * kernel's watchdog is asked to wait for 25 seconds before it does.
 *
 * class: lost-task
 * expect: reject task-starved,canary-starved,runnable-task-stall,kworker-starved
 * lint: lint-long-timeout,lint-lost-task
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

void BPF_STRUCT_OPS(silences_the_watchdog_enqueue, struct task_struct *p, u64 enq_flags)
{
	if (!(p->flags & PF_KTHREAD) && p->tgid % 3 == 1)
		return;
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
}

SCX_OPS_DEFINE(silences_the_watchdog,
	       .enqueue		= (void *)silences_the_watchdog_enqueue,
	       .timeout_ms	= 25000,
	       .name		= "silences_the_watchdog");
