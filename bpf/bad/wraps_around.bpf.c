// SPDX-License-Identifier: GPL-2.0-only
/*
 * wraps_around: numbers its customers with sixteen bits.
 *
 * Failure mode: a queue in the order of ticket numbers, and the tickets begin again at 0
 * after 65535. Whoever holds a high number then waits until all the low ones are gone, and
 * new ones keep coming: the last customers before the wrap wait for a whole round. It
 * takes that many tickets to see it, half a minute of a busy machine.
 *
 * class: late
 * expect: reject runnable-task-stall,task-starved,canary-starved,kworker-starved
 * policy: full
 * needs: 40 s of run time, heavy load
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE		0
#define SLICE_NS	(1000 * 1000ULL)

static u32 tickets;

s32 BPF_STRUCT_OPS(wraps_around_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(wraps_around_enqueue, struct task_struct *p, u64 enq_flags)
{
	u16 ticket = __sync_fetch_and_add(&tickets, 1);

	scx_bpf_dsq_insert_vtime(p, QUEUE, SLICE_NS, ticket, enq_flags);
}

void BPF_STRUCT_OPS(wraps_around_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(QUEUE, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(wraps_around_init)
{
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(wraps_around,
	       .select_cpu	= (void *)wraps_around_select_cpu,
	       .enqueue		= (void *)wraps_around_enqueue,
	       .dispatch	= (void *)wraps_around_dispatch,
	       .init		= (void *)wraps_around_init,
	       .name		= "wraps_around");
