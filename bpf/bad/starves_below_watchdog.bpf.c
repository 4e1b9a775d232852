// SPDX-License-Identifier: GPL-2.0-only
/*
 * starves_below_watchdog: waking tasks wait a second for the hogs.
 *
 * Failure mode: tasks that wake up are the last in line; a busy CPU looks at them
 * only when it has not done so for more than a second, and then for a moment. Each
 * wait ends before the kernel's watchdog loses patience.
 *
 * class: latency
 * expect: reject canary-starved,task-starved,kworker-starved,latency-collapse,runnable-task-stall
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

enum { HOGS, SLEEPERS };

#define MAX_CPUS	1024
#define MS		(1000 * 1000ULL)
#define CLOSED_NS	(1200 * MS)
#define OPEN_NS		(100 * MS)

static u64 opened_at[MAX_CPUS];

void BPF_STRUCT_OPS(starves_below_watchdog_enqueue, struct task_struct *p, u64 enq_flags)
{
	u64 queue = enq_flags & SCX_ENQ_WAKEUP ? SLEEPERS : HOGS;

	scx_bpf_dsq_insert(p, queue, 5 * MS, enq_flags);
}

void BPF_STRUCT_OPS(starves_below_watchdog_dispatch, s32 cpu, struct task_struct *prev)
{
	u64 *opened = MEMBER_VPTR(opened_at, [cpu]);
	u64 now = scx_bpf_now();

	if (!opened)
		return;
	if (now - *opened > CLOSED_NS)
		*opened = now;
	if (now - *opened < OPEN_NS && scx_bpf_dsq_move_to_local(SLEEPERS, 0))
		return;
	if (scx_bpf_dsq_move_to_local(HOGS, 0))
		return;
	/* A hog that is alone on its CPU must not leave it idle, nor give it up. */
	if (!prev || !(prev->scx.flags & SCX_TASK_QUEUED))
		scx_bpf_dsq_move_to_local(SLEEPERS, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(starves_below_watchdog_init)
{
	s32 err = scx_bpf_create_dsq(HOGS, NUMA_NO_NODE);

	return err ?: scx_bpf_create_dsq(SLEEPERS, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(starves_below_watchdog,
	       .enqueue		= (void *)starves_below_watchdog_enqueue,
	       .dispatch	= (void *)starves_below_watchdog_dispatch,
	       .init		= (void *)starves_below_watchdog_init,
	       .name		= "starves_below_watchdog");
