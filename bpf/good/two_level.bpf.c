// SPDX-License-Identifier: GPL-2.0-only
/*
 * two_level: two priorities, with ageing.
 *
 * A task that wakes up is urgent, a task that used up its slice is batch. Each
 * CPU prefers urgent tasks, but once it has not looked at the batch queue for
 * AGE_NS it serves that one first. The clock is per CPU: a batch task that is
 * pinned to a CPU must not starve because other CPUs serve batch tasks.
 *
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

enum { URGENT, BATCH };

#define MAX_CPUS	1024
#define SLICE_NS	(5 * 1000 * 1000ULL)
#define AGE_NS		(20 * 1000 * 1000ULL)

static u64 batch_served_at[MAX_CPUS];

s32 BPF_STRUCT_OPS(two_level_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(two_level_enqueue, struct task_struct *p, u64 enq_flags)
{
	u64 queue = enq_flags & SCX_ENQ_WAKEUP ? URGENT : BATCH;

	scx_bpf_dsq_insert(p, queue, SLICE_NS, enq_flags);
}

void BPF_STRUCT_OPS(two_level_dispatch, s32 cpu, struct task_struct *prev)
{
	u64 *served_at = MEMBER_VPTR(batch_served_at, [cpu]);
	u64 now = scx_bpf_now();
	bool aged;

	if (!served_at)
		return;

	aged = time_after(now, *served_at + AGE_NS);
	if (!aged && scx_bpf_dsq_move_to_local(URGENT, 0))
		return;
	*served_at = now;
	if (scx_bpf_dsq_move_to_local(BATCH, 0))
		return;
	if (aged)
		scx_bpf_dsq_move_to_local(URGENT, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(two_level_init)
{
	s32 err = scx_bpf_create_dsq(URGENT, NUMA_NO_NODE);

	return err ?: scx_bpf_create_dsq(BATCH, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(two_level,
	       .select_cpu	= (void *)two_level_select_cpu,
	       .enqueue		= (void *)two_level_enqueue,
	       .dispatch	= (void *)two_level_dispatch,
	       .init		= (void *)two_level_init,
	       .name		= "two_level");
