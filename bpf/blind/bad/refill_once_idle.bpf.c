// SPDX-License-Identifier: GPL-2.0-only
/*
 * refill_once_idle: background tasks (nice > 0) run on a budget of CPU time that a timer refills.
 *
 * Failure mode: the refill timer stops itself when the budget is full (at once on a quiet system) and nothing starts
 * it again. Niced tasks run well until 3 s of CPU time are used up in total; from then on none of them ever runs
 * again, even on an idle machine (stall after 30 s). Tests without niced load, or shorter than a few seconds, pass.
 *
 * class: late
 * expect: reject
 * needs: nice > 0 work for more than 3 s of CPU time, then 30 s of run time
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define NORMAL_DSQ	0xa6
#define BACKGROUND_DSQ	0xa7
#define SLICE_NS	(5ULL * 1000 * 1000)
#define PERIOD_NS	(100ULL * 1000 * 1000)
#define BUDGET_NS	(3000ULL * 1000 * 1000)
#define REFILL_NS	(60ULL * 1000 * 1000)

struct refill {
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct refill);
} refill_map SEC(".maps");

static s64 budget = BUDGET_NS;

static bool is_background(const struct task_struct *p)
{
	return p->scx.weight < 100 && !(p->flags & PF_KTHREAD);
}

s32 BPF_STRUCT_OPS(refill_once_idle_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle && !is_background(p))
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(refill_once_idle_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu;

	if ((p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}
	scx_bpf_dsq_insert(p, is_background(p) ? BACKGROUND_DSQ : NORMAL_DSQ, SLICE_NS, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(refill_once_idle_dispatch, s32 cpu, struct task_struct *prev)
{
	if (scx_bpf_dsq_move_to_local(NORMAL_DSQ, 0))
		return;
	if (budget > 0)
		scx_bpf_dsq_move_to_local(BACKGROUND_DSQ, 0);
}

void BPF_STRUCT_OPS(refill_once_idle_stopping, struct task_struct *p, bool runnable)
{
	if (is_background(p) && p->scx.slice < SLICE_NS)
		__sync_fetch_and_sub(&budget, SLICE_NS - p->scx.slice);
}

static int refill(void *map, int *key, struct bpf_timer *timer)
{
	s32 i, nr = scx_bpf_nr_cpu_ids();

	/* The budget is full: no background work is going on, let the CPUs sleep. */
	if (budget >= (s64)BUDGET_NS)
		return 0;

	__sync_fetch_and_add(&budget, REFILL_NS);
	if (budget > (s64)BUDGET_NS)
		budget = BUDGET_NS;
	bpf_for(i, 0, nr)
		scx_bpf_kick_cpu(i, SCX_KICK_IDLE);
	bpf_timer_start(timer, PERIOD_NS, 0);
	return 0;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(refill_once_idle_init)
{
	struct refill *r;
	u32 key = 0;
	s32 err;

	err = scx_bpf_create_dsq(NORMAL_DSQ, -1) ?: scx_bpf_create_dsq(BACKGROUND_DSQ, -1);
	if (err)
		return err;
	r = bpf_map_lookup_elem(&refill_map, &key);
	if (!r)
		return -ESRCH;
	bpf_timer_init(&r->timer, &refill_map, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&r->timer, refill);
	return bpf_timer_start(&r->timer, PERIOD_NS, 0);
}

void BPF_STRUCT_OPS(refill_once_idle_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(refill_once_idle,
	       .select_cpu	= (void *)refill_once_idle_select_cpu,
	       .enqueue	= (void *)refill_once_idle_enqueue,
	       .dispatch	= (void *)refill_once_idle_dispatch,
	       .stopping	= (void *)refill_once_idle_stopping,
	       .init		= (void *)refill_once_idle_init,
	       .exit		= (void *)refill_once_idle_exit,
	       .name		= "refill_once_idle");
