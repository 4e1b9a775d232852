// SPDX-License-Identifier: GPL-2.0-only
/*
 * spins_in_timer: housekeeping that does not come back.
 *
 * Failure mode: a BPF timer runs in soft interrupt context, where nothing can be
 * scheduled, and this one stays for a minute. Interrupts are on, so the soft lock-up
 * detector can see it, and everybody on that CPU waits.
 *
 * class: lockup
 * expect: reject soft-lockup,machine-locked-up,rcu-stall,runnable-task-stall,canary-starved,task-starved
 * lint: lint-long-loop
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define LOOPS		(1 << 23)
#define SECOND_NS	(1000 * 1000 * 1000ULL)

struct chore {
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct chore);
} chores SEC(".maps");

static int is_it_time(u32 i, void *until)
{
	return bpf_ktime_get_ns() >= *(u64 *)until;
}

static int again(u32 i, void *until)
{
	bpf_loop(LOOPS, is_it_time, until, 0);
	return bpf_ktime_get_ns() >= *(u64 *)until;
}

static int keep_house(void *map, u32 *key, struct bpf_timer *timer)
{
	u64 until = bpf_ktime_get_ns() + 60 * SECOND_NS;

	bpf_loop(LOOPS, again, &until, 0);
	return 0;
}

void BPF_STRUCT_OPS(spins_in_timer_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(spins_in_timer_init)
{
	u32 zero = 0;
	struct chore *chore = bpf_map_lookup_elem(&chores, &zero);

	if (!chore)
		return -ENOENT;
	bpf_timer_init(&chore->timer, &chores, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&chore->timer, keep_house);
	return bpf_timer_start(&chore->timer, SECOND_NS, 0);
}

SCX_OPS_DEFINE(spins_in_timer,
	       .enqueue	= (void *)spins_in_timer_enqueue,
	       .init	= (void *)spins_in_timer_init,
	       .name	= "spins_in_timer");
