// SPDX-License-Identifier: GPL-2.0-only
/*
 * yield_ignored: vtime scheduler that does not support directed yield and says so.
 *
 * Failure mode: defining ops.yield replaces the default (slice = 0), so plain sched_yield() does nothing at all: the
 * caller keeps the CPU for the rest of its 20 ms slice. Threads that hand over with sched_yield() (spin-then-yield
 * locks, ping-pong on one CPU, some runtimes and games) go from several 100 000 hand-overs per second to about 50.
 * Everything else is normal.
 *
 * class: throughput
 * expect: reject
 * needs: sched_yield() between tasks on the same CPU(s)
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0xa1
#define SLICE_NS	(20ULL * 1000 * 1000)

static u64 vtime_now;

s32 BPF_STRUCT_OPS(yield_ignored_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(yield_ignored_enqueue, struct task_struct *p, u64 enq_flags)
{
	u64 vtime = p->scx.dsq_vtime;
	s32 cpu;

	if ((p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}
	if (time_before(vtime, vtime_now - SLICE_NS))
		vtime = vtime_now - SLICE_NS;
	scx_bpf_dsq_insert_vtime(p, SHARED_DSQ, SLICE_NS, vtime, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(yield_ignored_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

bool BPF_STRUCT_OPS(yield_ignored_yield, struct task_struct *from, struct task_struct *to)
{
	/* Yielding to a given task is not supported; fairness is the job of vtime. */
	return false;
}

void BPF_STRUCT_OPS(yield_ignored_running, struct task_struct *p)
{
	if (time_before(vtime_now, p->scx.dsq_vtime))
		vtime_now = p->scx.dsq_vtime;
}

void BPF_STRUCT_OPS(yield_ignored_stopping, struct task_struct *p, bool runnable)
{
	u64 used = p->scx.slice < SLICE_NS ? SLICE_NS - p->scx.slice : 0;

	scx_bpf_task_set_dsq_vtime(p, p->scx.dsq_vtime + scale_by_task_weight_inverse(p, used));
}

void BPF_STRUCT_OPS(yield_ignored_enable, struct task_struct *p)
{
	scx_bpf_task_set_dsq_vtime(p, vtime_now);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(yield_ignored_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(yield_ignored_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(yield_ignored,
	       .select_cpu	= (void *)yield_ignored_select_cpu,
	       .enqueue	= (void *)yield_ignored_enqueue,
	       .dispatch	= (void *)yield_ignored_dispatch,
	       .yield		= (void *)yield_ignored_yield,
	       .running	= (void *)yield_ignored_running,
	       .stopping	= (void *)yield_ignored_stopping,
	       .enable		= (void *)yield_ignored_enable,
	       .init		= (void *)yield_ignored_init,
	       .exit		= (void *)yield_ignored_exit,
	       .name		= "yield_ignored");
