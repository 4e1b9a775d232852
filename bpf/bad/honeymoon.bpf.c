// SPDX-License-Identifier: GPL-2.0-only
/*
 * honeymoon: three good seconds, and then last come, first served.
 *
 * Failure mode: a warm-up phase with rules of its own, which is all that a short test
 * sees. After it the newest task goes first, and as long as tasks keep coming the oldest
 * one never runs.
 *
 * class: late
 * expect: reject runnable-task-stall,task-starved,canary-starved,kworker-starved
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE		0
#define SLICE_NS	(5 * 1000 * 1000ULL)
#define WARM_UP_NS	(3 * 1000 * 1000 * 1000ULL)

static u64 warm_at;

s32 BPF_STRUCT_OPS(honeymoon_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(honeymoon_enqueue, struct task_struct *p, u64 enq_flags)
{
	u64 now = scx_bpf_now();

	/* The smallest key goes first: the oldest, and after the warm-up the newest. */
	scx_bpf_dsq_insert_vtime(p, QUEUE, SLICE_NS, now < warm_at ? now : 2 * warm_at - now,
				 enq_flags);
}

void BPF_STRUCT_OPS(honeymoon_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(QUEUE, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(honeymoon_init)
{
	warm_at = scx_bpf_now() + WARM_UP_NS;
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(honeymoon,
	       .select_cpu	= (void *)honeymoon_select_cpu,
	       .enqueue		= (void *)honeymoon_enqueue,
	       .dispatch	= (void *)honeymoon_dispatch,
	       .init		= (void *)honeymoon_init,
	       .name		= "honeymoon");
