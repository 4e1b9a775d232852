// SPDX-License-Identifier: GPL-2.0-only
/*
 * lottery: a draw with a promise.
 *
 * Who is queued draws a number of up to 20 ms and is served in the order of "queued
 * at" plus that number. Luck decides among those who came at about the same time;
 * nobody who came 20 ms later can go first, so every wait is bounded.
 *
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE		0
#define MS		(1000 * 1000ULL)
#define SLICE_NS	(4 * MS)
#define LUCK_NS		(20 * MS)

s32 BPF_STRUCT_OPS(lottery_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(lottery_enqueue, struct task_struct *p, u64 enq_flags)
{
	u64 key = scx_bpf_now() + bpf_get_prandom_u32() % LUCK_NS;

	scx_bpf_dsq_insert_vtime(p, QUEUE, SLICE_NS, key, enq_flags);
}

void BPF_STRUCT_OPS(lottery_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(QUEUE, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(lottery_init)
{
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(lottery,
	       .select_cpu	= (void *)lottery_select_cpu,
	       .enqueue		= (void *)lottery_enqueue,
	       .dispatch	= (void *)lottery_dispatch,
	       .init		= (void *)lottery_init,
	       .name		= "lottery");
