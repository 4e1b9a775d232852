// SPDX-License-Identifier: GPL-2.0-only
/*
 * spins_in_dispatch: after a second, one decision that takes a minute.
 *
 * Failure mode: a loop that is bounded, so the verifier is content, by a bound that
 * nobody lives to see. Dispatch holds the run queue's lock with interrupts off: no
 * tick and no soft lock-up detector on that CPU, and the others stop as soon as they
 * want its lock.
 *
 * class: lockup
 * expect: reject machine-locked-up,hard-lockup,soft-lockup,rcu-stall,runnable-task-stall,hung-task
 * lint: lint-long-loop
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE		0
#define LOOPS		(1 << 23)
#define SECOND_NS	(1000 * 1000 * 1000ULL)

static u64 spin_at;

static int is_it_time(u32 i, void *until)
{
	return bpf_ktime_get_ns() >= *(u64 *)until;
}

static int again(u32 i, void *until)
{
	bpf_loop(LOOPS, is_it_time, until, 0);
	return bpf_ktime_get_ns() >= *(u64 *)until;
}

void BPF_STRUCT_OPS(spins_in_dispatch_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, QUEUE, SCX_SLICE_DFL, enq_flags);
}

void BPF_STRUCT_OPS(spins_in_dispatch_dispatch, s32 cpu, struct task_struct *prev)
{
	u64 now = bpf_ktime_get_ns();

	if (now > spin_at) {
		u64 until = now + 60 * SECOND_NS;

		bpf_loop(LOOPS, again, &until, 0);
	}
	scx_bpf_dsq_move_to_local(QUEUE, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(spins_in_dispatch_init)
{
	spin_at = bpf_ktime_get_ns() + SECOND_NS;
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(spins_in_dispatch,
	       .enqueue		= (void *)spins_in_dispatch_enqueue,
	       .dispatch	= (void *)spins_in_dispatch_dispatch,
	       .init		= (void *)spins_in_dispatch_init,
	       .name		= "spins_in_dispatch");
