// SPDX-License-Identifier: GPL-2.0-only
/*
 * double_or_nothing: adaptive slices: a task that used all of its slice gets twice as long the next time.
 *
 * Failure mode: the doubling has no upper limit. With two hogs per CPU the turns are 4, 8, 16 ... ms: after 10 s of
 * run time a turn takes about 4 s, after 40 s more than 16 s, and everything that waits for a CPU waits that long; at
 * last the stall watchdog fires. The first seconds look excellent. A limit was "to be tuned later".
 *
 * class: late
 * expect: reject
 * needs: 20 s of run time with more CPU hogs than CPUs
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x86
#define SLICE_NS	(4ULL * 1000 * 1000)

struct task_ctx {
	u64 slice;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_ctx);
} ctxs SEC(".maps");

static u64 task_slice(struct task_struct *p)
{
	struct task_ctx *t = bpf_task_storage_get(&ctxs, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!t)
		return SLICE_NS;
	if (!t->slice)
		t->slice = SLICE_NS;
	return t->slice;
}

s32 BPF_STRUCT_OPS(double_or_nothing_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, task_slice(p), 0);
	return cpu;
}

void BPF_STRUCT_OPS(double_or_nothing_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu;

	if ((p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}
	scx_bpf_dsq_insert(p, SHARED_DSQ, task_slice(p), enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(double_or_nothing_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

void BPF_STRUCT_OPS(double_or_nothing_stopping, struct task_struct *p, bool runnable)
{
	struct task_ctx *t = bpf_task_storage_get(&ctxs, p, 0, 0);

	if (!t || !t->slice)
		return;
	/* Batch tasks converge to long slices, interactive ones (which block early) to short ones. */
	if (runnable && !p->scx.slice)
		t->slice *= 2;
	else if (!runnable && t->slice > SLICE_NS)
		t->slice /= 2;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(double_or_nothing_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(double_or_nothing_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(double_or_nothing,
	       .select_cpu	= (void *)double_or_nothing_select_cpu,
	       .enqueue	= (void *)double_or_nothing_enqueue,
	       .dispatch	= (void *)double_or_nothing_dispatch,
	       .stopping	= (void *)double_or_nothing_stopping,
	       .init		= (void *)double_or_nothing_init,
	       .exit		= (void *)double_or_nothing_exit,
	       .name		= "double_or_nothing");
